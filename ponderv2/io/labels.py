"""Labels as files have them: whole numbers of any type, one of which may stand for no label."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

NOT_A_NUMBER = -(2**62)
"""Stands for NaN, and for no number of a file."""


def whole_numbers(values: ndarray) -> Int64[ndarray, " point"] | None:
    """Numbers or booleans as integers; None where some are not whole, infinite or beyond 2^53.

    NaN becomes NOT_A_NUMBER. The largest number of an unsigned type of 16 bits and more, which is -1 stored
    there, becomes -1.
    """
    if values.dtype.kind == "f":
        known = ~np.isnan(values)
        whole = values[known]
        if not (whole == np.rint(whole)).all() or (np.abs(whole) >= 2.0**53).any():
            return None
        return np.where(known, values, NOT_A_NUMBER).astype(np.int64)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        return np.where(values == np.iinfo(values.dtype).max, -1, values.astype(np.int64))
    return values.astype(np.int64)
