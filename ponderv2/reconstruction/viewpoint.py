"""One image to be rendered: a camera, and the frame that was taken from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ponderv2.geometry.cameras import Camera
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class Viewpoint:
    """One image to be rendered."""

    name: str
    camera: Camera
    frame: Frame | None = None
    """The frame that was taken from there."""

    def resized(self, width: int) -> Viewpoint:
        """With `width` pixels across; the height follows."""
        return replace(self, camera=resized(self.camera, width))


@dataclass(frozen=True)
class CameraPath:
    """The cameras of a path, in order."""

    views: tuple[Viewpoint, ...]
    """No two of them share a name."""
    notes: tuple[str, ...] = ()
    """What the user should know of where they are."""
    frames_per_second: float | None = None
    """Of the video that they are for; None = nothing says."""


def resized(camera: Camera, width: int) -> Camera:
    """The same view with `width` pixels across. Pixel centres are integers, so corners are at -0.5."""
    scale = width / camera.width
    intrinsics = camera.intrinsics.double().clone()
    intrinsics[:2, :2] *= scale
    intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * scale - 0.5
    height = max(round(camera.height * scale), 1)
    return replace(camera, intrinsics=intrinsics.to(camera.intrinsics.dtype), width=width, height=height)


def path_contents(views: Sequence[Viewpoint]) -> dict[str, Any]:
    """What `read_cameras` reads."""
    return {
        "frames": [
            {
                "name": view.name,
                "width": view.camera.width,
                "height": view.camera.height,
                "intrinsics": view.camera.intrinsics.double().tolist(),
                "camera_to_world": torch.linalg.inv(view.camera.world_to_camera.double()).tolist(),
            }
            for view in views
        ]
    }
