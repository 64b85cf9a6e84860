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


@dataclass(frozen=True)
class FloatRows:
    """Reads scans of little-endian float32 rows: x, y, z in metres, then one value per column."""

    columns: tuple[str, ...] = ("intensity",)
    """Names of what follows x, y, z."""
    intensity_scale: float = 1.0
    """Of the stored intensities; they become 0..1."""

    def points(self, path: Path) -> PointCloud:
        """The points in the frame of the sensor, without those that are not finite. Raises SceneError."""
        rows = self.rows(path)
        return self.cloud(rows[finite(rows)])

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


def scan_names(folder: Path) -> list[str]:
    """Numbers of the scans in a folder of KITTI (000000.bin), in order; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(one[:-4] for one in names if one.endswith(".bin") and one[:-4].isdecimal())


def finite(rows: Float32[ndarray, "point column"]) -> Bool[ndarray, " point"]:
    """Rows whose values all are."""
    return np.asarray(np.isfinite(rows).all(axis=1))


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
