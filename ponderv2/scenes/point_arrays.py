"""Arrays of stored clouds as tensors: positions near zero, colours 0..255, unit normals, labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.normals import estimate_normals
from ponderv2.io.colors import read_colors
from ponderv2.io.disk_cache import cached
from ponderv2.io.labels import NOT_A_NUMBER, whole_numbers
from ponderv2.scenes.origin import (
    FAR_FROM_ZERO,
    Origin,
    coarse_note,
    far_outliers,
    origin_note,
    origin_of,
    outlier_note,
    size_note,
)

MAPPED_FROM = 8 * 2**20
"""Bytes. A mapped array is an open file, of which a process has but a thousand: smaller ones are read."""
ESTIMATED_NORMALS = "the scene has no normals: they were estimated from the points around each point"
ZERO_NORMALS = "the normals of the scene are all zero: they were estimated from the points around each point"
OF_UNIT_LENGTH = 0.02
"""Deviation of the usual length from 1 up to which normals are left as they are, to the last bit."""
FEW = 0.01
"""Share of points without a normal that is not worth a sentence."""
MOST_COLUMNS = 3
"""Label arrays of PonderV2 have up to three, of which the first is the class."""
UNLABELLED_BYTE = 255
"""-1 in 8 bits, and the usual number of points without a class in image segmentation."""


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


def unit_normals(
    values: ndarray, coord: Float[Tensor, "point 3"], source: Path, fix: str
) -> tuple[Float[Tensor, "row 3"], tuple[str, ...]]:
    """Normals of a file, and what to report about them.

    Where they are not of unit length, as bytes of -127..127 are, every one is divided by its length. Where
    all are zero, they are estimated. Single zeros stay. Raises SceneError where some are not finite.
    """
    normal = finite_rows(values, source, fix)
    length = torch.linalg.vector_norm(normal, dim=1)
    there = length > 0
    if not bool(there.any()):
        return (cached_normals(coord), (ZERO_NORMALS,)) if len(normal) else (normal, ())
    n_zero = int((~there).sum())
    notes = (f"{n_zero} of {len(normal)} normals are zero",) if n_zero > FEW * len(normal) else ()
    typical = float(length[there].median())
    if abs(typical - 1.0) <= OF_UNIT_LENGTH:
        return normal, notes
    unit = normal / torch.where(there, length, torch.ones_like(length))[:, None]
    return unit, (*notes, f"normals were of length {typical:.4g} and were divided by their lengths")


def cached_normals(coord: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    """Unit normals by principal components of 16 neighbours, turned towards the middle of the scene.

    For the same points nothing is computed again.
    """

    def make() -> dict[str, np.ndarray]:
        points = coord.numpy().astype(np.float64)
        middle = points[~far_outliers(points)].mean(axis=0)
        return {"normal": estimate_normals(points, towards=middle[None])}

    content = hashlib.sha256(coord.contiguous().numpy().data).hexdigest()
    found = cached("normals", content, make).get("normal")
    if found is None or found.shape != tuple(coord.shape) or found.dtype != np.float32:
        found = make()["normal"]
    return torch.from_numpy(found)


def label_rows(values: ndarray, source: Path | str, fix: str) -> Int[Tensor, " point"]:
    """One integer per point from (N,), (N, 1), (N, 2) or (N, 3), of which the first column counts.

    As `io.labels.whole_numbers`, with NOT_A_NUMBER until `with_ignored` has reported it.

    Raises:
        SceneError: naming `source`, for another shape, for text, and for numbers that are not whole.
    """
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise SceneError(
            f"{source} is {values.dtype} {values.shape}, expected whole numbers of shape (N,)", fix=fix
        )
    if values.ndim == 2 and values.shape[1] > MOST_COLUMNS:
        raise SceneError(
            f"{source} holds {values.shape[1]} numbers per point, expected one label",
            fix="of one-hot vectors and scores store the argmax: values.argmax(axis=1)",
        )
    labels = whole_numbers(values if values.ndim == 1 else values[:, 0])
    if labels is None:
        raise SceneError(f"{source} holds labels that are not whole numbers", fix=fix)
    return torch.from_numpy(labels)


def with_ignored(
    labels: Int[Tensor, " point"], name: str, n_classes: int | None
) -> tuple[Int[Tensor, " point"], tuple[str, ...]]:
    """Labels with -1 for every point that has none, and notes where another number than -1 means it.

    Every negative number means no label. So does 255, unless there are more classes: with `n_classes`
    unknown (None; objects have none), unless the scene has a label of 254 or more beside it.
    """
    if not len(labels) or (int(labels.min()) >= -1 and int(labels.max()) < UNLABELLED_BYTE):
        return labels, ()
    marks = torch.unique(labels[labels < -1]).tolist()
    if _is_unused(labels, n_classes):
        marks.append(UNLABELLED_BYTE)
    without = labels < 0
    notes = []
    for mark in marks:
        here = labels == mark
        without |= here
        what = "no number" if mark == NOT_A_NUMBER else str(mark)
        notes.append(f"'{name}' is {what} at {int(here.sum())} of {len(labels)} points: taken for no label")
    most = 3
    notes = (
        notes if len(notes) <= most else [*notes[:most], f"'{name}': {len(notes) - most} more such numbers"]
    )
    return torch.where(without, -1, labels), tuple(notes)


def _is_unused(labels: Int[Tensor, " point"], n_classes: int | None) -> bool:
    """Whether 255 is there and no class."""
    if not bool((labels == UNLABELLED_BYTE).any()):
        return False
    if n_classes is not None:
        return n_classes <= UNLABELLED_BYTE
    others = labels[labels != UNLABELLED_BYTE]
    return not len(others) or int(others.max()) < UNLABELLED_BYTE - 1
