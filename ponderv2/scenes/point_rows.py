"""Rows of processed scenes as tensors: positions near zero, colours 0..255, everything finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.scenes.colors import read_colors
from ponderv2.scenes.origin import (
    FAR_FROM_ZERO,
    coarse_note,
    far_outliers,
    origin_note,
    origin_of,
    outlier_note,
    size_note,
)

MAPPED_FROM = 8 * 2**20
"""Bytes. A mapped array is an open file, of which a process has but a thousand: smaller ones are read."""

Origin = tuple[float, float, float]


def near_rows(
    values: ndarray, source: Path, fix: str
) -> tuple[Float[Tensor, "point 3"], Origin, tuple[str, ...]]:
    """Positions in single precision, what was subtracted from them before, and what there is to report.

    Nothing is subtracted from positions within 200 m of zero. Raises SceneError where some are not finite.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= FAR_FROM_ZERO:  # not so for numbers that are not finite
        return finite_rows(values, source, fix), (0.0, 0.0, 0.0), ()
    if not np.isfinite(largest):
        raise _not_finite(source, fix)
    notes = list(coarse_note(values))
    far = far_outliers(values)
    notes += [outlier_note(values, far)] if far.any() else []
    notes += size_note(values)
    origin = origin_of(values)
    notes += [origin_note(origin)] if origin.any() else []
    x, y, z = origin.tolist()
    coord = values.astype(np.float64) - origin if origin.any() else values
    return finite_rows(coord, source, fix), (x, y, z), tuple(notes)


def near_pose(camera_to_world: Float[ndarray, "4 4"], origin: ndarray) -> Float[ndarray, "4 4"]:
    """The pose in the frame of points from which `origin` was subtracted; in double precision."""
    pose = camera_to_world.astype(np.float64)
    pose[:3, 3] -= origin
    return pose


def color_rows(values: ndarray, source: Path, fix: str) -> tuple[Float[Tensor, "point 3"], tuple[str, ...]]:
    """Colours 0..255 by the rule of all readers, and what was chosen. Raises SceneError for what is none."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _not_finite(source, fix)
    if values.dtype == np.float32 and values.shape[1:] == (3,) and values.nbytes >= MAPPED_FROM:
        read = read_colors(values, source)
        if read.range == "0..255" and not read.notes:  # stays mapped
            return torch.from_numpy(values), ()
    else:
        read = read_colors(np.asarray(values), source)
    return torch.from_numpy(read.color), read.notes


def finite_rows(values: ndarray, source: Path, fix: str) -> Float[Tensor, "row column"]:
    """Single precision, mapped where the file is large. Raises SceneError for NaN and inf."""
    mapped = values.dtype == np.float32 and values.nbytes >= MAPPED_FROM
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(values if mapped else np.array(values, np.float32))
    if not bool(torch.isfinite(rows).all()):
        raise _not_finite(source, fix)
    return rows


def _not_finite(source: Path, fix: str) -> SceneError:
    return SceneError(f"{source} holds numbers that are not finite", fix=fix)
