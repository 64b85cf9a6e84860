"""Pinhole cameras. OpenCV axes (x right, y down, z forward), pixel centres at integers, metres."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One pinhole camera.

    `world_to_camera` is any invertible affine 4x4 map (scaling and mirroring are part of it):
    its transpose is not its inverse.
    """

    intrinsics: Float[Tensor, "3 3"]
    world_to_camera: Float[Tensor, "4 4"]
    width: int
    height: int

    def moved(self, transform: Float[Tensor, "4 4"]) -> Camera:
        """The camera that sees the same image after x' = transform x of the world."""
        moved = self.world_to_camera.double() @ torch.linalg.inv(transform.double())
        return replace(self, world_to_camera=moved.to(self.world_to_camera.dtype))

    @property
    def centre(self) -> Float[Tensor, "3"]:
        """Optical centre in world coordinates."""
        return torch.linalg.inv(self.world_to_camera.double())[:3, 3].to(self.world_to_camera.dtype)


def project(
    points: Float[Tensor, "*batch 3"], intrinsics: Float[Tensor, "*#batch 3 3"]
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Pixel (x, y) and depth of points in camera coordinates. Points at depth 0 give infinities."""
    homogeneous = (intrinsics @ points[..., None])[..., 0]
    return homogeneous[..., :2] / homogeneous[..., 2:], points[..., 2]


def unproject(
    pixel: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"], intrinsics: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch 3"]:
    """Camera coordinates of pixels (x, y) at a depth along the optical axis."""
    homogeneous = torch.cat([pixel, torch.ones_like(pixel[..., :1])], dim=-1)
    return (torch.linalg.inv(intrinsics) @ homogeneous[..., None])[..., 0] * depth[..., None]
