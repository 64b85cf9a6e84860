"""LiDAR scans as the data sets of driving store them: rows of 32-bit floats, and files of labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.suggestions import actual_file_type
from ponderv2.scenes.scene import PointCloud

AGAIN = "copy or extract the file again"
FARTHEST = 10_000.0
"""Metres from the sensor that no LiDAR reaches: what lies beyond is no point."""


@dataclass(frozen=True)
class FloatRows:
    """Reads scans of little-endian float32 rows: x, y, z in metres, then one value per column."""

    columns: tuple[str, ...] = ("intensity",)
    """Names of what follows x, y, z."""
    intensity_scale: float = 1.0
    """Of the stored intensities; they become 0..1."""

    def points(self, path: Path) -> PointCloud:
        """The points in the frame of the sensor, without those of `usable`. Raises SceneError."""
        rows = self.rows(path)
        return self.cloud(rows[usable(rows, path)])

    def rows(self, path: Path) -> Float32[ndarray, "point column"]:
        """All rows as they are stored. Raises SceneError: missing, or of a size that is no number of rows."""
        width = 3 + len(self.columns)
        data = read_scan(path)
        if len(data) % (4 * width):
            found = actual_file_type(data)
            why = (
                f"it is {found[0]}"
                if found
                else f"{len(data)} bytes are no number of points of {4 * width} bytes"
            )
            raise SceneError(f"the scan {path} is damaged: {why}", fix=AGAIN)
        return np.frombuffer(data, "<f4").reshape(-1, width).astype(np.float32)

    def cloud(self, rows: Float32[ndarray, "point column"]) -> PointCloud:
        """Rows as points with their fields."""
        fields: dict[str, torch.Tensor] = {}
        for index, name in enumerate(self.columns):
            values = torch.from_numpy(rows[:, 3 + index].copy())
            if name == "intensity":
                values = values * self.intensity_scale
            elif name == "ring":
                values = values.to(torch.int16)
            fields[name] = values
        return PointCloud(torch.from_numpy(rows[:, :3].copy()), fields=fields)


def is_file_name(name: str) -> bool:
    """Whether a file system can have a file of this name, which may have folders in it."""
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return bool(name) and b"\0" not in name.encode() and max(map(len, parts)) <= 255 and len(name) <= 2048


def scan_names(folder: Path) -> list[str]:
    """Numbers of the scans in a folder of KITTI (000000.bin), in order; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = {one[:-4] for one in names if one.endswith((".bin", ".BIN")) and one[:-4].isdecimal()}
    return sorted(found, key=lambda one: (int(one), one))


def frame_file(folder: Path, name: str, ending: str) -> Path:
    """The file of a frame of KITTI, as published in small letters (000000.bin), or as 000000.BIN."""
    path = folder / f"{name}.{ending}"
    large = folder / f"{name}.{ending.upper()}"
    return large if not path.is_file() and large.is_file() else path


def usable(rows: Float32[ndarray, "point column"], path: Path) -> Bool[ndarray, " point"]:
    """Rows whose values are all finite, of points within FARTHEST.

    Raises SceneError where most points that are finite lie beyond: the file holds something else.
    """
    good = np.isfinite(rows).all(axis=1)
    near = good & (np.abs(rows[:, :3]) < FARTHEST).all(axis=1)
    if 2 * int(near.sum()) < int(good.sum()):
        found = actual_file_type(rows.tobytes())
        why = f"it is {found[0]}" if found else f"most of its points are over {FARTHEST:.0f} m away"
        raise SceneError(f"the scan {path} is damaged: {why}", fix=AGAIN)
    return np.asarray(near)


def usable_of_key(
    rows: Float32[ndarray, "point column"], path: Path, notes: list[str]
) -> Bool[ndarray, " point"]:
    """As `usable`; what is left out is noted. Raises SceneError also where nothing remains."""
    good = usable(rows, path)
    if not good.any():
        raise SceneError(f"the scan {path} holds no points that are finite")
    if not good.all():
        notes.append(f"{int((~good).sum())} points that are not finite were left out of {path.name}")
    return good


def read_scan(path: Path) -> bytes:
    """The bytes of a scan. Raises SceneError: missing or empty."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        why = error.strerror if isinstance(error, OSError) else None
        raise SceneError(f"cannot read the scan {path}: {why or error}", fix=AGAIN) from error
    if not data:
        raise SceneError(f"the scan {path} is empty", fix=AGAIN)
    return data


def read_labels(path: Path, dtype: str, n_points: int) -> ndarray:
    """One number per point. Raises SceneError: missing, or not of the length of the scan."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise SceneError(f"cannot read the labels {path}: {why or error}", fix=AGAIN) from error
    size = np.dtype(dtype).itemsize
    if len(data) != n_points * size:
        raise SceneError(
            f"{path} holds {len(data) / size:g} labels, its scan has {n_points} points", fix=AGAIN
        )
    return np.frombuffer(data, dtype)


def lookup(classes: Mapping[int, int], size: int) -> ndarray:
    """Table from stored numbers below `size` to classes; -1 where `classes` has none."""
    table = np.full(size, -1, np.int64)
    for stored, one in classes.items():
        if 0 <= stored < size:
            table[stored] = one
    return table
