"""Labels of points as datasets store them: whole numbers of any type; what means "no label" becomes -1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError

MOST_COLUMNS = 3
"""Label arrays of PonderV2 have up to three, of which the first is the class."""
UNLABELLED_BYTE = 255
"""-1 in 8 bits, and the usual number of points without a class in image segmentation."""
NOT_A_NUMBER = -(2**62)
"""Stands for NaN until `with_ignored` has reported it."""


def whole_numbers(values: ndarray, source: Path | str, fix: str) -> Int[ndarray, " point"]:
    """One integer per point from (N,), (N, 1), (N, 2) or (N, 3), of which the first column counts.

    NaN becomes NOT_A_NUMBER, the largest number of an unsigned type of 16 bits and more, which is -1 stored
    there, becomes -1.

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
    column = values if values.ndim == 1 else values[:, 0]
    if column.dtype.kind == "f":
        known = np.isfinite(column)
        whole = column[known]
        if not (whole == np.rint(whole)).all() or (np.abs(whole) >= 2.0**53).any() or np.isinf(column).any():
            raise SceneError(f"{source} holds labels that are not whole numbers", fix=fix)
        return np.where(known, column, NOT_A_NUMBER).astype(np.int64)
    if column.dtype.kind == "u" and column.dtype.itemsize > 1:
        return np.where(column == np.iinfo(column.dtype).max, -1, column.astype(np.int64))
    return column.astype(np.int64)


def with_ignored(
    labels: Int[Tensor, " point"], name: str, n_classes: int | None
) -> tuple[Int[Tensor, " point"], tuple[str, ...]]:
    """Labels with -1 for every point that has none, and notes where another number than -1 said so.

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
