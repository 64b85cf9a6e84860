"""PGM files (P2, P5) as the numbers that stand in them.

Image libraries scale by the maximum that the header names, which is right for grey values. In depth images it
often is the largest value that occurs: scaled by it, every depth is wrong.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Int64, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError

LARGEST_SIDE = 32768
"""Pixels. A larger image is a damaged header."""
_HEADER = re.compile(rb"P([25])" + 3 * rb"(?:\s*#[^\n\r]*[\n\r]|\s)+(\d{1,9})" + rb"(?:\s|(?=#))")


def pgm_maximum(data: bytes) -> int | None:
    """The maximum that the header names; None for what is no PGM file."""
    header = _HEADER.match(data)
    return None if header is None else int(header[4])


def decode_pgm(data: bytes, name: str) -> UInt16[ndarray, "row column"]:
    """The numbers of a PGM file, whatever the maximum in its header. Raises SceneError."""
    header = _HEADER.match(data)
    if header is None:
        raise _damaged(name, "its header is damaged")
    kind, width, height, maximum = (int(one) for one in header.groups())
    if not (1 <= maximum <= 65535 and min(width, height) >= 1 and max(width, height) <= LARGEST_SIDE):
        raise _damaged(name, f"its header has {width} x {height} pixels and the maximum {maximum}")
    body, count = data[header.end() :], width * height
    values = _plain(body, count, name) if kind == 2 else _binary(body, count, maximum)
    if len(values) < count:
        raise _damaged(name, f"it has {len(values)} pixels of {width} x {height}")
    return values[:count].astype(np.uint16).reshape(height, width)


def _binary(body: bytes, count: int, maximum: int) -> ndarray:
    """Two bytes a pixel, the larger one first, from a maximum of 256 on."""
    kind = np.dtype(">u2" if maximum > 255 else "u1")
    return np.frombuffer(body, kind, min(count, len(body) // kind.itemsize))


def _plain(body: bytes, count: int, name: str) -> Int64[ndarray, " pixel"]:
    try:
        words = re.sub(rb"#[^\n\r]*", b"", body).split()[:count]
        values = np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise _damaged(name, str(error)) from error
    if values.size and not (values.min() >= 0 and values.max() <= 65535):
        raise _damaged(name, "it holds numbers outside of 0..65535")
    return values


def _damaged(name: str, reason: str) -> SceneError:
    return SceneError(f"{name} is not a readable picture ({reason})", fix="copy the file again or delete it")
