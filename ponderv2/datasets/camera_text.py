"""Matrices, poses and cameras in text files of recordings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import numbers_of_count, read_json, read_text, words

LARGEST_MATRIX = 64 * 2**10
"""Bytes of a file that holds one matrix."""
CAMERA_FORMS = (
    "3x3 or 4x4 numbers, `fx fy cx cy`, `width height fx fy cx cy`, lines such as `fx: 525`, or JSON with"
    " these names"
)
CENTER_AT_HALF = np.array([[0.0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
"""Pixels to subtract where the centre of the first pixel is (0.5, 0.5), as in nerfstudio."""
_NAMED = re.compile(
    r"(?<![A-Za-z])(fx|fy|cx|cy|k1|k2|k3|p1|p2|width|height)[\"']?(?:\s*[:=]\s*|[ \t]+)([-+\d.eE]+)"
)
_COLMAP = re.compile(r"^[ \t]*\d+[ \t]+(SIMPLE_PINHOLE|PINHOLE)((?:[ \t]+[\d.eE+-]+)+)", re.MULTILINE)
CENTRED = 0.12
"""Fraction of width and height by which the principal point may be off centre, where it tells them apart."""
_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3")
_JSON_NAMES = {"fl_x": "fx", "fl_y": "fy", "w": "width", "h": "height", "ppx": "cx", "ppy": "cy"}


def read_matrix(path: Path, *shapes: tuple[int, int]) -> Float[ndarray, "row column"]:
    """A matrix of one of the given shapes."""
    counts = tuple(rows * columns for rows, columns in shapes)
    values = _numbers_of_file(path, counts)
    for rows, columns in shapes:
        if len(values) == rows * columns:
            return values.reshape(rows, columns)
    wanted = " or ".join(f"{rows}x{columns}" for rows, columns in shapes)
    raise SceneError(f"{path} holds {len(values)} numbers, expected {wanted}")


def read_pose(path: Path) -> Float[ndarray, "4 4"]:
    """A 4x4 pose; not-a-number everywhere when the file is damaged, so that the frame is dropped.

    Raises SceneError for a translation and a quaternion, which these layouts do not have: the order of the
    quaternion has to be found out.
    """
    none = np.full((4, 4), np.nan)
    try:
        values = _numbers_of_file(path, (16, 12)) if path.stat().st_size else none.ravel()
    except (SceneError, OSError):
        return none
    if len(values) in (7, 8) and np.isfinite(values).all() and abs(np.linalg.norm(values[-4:]) - 1) < 0.01:
        raise SceneError(
            f"{path} holds {len(values)} numbers, a translation and a quaternion, expected a 4x4 matrix",
            fix="--layout generic reads such poses",
        )
    n_before = len(values) - 16
    if n_before in (1, 3) and (values[:n_before] == np.rint(values[:n_before])).all():
        values = values[n_before:]  # its number, or the three of a trajectory.log
    if len(values) == 12:
        values = np.append(values, (0.0, 0.0, 0.0, 1.0))
    return values.reshape(4, 4) if len(values) == 16 else none


def read_intrinsics(path: Path) -> Intrinsics:
    """Intrinsics from numbers (3x3, 3x4, 4x4, `fx fy cx cy` with k1 k2 p1 p2 k3), from names, or from JSON.

    JSON is Open3D's (`intrinsic_matrix`, column by column), or has fx, fy, cx, cy (nerfstudio: fl_x), or K.
    Raises SceneError when the file holds no camera.
    """
    text = read_text(path, LARGEST_MATRIX)
    if text.lstrip().startswith("{"):
        return intrinsics_of_values(read_json(path), path)
    named = dict(_NAMED.findall(text))
    if {"fx", "fy", "cx", "cy"} <= named.keys():
        return _of_names(named, path)
    intrinsics = _of_colmap(text, path) or _of_header(text, path)
    if intrinsics is not None:
        return intrinsics
    values = _numbers_of_file(path, (4, 9, 16, 12, 8, 6))
    if len(values) == 6:
        return _of_six_numbers(values, path)
    if len(values) in (8, 9) and values[3] != 0:  # a matrix has a zero there
        return Intrinsics(checked_intrinsics(pinhole(*values[:4]), path), None, _five(values[4:]))
    if len(values) == 4:
        return Intrinsics(checked_intrinsics(pinhole(*values), path))
    shape = {9: (3, 3), 12: (3, 4), 16: (4, 4)}.get(len(values))
    if shape is None:
        raise SceneError(
            f"{path} holds {len(values)} numbers, which is not a camera", fix=f"write {CAMERA_FORMS}"
        )
    return Intrinsics(checked_intrinsics(values.reshape(shape)[:3, :3], path))


def _of_colmap(text: str, path: Path) -> Intrinsics | None:
    """The camera of COLMAP's cameras.txt: `1 PINHOLE width height fx fy cx cy`, the first of several."""
    found = _COLMAP.search(text)
    if found is None:
        return None
    try:
        wide, high, *rest = (float(word) for word in found[2].split())
    except ValueError as error:
        raise SceneError(f"{path} is not a camera ({error})", fix=f"write {CAMERA_FORMS}") from error
    if len(rest) != (4 if found[1] == "PINHOLE" else 3):
        raise SceneError(
            f"{path} holds a {found[1]} camera of {len(rest) + 2} numbers", fix="export it again"
        )
    fx, fy, cx, cy = rest if found[1] == "PINHOLE" else (rest[0], *rest)
    matrix = pinhole(fx, fy, cx, cy) - CENTER_AT_HALF
    return Intrinsics(checked_intrinsics(matrix, path), (round(wide), round(high)))


def _of_header(text: str, path: Path) -> Intrinsics | None:
    """A table of one camera: a line of names, fx, fy, cx and cy among them, and a line of numbers."""
    rows = [line for line in (words(line) for line in text.split("\n")) if line]
    for names, values in pairwise(rows):
        plain = [_JSON_NAMES.get(name.lower().lstrip("#"), name.lower().lstrip("#")) for name in names]
        plain = [name for name in plain if name]
        if {"fx", "fy", "cx", "cy"} <= set(plain) and len(plain) == len(values):
            return _of_names(dict(zip(plain, values, strict=True)), path)
    return None


def _of_six_numbers(values: Float[ndarray, "6"], path: Path) -> Intrinsics:
    """`width height fx fy cx cy` or `fx fy cx cy width height`: the principal point is near the middle."""
    readings = [(values[:2], values[2:]), (values[4:], values[:4])]
    fitting = []
    for size, four in readings:
        whole = bool((size == np.rint(size)).all() and (size > 0).all())
        if whole and (np.abs(four[2:] / size - 0.5) < CENTRED).all():
            fitting.append((size, four))
    if len(fitting) != 1:
        raise SceneError(f"{path} holds 6 numbers, which is not a camera", fix=f"write {CAMERA_FORMS}")
    size, four = fitting[0]
    return Intrinsics(checked_intrinsics(pinhole(*four), path), (int(size[0]), int(size[1])))


def checked_intrinsics(matrix: Float[ndarray, "3 3"], path: Path) -> Float[ndarray, "3 3"]:
    """The matrix; refused when no camera can have it. fy may be negative: y of the camera points up."""
    fx, fy = matrix[0, 0], matrix[1, 1]
    if not np.isfinite(matrix).all() or fx <= 0 or fy == 0:
        raise SceneError(f"{path} holds no camera: focal lengths {fx:g} and {fy:g}")
    if matrix[2, :2].any() and not matrix[:2, 2].any():
        raise SceneError(
            f"{path} holds a transposed camera matrix: cx and cy are in the last row",
            fix="write them into the last column",
        )
    if max(fx, abs(fy)) < 5 and np.abs(matrix[:2, 2]).max() <= 1:
        raise SceneError(
            f"{path} holds numbers relative to the size of the images: fx = {fx:g}, cx = {matrix[0, 2]:g}",
            fix="write pixels: multiply fx and cx by the width, fy and cy by the height",
        )
    return matrix.astype(np.float64)


def _numbers_of_file(path: Path, counts: tuple[int, ...]) -> Float[ndarray, " number"]:
    try:
        return numbers_of_count(read_text(path, LARGEST_MATRIX), counts)
    except ValueError as error:
        raise SceneError(f"{path} does not hold numbers ({error})") from error


def intrinsics_of_values(values: Mapping[str, Any], path: Path) -> Intrinsics:
    """The camera of a JSON object in `path`, of any of the forms of `read_lens`. Raises SceneError."""
    try:
        if "intrinsic_matrix" in values:
            matrix = np.array(values["intrinsic_matrix"], np.float64).reshape(3, 3).T
            return Intrinsics(checked_intrinsics(matrix, path), (int(values["width"]), int(values["height"])))
        if "K" in values:
            return _of_k(values, path)
        named = {_JSON_NAMES.get(name, name): value for name, value in values.items()}
        intrinsics = _of_names(named, path)
        if "fl_x" not in values:
            return intrinsics
        return replace(intrinsics, matrix=intrinsics.matrix - CENTER_AT_HALF)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"{path} is not a camera ({error})", fix=f"write {CAMERA_FORMS}") from error


def _of_k(values: Mapping[str, Any], path: Path) -> Intrinsics:
    """`K` by rows, or by columns as Record3D writes it: the principal point is where the zeros are not."""
    matrix = np.array(values["K"], np.float64).reshape(3, 3)
    matrix = matrix.T if matrix[2, :2].all() and not matrix[:2, 2].any() else matrix
    named = {_JSON_NAMES.get(name, name): value for name, value in values.items()}
    size = (int(named["width"]), int(named["height"])) if {"width", "height"} <= named.keys() else None
    return Intrinsics(checked_intrinsics(matrix, path), size)


def _of_names(named: Mapping[str, Any], path: Path) -> Intrinsics:
    """Pixels; the size where width and height are named."""
    try:
        matrix = pinhole(*(float(named[name]) for name in ("fx", "fy", "cx", "cy")))
        five = _five([float(named.get(name, 0.0)) for name in _COEFFICIENTS])
        size = (int(named["width"]), int(named["height"])) if {"width", "height"} <= named.keys() else None
    except KeyError as error:
        raise SceneError(f"{path} has no {error} of a camera", fix=f"write {CAMERA_FORMS}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"{path} is not a camera ({error})", fix=f"write {CAMERA_FORMS}") from error
    return Intrinsics(checked_intrinsics(matrix, path), size, five)


def _five(values: Any) -> tuple[float, float, float, float, float]:
    k1, k2, p1, p2, k3 = (*map(float, values), 0.0)[:5]
    return k1, k2, p1, p2, k3
