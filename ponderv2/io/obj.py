"""Wavefront OBJ: the triangles of a mesh."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from ponderv2.errors import SceneError


@lru_cache(maxsize=2)
def read_obj(path: Path) -> Float32[ndarray, "face 3 3"]:
    """Corners of all triangles of a Wavefront file; kept, since the rooms of an area share one.

    Polygons become fans. Raises SceneError when the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    vertices: list[ndarray] = []
    faces: list[ndarray] = []
    n_vertices = 0
    for kind, lines in _runs(text):
        try:
            if kind == b"v":
                vertices.append(_numbers(lines, 3))
                n_vertices += len(vertices[-1])
            elif kind == b"f":
                faces.append(_triangles(lines, n_vertices))
        except (ValueError, OverflowError) as error:
            raise SceneError(f"{path} is damaged ({error})", fix="unpack the archive again") from error
    if not vertices or not faces:
        raise SceneError(f"{path} holds no surface", fix="unpack the archive again")
    corner, place = np.concatenate(faces), np.concatenate(vertices).astype(np.float32)
    if corner.min(initial=0) < 0 or corner.max(initial=-1) >= n_vertices:
        raise SceneError(f"{path} has faces without vertices", fix="unpack the archive again")
    if not np.isfinite(place).all():
        raise SceneError(f"{path} has vertices that are nowhere", fix="unpack the archive again")
    return place[corner]


def _runs(text: bytes) -> list[tuple[bytes, bytes]]:
    """Neighbouring lines that begin with the same word."""
    characters = np.frombuffer(text, np.uint8)
    start = np.concatenate([[0], np.flatnonzero(characters == 10) + 1])
    start = start[start < len(characters) - 1]
    if not len(start):
        return []
    kind = characters[start].astype(np.int64) * 256 + characters[start + 1]
    first = start[np.flatnonzero(np.diff(kind, prepend=-1))]
    stop = np.append(first[1:], len(characters))
    runs = [(text[one:two].split(None, 1)[:1], text[one:two]) for one, two in zip(first, stop, strict=True)]
    return [(word[0], lines) for word, lines in runs if word]


def _numbers(lines: bytes, width: int) -> Float64[ndarray, "row width"]:
    """The first numbers of every line, after its word."""
    n_lines = len(lines.strip().splitlines())
    values = np.array(lines.replace(b"v", b" ").split(), np.float64)
    rows = values.reshape(n_lines, -1)[:, :width]
    if rows.shape[1] != width:
        raise ValueError(f"rows of {rows.shape[1]} numbers")
    return rows


def _triangles(lines: bytes, n_vertices: int) -> Int64[ndarray, "face 3"]:
    """Vertex numbers from 0, of `f a b c`, `f a/t/n b/t/n c/t/n` and polygons."""
    rows = [[word.split(b"/", 1)[0] for word in line.split()[1:]] for line in lines.strip().splitlines()]
    fans = [(row[0], row[at], row[at + 1]) for row in rows for at in range(1, len(row) - 1)]
    number = np.array(fans, np.int64).reshape(-1, 3)
    return np.where(number < 0, number + n_vertices, number - 1)
