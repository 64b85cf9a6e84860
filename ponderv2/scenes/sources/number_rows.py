"""Rows of plain decimal numbers from text, by NumPy's parser."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

_ALLOWED = b"0123456789.-+ \n"


def parse_rows(text: bytes, width: int) -> Float64[ndarray, "width row"] | None:
    """Numbers of lines that all have `width` of them, one blank between two; the text ends with a line end.

    Nothing is guessed: None where a line is anything else, or holds another character than those of plain
    decimal numbers.
    """
    n_rows = text.count(b"\n")
    if text.translate(None, _ALLOWED) or text.count(b" ") != (width - 1) * n_rows:
        return None
    try:
        table = np.loadtxt(
            io.StringIO(text.decode("ascii")), np.float64, comments=None, delimiter=" ", ndmin=2
        )
    except ValueError:
        return None
    numbers = np.ascontiguousarray(table.T)
    return numbers if numbers.shape == (width, n_rows) and np.isfinite(numbers).all() else None
