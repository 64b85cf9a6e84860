"""Rays, and where they meet a box. Directions have unit length; distances run along the ray."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

HIT_NEAR = 0.1
"""Rays of the published indoor model have a target where they run through the box beyond this."""


@dataclass(frozen=True)
class RayBundle:
    """Rays of all scenes and views of a batch, as one flat set, in the frame of their scene's volume."""

    origins: Float[Tensor, "ray 3"]
    directions: Float[Tensor, "ray 3"]
    """Unit length."""
    scene: Int[Tensor, " ray"]
    """Which volume of the batch the ray runs through."""

    def __len__(self) -> int:
        return self.origins.shape[0]

    def part(self, rows: slice | Int[Tensor, " part"] | Bool[Tensor, " ray"]) -> RayBundle:
        """Some of the rays."""
        return RayBundle(self.origins[rows], self.directions[rows], self.scene[rows])


@dataclass(frozen=True)
class PixelRays:
    """Rays through pixels, with what turns a depth image into distances along them."""

    rays: RayBundle
    cosine: Float[Tensor, " ray"]
    """Between the ray and the optical axis, both in the frame of the scene."""
    distance_per_depth: Float[Tensor, " ray"]
    """Length along the ray, in the frame of the scene, per unit of camera depth: the scale of
    `world_to_camera` is part of it, so that distance = depth in camera units * distance_per_depth."""


def rays_through_pixels(
    pixel: Float[Tensor, "ray 2"],
    view: Int[Tensor, " ray"],
    intrinsics: Float[Tensor, "view 3 3"],
    world_to_camera: Float[Tensor, "view 4 4"],
    view_scene: Int[Tensor, " view"],
) -> PixelRays:
    """One ray per pixel (x, y), from the camera's centre; pixel centres are integers.

    `world_to_camera` is any invertible affine map from the frame of the rays to the camera (it may scale and
    mirror). Only the given pixels are turned into rays, all views at once.
    """
    camera_to_world = torch.linalg.inv(world_to_camera.double())
    pixel_to_world = camera_to_world[:, :3, :3] @ torch.linalg.inv(intrinsics.double())
    homogeneous = F.pad(pixel.double(), (0, 1), value=1.0)
    reach = (pixel_to_world[view] @ homogeneous[:, :, None])[:, :, 0]
    length = reach.norm(dim=-1)
    direction = reach / length[:, None]
    axis = F.normalize(camera_to_world[:, :3, 2], dim=-1)[view]
    dtype = world_to_camera.dtype
    rays = RayBundle(camera_to_world[view, :3, 3].to(dtype), direction.to(dtype), view_scene[view])
    return PixelRays(rays, (direction * axis).sum(-1).to(dtype), length.to(dtype))


def intersect_box(
    rays: RayBundle, lower: Float[Tensor, "#scene 3"], upper: Float[Tensor, "#scene 3"], near_plane: float
) -> tuple[Float[Tensor, " ray"], Float[Tensor, " ray"]]:
    """Distances at which rays enter and leave a box (one for all, or one per scene); both 0 for a miss.

    Slab test with 1e-6 added to the direction, as published: it keeps axis-parallel rays finite.
    """
    inverse = 1.0 / (rays.directions + 1e-6)
    near, far = _slabs(rays, lower, upper, inverse)
    near = near.clamp(min=near_plane)
    hit = near < far
    return torch.where(hit, near, 0.0), torch.where(hit, far, 0.0)


def rays_that_hit(
    rays: RayBundle,
    lower: Float[Tensor, "#scene 3"],
    upper: Float[Tensor, "#scene 3"],
    near_plane: float = HIT_NEAR,
) -> Bool[Tensor, " ray"]:
    """Rays that get a target: those that run through the box beyond `near_plane`.

    The published rule for targets differs from the one for rendering: small direction components become
    +-1e-5 and the near plane is 0.1.
    """
    small = rays.directions
    small = torch.where((small > -1e-10) & (small < 1e-5), 1e-5, small)
    small = torch.where((small > -1e-5) & (small <= -1e-10), -1e-5, small)
    near, far = _slabs(rays, lower, upper, 1.0 / small)
    return near.clamp(min=near_plane) < far


def _slabs(rays: RayBundle, lower: Tensor, upper: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = lower.to(rays.origins), upper.to(rays.origins)
    if lower.shape[0] > 1:
        lower, upper = lower[rays.scene], upper[rays.scene]
    to_lower, to_upper = (lower - rays.origins) * inverse, (upper - rays.origins) * inverse
    return torch.minimum(to_lower, to_upper).amax(-1), torch.maximum(to_lower, to_upper).amin(-1)
