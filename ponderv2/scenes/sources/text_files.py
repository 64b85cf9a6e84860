"""Numbers in text files of recordings: matrices, cameras, lists of time stamps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Lens, pinhole

LARGEST_FILE = 256 * 2**20
"""Bytes. A larger text file is not a list of poses."""
LARGEST_MATRIX = 64 * 2**10
"""Bytes of a file that holds one matrix."""


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The file's text; SceneError when it cannot be read."""
    try:
        if path.stat().st_size > largest:
            raise SceneError(f"{path} is too large to be a text file of a recording")
        return path.read_text(errors="replace")
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error


def numbers(text: str) -> Float[ndarray, " number"]:
    """All numbers of a text, nan and inf among them; ValueError for any other word."""
    return np.array([float(word) for word in re.split(r"[\s,;]+", text.strip()) if word], np.float64)


def read_matrix(path: Path, *shapes: tuple[int, int]) -> Float[ndarray, "row column"]:
    """A matrix of one of the given shapes."""
    try:
        values = numbers(read_text(path, LARGEST_MATRIX))
    except ValueError as error:
        raise SceneError(f"{path} does not hold numbers ({error})") from error
    for rows, columns in shapes:
        if len(values) == rows * columns:
            return values.reshape(rows, columns)
    wanted = " or ".join(f"{rows}x{columns}" for rows, columns in shapes)
    raise SceneError(f"{path} holds {len(values)} numbers, expected {wanted}")


def read_pose(path: Path) -> Float[ndarray, "4 4"]:
    """A 4x4 pose; not-a-number everywhere when the file is not one, so that the frame is dropped."""
    try:
        pose = read_matrix(path, (4, 4), (3, 4)) if path.stat().st_size else np.full((4, 4), np.nan)
    except (SceneError, OSError):
        return np.full((4, 4), np.nan)
    return pose if len(pose) == 4 else np.concatenate([pose, [[0.0, 0.0, 0.0, 1.0]]])


def read_lens(path: Path) -> Lens:
    """Intrinsics from 3x3 or 4x4 numbers, `fx fy cx cy`, or Open3D's JSON."""
    if path.suffix.lower() == ".json":
        return _open3d_lens(path)
    values = read_matrix(path, (3, 3), (4, 4), (1, 4))
    matrix = pinhole(*values[0]) if values.shape == (1, 4) else values[:3, :3]
    return Lens(checked_intrinsics(matrix, path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path} is not readable JSON ({error})", fix="copy the file again") from error
    if not isinstance(values, dict):
        raise SceneError(f"{path} is not a JSON object")
    return values


def checked_intrinsics(matrix: Float[ndarray, "3 3"], path: Path) -> Float[ndarray, "3 3"]:
    """The matrix, refused when no camera can have it."""
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise SceneError(f"{path} holds no camera: focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}")
    return matrix.astype(np.float64)


def rotation_of_quaternion(quaternion: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """Rotation matrix of (x, y, z, w); not-a-number for a quaternion without length."""
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(norm) or norm < 1e-6:
        return np.full((3, 3), np.nan)
    x, y, z, w = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _open3d_lens(path: Path) -> Lens:
    values = read_json(path)
    try:
        matrix = np.array(values["intrinsic_matrix"], np.float64).reshape(3, 3).T
        return Lens(checked_intrinsics(matrix, path), (int(values["width"]), int(values["height"])))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"{path} is not an Open3D camera ({error})") from error
