"""Pixels of photographs as rays through the volume of their scene, with what they should show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.encoder.densify import SceneFrames
from ponderv2.geometry.rays import RayBundle, rays_through_pixels
from ponderv2.scenes.batch import PixelBatch


@dataclass(frozen=True)
class PixelRays:
    """Rays in cube units and their targets."""

    bundle: RayBundle
    color: Float[Tensor, "ray 3"]
    """0..1."""
    distance: Float[Tensor, " ray"]
    """Along the ray, cube units; not positive where there is no measurement."""
    hit: Bool[Tensor, " ray"]
    """Whether the ray meets the box around the scene."""


def rays_of_pixels(
    pixels: PixelBatch,
    frames: SceneFrames,
    units_per_metre: Float[Tensor, " scene"],
    half_side: float,
) -> PixelRays:
    """Rays from optical centres through pixel centres, in the frame of each scene's volume.

    Depth along the optical axis becomes distance along the ray. Rays that miss the cube of half side
    `half_side` are black and have no distance.
    """
    world_to_camera = cameras_in_cube(pixels.world_to_camera, frames.to_cube[pixels.view_scene])
    bundle, cosine = rays_through_pixels(
        pixels.pixel,
        pixels.intrinsics[pixels.view],
        world_to_camera[pixels.view],
        pixels.view_scene[pixels.view],
    )
    hit = meets_cube(bundle, half_side)
    scale = (frames.scale * units_per_metre)[bundle.scene]
    distance = torch.where(hit & (pixels.depth > 0), pixels.depth * scale / cosine, -0.001)
    color = torch.where(hit[:, None], pixels.color, 0.0)
    return PixelRays(bundle, color, distance, hit)


def cameras_in_cube(
    world_to_camera: Float[Tensor, "view 4 4"], to_cube: Float[Tensor, "view 4 4"]
) -> Float[Tensor, "view 4 4"]:
    """Cameras that see the same picture after the world is mapped by `to_cube`."""
    moved = world_to_camera.double() @ torch.linalg.inv(to_cube.double())
    return moved.to(world_to_camera.dtype)


def meets_cube(
    rays: RayBundle, half_side: float, near: float = 0.1, smallest: float = 1e-5
) -> Bool[Tensor, " ray"]:
    """Whether a ray is inside the cube somewhere behind `near`; directions are kept away from zero."""
    direction = rays.directions
    tiny = (direction > -1e-10) & (direction < smallest)
    direction = torch.where(tiny, smallest, direction)
    direction = torch.where((direction <= -1e-10) & (direction > -smallest), -smallest, direction)
    first, second = (-half_side - rays.origins) / direction, (half_side - rays.origins) / direction
    enter = torch.minimum(first, second).amax(dim=-1).clamp(min=near)
    leave = torch.maximum(first, second).amin(dim=-1)
    return enter < leave
