"""Labels of points as datasets store them: whole numbers of any type; what means "no label" becomes -1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError

UNLABELLED_BYTE = 255
"""-1 in 8 bits, and the usual number of points without a class in image segmentation."""


def whole_numbers(values: ndarray, source: Path | str, fix: str) -> Int[ndarray, " point"]:
    """One integer per point from (N,), (N, 1) or (N, k), of which the first column counts. NaN becomes -1.

    The largest number of an unsigned type of 16 bits and more, which is -1 stored there, becomes -1.

    Raises:
        SceneError: naming `source`, for another shape, for text, and for numbers that are not whole.
    """
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise SceneError(
            f"{source} is {values.dtype} {values.shape}, expected whole numbers of shape (N,)", fix=fix
        )
    column = values if values.ndim == 1 else values[:, 0]
    if column.dtype.kind == "f":
        known = np.isfinite(column)
        whole = column[known]
        if not (whole == np.rint(whole)).all() or (np.abs(whole) >= 2.0**53).any() or np.isinf(column).any():
            raise SceneError(f"{source} holds labels that are not whole numbers", fix=fix)
        return np.where(known, column, -1).astype(np.int64)
    if column.dtype.kind == "u" and column.dtype.itemsize > 1:
        return np.where(column == np.iinfo(column.dtype).max, -1, column.astype(np.int64))
    return column.astype(np.int64)


def with_ignored(
    labels: Int[Tensor, " point"], name: str, n_classes: int | None
) -> tuple[Int[Tensor, " point"], tuple[str, ...]]:
    """Labels with -1 for every point that has none, and a note where that was decided here.

    Every negative number means no label. So does 255, unless there are more classes: with `n_classes`
    unknown (None; objects have none), unless the scene has a label of 254 or more beside it.
    """
    if not len(labels) or (int(labels.min()) >= -1 and int(labels.max()) < UNLABELLED_BYTE):
        return labels, ()
    labels = torch.where(labels < 0, -1, labels)
    is_byte = labels == UNLABELLED_BYTE
    count = int(is_byte.sum())
    if not count:
        return labels, ()
    others = labels[~is_byte]
    largest = int(others.max()) if len(others) else -1
    unused = largest < UNLABELLED_BYTE - 1 if n_classes is None else n_classes <= UNLABELLED_BYTE
    if not unused:
        return labels, ()
    note = f"'{name}' is 255 at {count} of {len(labels)} points: taken for points without a label"
    return torch.where(is_byte, -1, labels), (note,)
