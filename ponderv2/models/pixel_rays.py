"""Pixels of photographs as rays through the volume of their scene, with what they should show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.encoder.frames import SceneFrames
from ponderv2.geometry.rays import RayBundle, rays_that_hit, rays_through_pixels
from ponderv2.scenes.batch import PixelBatch


@dataclass(frozen=True)
class TargetRays:
    """Rays in cube units and what was photographed along them."""

    rays: RayBundle
    color: Float[Tensor, "ray 3"]
    """0..1; black where the ray misses."""
    distance: Float[Tensor, " ray"]
    """Along the ray, cube units; not positive where there is no measurement."""
    hit: Bool[Tensor, " ray"]
    """Whether the ray meets the box around the scene."""
    colored: Bool[Tensor, " ray"]
    """Whether a colour was recorded."""


def rays_of_pixels(pixels: PixelBatch, frames: SceneFrames, half_side: float) -> TargetRays:
    """Rays from optical centres through pixel centres, in the frame of each scene's volume.

    Depth along the optical axis becomes distance along the ray. Rays that miss the cube of half side
    `half_side` are black and have no distance.
    """
    world_to_camera = cameras_in_cube(pixels.world_to_camera, frames.to_cube[pixels.view_scene])
    through = rays_through_pixels(
        pixels.pixel, pixels.view, pixels.intrinsics, world_to_camera, pixels.view_scene
    )
    corner = pixels.pixel.new_full((1, 3), half_side)
    hit = rays_that_hit(through.rays, -corner, corner)
    distance = torch.where(hit & (pixels.depth > 0), pixels.depth * through.distance_per_depth, -0.001)
    color = torch.where(hit[:, None], pixels.color, 0.0)
    return TargetRays(through.rays, color, distance, hit, pixels.colored)


def cameras_in_cube(
    world_to_camera: Float[Tensor, "view 4 4"], to_cube: Float[Tensor, "view 4 4"]
) -> Float[Tensor, "view 4 4"]:
    """Cameras that see the same picture after the world is mapped by `to_cube`."""
    moved = world_to_camera.double() @ torch.linalg.inv(to_cube.double())
    return moved.to(world_to_camera.dtype)
