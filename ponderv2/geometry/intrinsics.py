"""Pinhole intrinsics with OpenCV's distortion, and where they see a ray. Pixel centres at integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.errors import SceneError

SAME_CAMERA = 2.5
"""Pixels. Cameras that agree to this are taken for one (ScanNet's colour and depth differ by about 1.5)."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics with OpenCV's distortion. Pixel centres at integers."""

    matrix: Float[ndarray, "3 3"]
    size: tuple[int, int] | None = None
    """Width and height of the images that the matrix belongs to; None = of any."""
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 k3."""

    def __post_init__(self) -> None:
        """Raises SceneError for numbers that no camera has."""
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.distortion).all()):
            raise SceneError("the numbers of a camera are not finite", fix="check the files of the cameras")
        with np.errstate(over="ignore"):
            determinant = float(np.linalg.det(self.matrix))
        if not 1e-9 < abs(determinant) < 1e18:
            raise SceneError("invalid camera intrinsics", fix="check the files of the cameras")
        if self.size is not None and min(self.size) < 1:
            raise SceneError(
                f"a camera has images of {self.size[0]} x {self.size[1]} pixels",
                fix="check the files of the cameras",
            )

    def at_size(self, width: int, height: int) -> Float[ndarray, "3 3"]:
        """Intrinsics of the same camera for images of another size."""
        if self.size is None or self.size == (width, height):
            return self.matrix
        return scaled_intrinsics(self.matrix, width / self.size[0], height / self.size[1])


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[ndarray, "3 3"]:
    """Intrinsic matrix without skew."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def scaled_intrinsics(
    intrinsics: Float[ndarray, "3 3"], scale_x: float, scale_y: float
) -> Float[ndarray, "3 3"]:
    """Intrinsics of a resized image: its outer edges stay, and pixel centres are integers in both."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    return np.linalg.inv(half) @ np.diag([scale_x, scale_y, 1.0]) @ half @ intrinsics


def pixel_grid(width: int, height: int) -> Float[ndarray, "row column 2"]:
    """Column and row of each pixel."""
    column, row = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return np.stack([column, row], axis=-1)


def distort(
    ray: Float[ndarray, "*batch 2"], distortion: tuple[float, float, float, float, float]
) -> Float[ndarray, "*batch 2"]:
    """OpenCV's model (k1 k2 p1 p2 k3) on (x/z, y/z)."""
    k1, k2, p1, p2, k3 = distortion
    x, y = ray[..., 0], ray[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def seen_at(
    ray: Float[ndarray, "*batch 2"], intrinsics: Intrinsics, width: int, height: int
) -> Float[ndarray, "*batch 2"]:
    """Pixel at which a camera with distortion sees a ray (x/z, y/z)."""
    matrix = intrinsics.at_size(width, height)
    bent = distort(ray, intrinsics.distortion) if any(intrinsics.distortion) else ray
    return bent @ matrix[:2, :2].T + matrix[:2, 2]


def rays_of(intrinsics: Float[ndarray, "3 3"], width: int, height: int) -> Float[ndarray, "row column 2"]:
    """(x/z, y/z) of each pixel of a pinhole camera."""
    return (pixel_grid(width, height) - intrinsics[:2, 2]) @ np.linalg.inv(intrinsics[:2, :2]).T


def same_camera(
    color: Intrinsics, color_size: tuple[int, int], depth: Intrinsics, depth_size: tuple[int, int]
) -> bool:
    """Whether the colour image, resized, is the view of the depth camera."""
    if any(color.distortion) or any(depth.distortion):
        return False
    width, height = depth_size
    first, second = (
        Intrinsics(color.matrix, color.size or color_size).at_size(width, height),
        depth.at_size(*depth_size),
    )
    corner = np.array([[0.0, 0.0], [width - 1.0, 0.0], [0.0, height - 1.0], [width - 1.0, height - 1.0]])
    ray = (corner - second[:2, 2]) @ np.linalg.inv(second[:2, :2]).T
    moved = ray @ first[:2, :2].T + first[:2, 2]
    return bool(np.abs(moved - corner).max() <= SAME_CAMERA)
