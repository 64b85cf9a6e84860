"""The views of a Structured3D room as geometry: pixels -> points of the right-handed, z-up world.

The dataset's world is used (right-handed, z up, here in metres). A perspective view is given by eye,
viewing direction and up vector; its right is direction x up, so that OpenCV's axes (right, down, forward)
are a rotation. A panorama is aligned with the world: its middle looks along +y, its right half along +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt16
from numpy import ndarray

PUBLISHED_FROM_WORLD = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The published fusion's frame, (y, x, z): a mirror image of the world."""
SMOOTH = 1.5
"""Ratio of the steps to both neighbours up to which both belong to one surface."""


@dataclass(frozen=True)
class ViewPose:
    """A perspective view as camera_pose.txt describes it."""

    camera_to_world: Float[ndarray, "4 4"]
    """Metres, OpenCV axes, determinant +1."""
    half_angle: tuple[float, float]
    """Half of the horizontal and of the vertical field of view, radians."""

    def intrinsics(self, width: int, height: int, published: bool = False) -> Float[ndarray, "3 3"]:
        """Pixel centres at integers: the image's middle is (width - 1) / 2. `published`: width / 2."""
        shift = 0.0 if published else 0.5
        x, y = (np.tan(angle) for angle in self.half_angle)
        return np.array(
            [[width / 2 / x, 0, width / 2 - shift], [0, height / 2 / y, height / 2 - shift], [0, 0, 1]]
        )


def parse_pose(text: str) -> ViewPose:
    """eye (mm), direction, up, half angles x and y (radians), 1. Raises ValueError saying what is wrong."""
    numbers = _numbers(text)
    if len(numbers) < 11:
        raise ValueError(f"{len(numbers)} numbers instead of 12")
    eye, forward, up, angle = numbers[:3], numbers[3:6], numbers[6:9], numbers[9:11]
    if ((angle <= 0) | (angle >= np.pi / 2)).any():
        raise ValueError(
            f"half angles {angle[0]:g}, {angle[1]:g} of the field of view are not in 0..pi/2 radians"
        )
    right = np.cross(forward, up)
    length = np.linalg.norm(right)
    if length < 1e-6 or np.linalg.norm(forward) < 1e-6:
        raise ValueError("viewing direction and up vector do not span a plane")
    right, forward = right / length, forward / np.linalg.norm(forward)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye / 1000.0
    return ViewPose(pose, (float(angle[0]), float(angle[1])))


def parse_centre(text: str) -> Float[ndarray, "3"]:
    """The position of a panorama, metres. Raises ValueError saying what is wrong."""
    numbers = _numbers(text)
    if len(numbers) < 3:
        raise ValueError(f"{len(numbers)} numbers instead of 3")
    return numbers[:3] / 1000.0


def _numbers(text: str) -> Float[ndarray, " number"]:
    numbers = np.array([float(word) for word in text.split()])
    if not np.isfinite(numbers).all():
        raise ValueError("numbers that are not finite")
    return numbers


def panorama_rays(width: int, height: int, published: bool = False) -> Float32[ndarray, "row column 3"]:
    """Unit vectors of the world through the centres of the pixels (`published`: through their corners)."""
    shift = 0.0 if published else 0.5
    azimuth = ((np.arange(width) + shift) / width * 2 - 1) * np.pi
    elevation = (0.5 - (np.arange(height) + shift) / height) * np.pi
    level = np.cos(elevation)[:, None]
    up = np.broadcast_to(np.sin(elevation)[:, None], (height, width))
    rays = np.stack([level * np.sin(azimuth), level * np.cos(azimuth), up], axis=-1)
    return rays.astype(np.float32)


def camera_rays(
    intrinsics: Float[ndarray, "3 3"], width: int, height: int
) -> Float32[ndarray, "row column 3"]:
    """Vectors of camera coordinates with z = 1 through the pixels."""
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    rays = np.ones((height, width, 3), np.float32)
    rays[..., 0], rays[..., 1] = x, y[:, None]
    return rays


def measured(depth: UInt16[ndarray, "row column"]) -> Bool[ndarray, "row column"]:
    """Pixels with a depth: neither 0 nor the largest number."""
    return (depth > 0) & (depth < 65535)


def pixel_normals(
    points: Float32[ndarray, "row column 3"],
    known: Bool[ndarray, "row column"],
    step: int = 1,
    closed: bool = False,
) -> Float32[ndarray, "row column 3"]:
    """Unit normals towards the camera at the origin, from the neighbours `step` pixels away; zero where none.

    Per direction the mean of both sides is taken, or the nearer side at the edge of something. `closed`:
    the last column is the neighbour of the first, as in a panorama.
    """
    across = _tangent(points, known, step, 1, closed)
    along = _tangent(points, known, step, 0, False)
    return _towards_camera(np.cross(across, along), points)


def pixel_normals_as_published(
    points: Float32[ndarray, "row column 3"],
) -> Float32[ndarray, "row column 3"]:
    """The same from the next neighbours to the right and below, across edges too; none in the last ones."""
    across, along = np.zeros_like(points), np.zeros_like(points)
    across[:, :-1] = points[:, 1:] - points[:, :-1]
    along[:-1] = points[1:] - points[:-1]
    return _towards_camera(np.cross(across, along), points)


def _towards_camera(
    cross: Float[ndarray, "row column 3"], points: Float32[ndarray, "row column 3"]
) -> Float32[ndarray, "row column 3"]:
    length = np.linalg.norm(cross, axis=-1, keepdims=True)
    normal = np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)
    away = np.einsum("ijk,ijk->ij", normal, points) > 0
    normal[away] *= -1.0
    return normal.astype(np.float32)


def _tangent(
    points: Float32[ndarray, "row column 3"],
    known: Bool[ndarray, "row column"],
    step: int,
    axis: int,
    closed: bool,
) -> Float32[ndarray, "row column 3"]:
    """Direction along the surface between the neighbours of each pixel, zero where there are none."""
    after = np.roll(points, -step, axis) - points
    before = points - np.roll(points, step, axis)
    far = np.full(known.shape, np.inf, np.float32)
    sizes = []
    for difference, shift, cut in ((after, -step, slice(-step, None)), (before, step, slice(0, step))):
        there = np.roll(known, shift, axis)
        if not closed:
            there[(slice(None),) * axis + (cut,)] = False
        sizes.append(np.where(there, np.linalg.norm(difference, axis=-1), far))
    one, two = sizes
    low, high = np.minimum(one, two), np.maximum(one, two)
    both = np.isfinite(high) & (high <= SMOOTH * low + 1e-4)
    nearer = np.where((one <= two)[..., None], after, before)
    tangent = np.where(both[..., None], after + before, nearer)
    tangent[~np.isfinite(low)] = 0.0
    return tangent


def usable(
    points: Float32[ndarray, "row column 3"],
    normal: Float32[ndarray, "row column 3"],
    known: Bool[ndarray, "row column"],
    semantic: Integer[ndarray, "row column"],
    min_cosine: float,
) -> Bool[ndarray, "row column"]:
    """Pixels that give a point: measured, labelled (id > 0), and not seen at a grazing angle."""
    distance = np.maximum(np.linalg.norm(points, axis=-1), 1e-4)
    cosine = np.abs(np.einsum("ijk,ijk->ij", points, normal)) / distance
    return (cosine > min_cosine) & known & (semantic > 0)
