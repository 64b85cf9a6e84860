"""One RGB-D image of SUN RGB-D: its camera, depth and points in the upright frame, and its boxes.

Upright: x right, y forward, z up, metres, from the camera; `tilt` (Rtilt) turns what the camera sees into it.
Pixels of the files are counted from 1, as in MATLAB; cameras here have the first pixel's centre at 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16
from numpy import ndarray

from ponderv2.datasets.drives import LARGEST, usable_boxes
from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.io.images import image_size, read_color, read_integers
from ponderv2.scenes.scene import Frame, PointCloud

FARTHEST = 8.0
"""Metres. The published points lie there where the sensor measured more; depth images have nothing there."""
CAMERA_TO_TILTED = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From camera axes (x right, y down, z forward) to x right, y forward, z up, without the tilt."""


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes as a label file says, in metres and the upright frame."""

    names: Sequence[str]
    center: Float64[ndarray, "box 3"]
    size: Float64[ndarray, "box 3"]
    """Full length, width, height; length is along the heading."""
    yaw: Float64[ndarray, " box"]
    """Counter-clockwise from x, seen from above; any number of turns."""

    def boxes(self, notes: list[str]) -> Boxes:
        """Those of the benchmark's classes; what is left out is noted."""
        numbers = np.concatenate([self.center, self.size, self.yaw[:, None]], axis=1)
        known = np.array([name in BOX_CLASSES for name in self.names], bool)
        if not known.all():
            others = Counter(name for name in self.names if name not in BOX_CLASSES)
            listed = ", ".join(name[:40] for name, _ in others.most_common(3))
            notes.append(f"{int((~known).sum())} of {len(known)} objects are of other classes ({listed})")
        index = np.flatnonzero(known)
        index = index[usable_boxes(numbers[index], self.size[index], notes)]
        yaw = self.yaw[index]
        return Boxes(
            center=torch.from_numpy(self.center[index]).float(),
            size=torch.from_numpy(self.size[index]).float(),
            yaw=torch.from_numpy(np.arctan2(np.sin(yaw), np.cos(yaw))).float(),
            velocity=torch.zeros(len(index), 3),
            category=torch.tensor([BOX_CLASSES.index(self.names[one]) for one in index], dtype=torch.long),
            instance=torch.from_numpy(index).long(),
        )


def label_boxes(
    names: Sequence[str],
    center: Float64[ndarray, "box 3"],
    half: Float64[ndarray, "box 3"],
    orientation: Float64[ndarray, "box 2"],
) -> ImageBoxes:
    """Boxes of the labels: half width, half length, half height, and the heading as a vector.

    A vector that is zero or not finite is no heading: such a box is not usable.
    """
    length = np.hypot(orientation[:, 0], orientation[:, 1])
    with np.errstate(invalid="ignore"):
        known = (length > 1e-6) & (length < LARGEST)
    yaw = np.where(known, np.arctan2(orientation[:, 1], orientation[:, 0]), np.nan)
    return ImageBoxes(names, center, 2.0 * np.abs(half[:, [1, 0, 2]]), yaw)


@dataclass(frozen=True)
class BitRotatedDepth:
    """Depth PNGs whose 16 bits are rotated by three, in millimetres."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        return read_color(path)

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """Millimetres; 0 = no measurement, or farther than the sensor can tell."""
        depth = read_millimetres(path)
        return np.where(depth > FARTHEST * 1000.0, 0, depth).astype(np.float32)

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """There are none."""
        raise SceneError(f"SUN RGB-D has no classes of pixels ({path})")


BIT_ROTATED = BitRotatedDepth()


def read_millimetres(path: Path) -> UInt16[ndarray, "row column"]:
    """A depth PNG with its bits in order. Raises SceneError."""
    if not path.is_file():
        raise SceneError(f"there is no depth image {path}", fix="download or unpack the data set again")
    stored = read_integers(path)
    return (stored >> 3) | (stored << 13)


def camera_of(
    tilt: Float64[ndarray, "3 3"], intrinsics: Float64[ndarray, "3 3"], width: int, height: int, where: str
) -> Camera:
    """The camera in the upright frame. Raises SceneError for a tilt or intrinsics that are none.

    `where` names the file or record in messages.
    """
    turned = np.isfinite(tilt).all() and np.abs(tilt @ tilt.T - np.eye(3)).max() < 1e-2
    if not turned or np.linalg.det(tilt) < 0:
        raise SceneError(f"the tilt of {where} is no rotation", fix="copy the labels again")
    focal = intrinsics[[0, 1], [0, 1]]
    if not (np.isfinite(intrinsics).all() and (focal > 0).all() and np.abs(intrinsics).max() < LARGEST):
        raise SceneError(f"the intrinsics of {where} are those of no camera", fix="copy the labels again")
    pinhole = np.array([[focal[0], 0, intrinsics[0, 2] - 1], [0, focal[1], intrinsics[1, 2] - 1], [0, 0, 1]])
    to_camera = np.eye(4)
    to_camera[:3, :3] = (tilt @ CAMERA_TO_TILTED).T
    return Camera(torch.from_numpy(pinhole).float(), torch.from_numpy(to_camera).float(), width, height)


def color_frame(name: str, color: Path, tilt: ndarray, intrinsics: ndarray, where: str) -> Frame:
    """The colour image as a frame. Raises SceneError."""
    width, height = image_size(color)
    camera = camera_of(tilt, intrinsics, width, height, where)
    return Frame(id=name, camera=camera, color_path=color, images=BIT_ROTATED)


def points_of_depth(
    millimetres: UInt16[ndarray, "row column"], color: UInt8[ndarray, "row column 3"], camera: Camera
) -> PointCloud:
    """The measured pixels as points, with their colours; beyond 8 m they lie at 8 m, as published."""
    row, column = np.nonzero(millimetres)
    depth = np.minimum(millimetres[row, column].astype(np.float64) / 1000.0, FARTHEST)
    rays = (
        np.stack([column, row, np.ones_like(row)], axis=1)
        @ np.linalg.inv(camera.intrinsics.double().numpy()).T
    )
    coord = (rays * depth[:, None]) @ camera.world_to_camera[:3, :3].double().numpy()
    return PointCloud(
        torch.from_numpy(coord).float(), torch.from_numpy(color[row, column].astype(np.float32))
    )


def cloud_of_rows(rows: ndarray, where: Path, notes: list[str]) -> PointCloud:
    """Points of rows x, y, z, r, g, b with colours of 0..1. Raises SceneError for other rows."""
    if rows.ndim != 2 or rows.shape[1] < 3 or rows.dtype.kind not in "fiu":
        raise SceneError(f"{where} holds {rows.dtype} {rows.shape}, expected x, y, z, r, g, b for each point")
    rows = rows.astype(np.float32)
    with np.errstate(invalid="ignore"):
        good = np.asarray(np.isfinite(rows).all(axis=1) & (np.abs(rows[:, :3]) < LARGEST).all(axis=1))
    if not good.all():
        notes.append(f"{int((~good).sum())} of {len(good)} points are not finite")
    if not good.any():
        raise SceneError(f"{where} holds no points", fix="make it again")
    rows = rows[good]
    color = torch.from_numpy(np.clip(rows[:, 3:6] * 255.0, 0.0, 255.0)) if rows.shape[1] >= 6 else None
    return PointCloud(torch.from_numpy(rows[:, :3].copy()), color)


def at_most(cloud: PointCloud, n_points: int | None, seed: int) -> PointCloud:
    """The cloud, or that many of its points, drawn by the seed; their order stays."""
    if n_points is None or len(cloud) <= n_points:
        return cloud
    chosen = np.random.default_rng(seed).choice(len(cloud), n_points, replace=False)
    return cloud.take(torch.from_numpy(np.sort(chosen)))
