"""Poses and cameras in the JSON files of NeRF tools: transforms.json, meta_data.json.

Poses become camera-to-world, OpenCV axes, in the units before `applied_scale`; pixel centres at integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
"""Camera models whose distortion is given completely by k1 k2 p1 p2 k3."""
COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3")
FURTHER_COEFFICIENTS = ("k4", "k5", "k6", "ftheta_p0", "ftheta_p1", "ftheta_p2", "ftheta_p3", "ftheta_p4")
DEPTH_UNITS = ("depth_unit_scale_factor", "integer_depth_scale", "depth_scale")
"""Keys of the metres per unit; the first one present counts."""
UNDISTORT = "undistort first: with nerfstudio, colmap image_undistorter or OpenCV's fisheye.undistortImage"


@dataclass(frozen=True)
class Applied:
    """What the tool did to the poses after they were measured: X_file = scale (A X)."""

    transform: Float[ndarray, "4 4"]
    scale: float
    notes: tuple[str, ...]

    def undo(self, pose: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
        """The measured pose. The scale is divided out of the translation alone: rotations stay rotations."""
        pose = pose.copy()
        pose[:3, 3] /= self.scale
        return np.linalg.inv(self.transform) @ pose


def applied_of(values: Mapping[str, Any], name: str) -> Applied:
    """`applied_transform` and `applied_scale` of a file, called `name` in messages.

    Raises SceneError when they cannot be undone.
    """
    matrix, notes = np.eye(4), []
    if values.get("applied_transform") is not None:
        matrix[:3] = matrix_of(values["applied_transform"], "applied_transform", name)[:3]
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise SceneError(f"'applied_transform' of {name} cannot be undone")
        notes.append("applied_transform undone")
    scale = positive_number(values, "applied_scale", 1.0, name)
    if scale != 1.0:
        notes.append(f"applied_scale {scale:g} divided out of the translations")
    return Applied(matrix, scale, tuple(notes))


def frame_entries(values: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The entries of `frames`. Raises SceneError when there are none."""
    entries = values.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
        raise SceneError(f"no frames in {path}", fix="give the transforms.json of a recording")
    return entries


def pose_of(entry: Mapping[str, Any], key: str, name: str) -> Float[ndarray, "4 4"]:
    """4 x 4 as in the file; not-a-number where there is none, so that the frame is dropped."""
    try:
        matrix = matrix_of(entry.get(key), key, name)
    except SceneError:
        return np.full((4, 4), np.nan)
    pose = np.eye(4)
    pose[: len(matrix)] = matrix
    return pose


def matrix_of(values: Any, key: str, name: str) -> Float[ndarray, "row 4"]:
    """3 x 4 or 4 x 4, also as one list of 12 or 16 numbers. Raises SceneError for anything else."""
    try:
        matrix = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"'{key}' of {name} is not a matrix") from error
    if matrix.shape in ((16,), (12,)):
        matrix = matrix.reshape(-1, 4)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"'{key}' of {name} has shape {matrix.shape}, expected 4x4")
    return matrix


def positive_number(values: Mapping[str, Any], key: str, default: float, name: str) -> float:
    """A finite number above zero. Raises SceneError for another one."""
    try:
        found = float(default if values.get(key) is None else values[key])
    except (TypeError, ValueError, OverflowError) as error:
        raise SceneError(f"'{key}' of {name} is not a number") from error
    if not (math.isfinite(found) and found > 0):
        raise SceneError(f"'{key}' of {name} is {found:g}, expected a positive number")
    return found


def depth_unit_of(values: Mapping[str, Any], name: str) -> tuple[float, str]:
    """Metres per unit of the depth images, and the key that says so (empty: nothing does, millimetres)."""
    key = next((key for key in DEPTH_UNITS if values.get(key) is not None), "")
    return (positive_number(values, key, 0.001, name), key) if key else (0.001, "")


def refuse_other_models(values: Mapping[str, Any], name: str) -> None:
    """Raises SceneError for cameras other than a pinhole with OpenCV's five coefficients."""
    model = str(values.get("camera_model") or "OPENCV")
    if _true(values.get("is_fisheye")):
        raise SceneError(f"the camera of {name} is a fisheye lens (is_fisheye), not a pinhole", fix=UNDISTORT)
    if model.upper() not in PINHOLES:
        fix = UNDISTORT
        if model.upper() in ("EQUIRECTANGULAR", "SPHERICAL", "ORTHOPHOTO"):
            fix = "cut perspective views out of the images first"
        raise SceneError(f"the camera model {model} of {name} is not a pinhole", fix=fix)
    further = [key for key in FURTHER_COEFFICIENTS if _nonzero(values.get(key))]
    if further:
        raise SceneError(
            f"the camera of {name} has {', '.join(further)}, more than k1 k2 k3 p1 p2 of a pinhole",
            fix=UNDISTORT,
        )


def frame_intrinsics(
    values: Mapping[str, Any], name: str, image_size: Callable[[], tuple[int, int]]
) -> Intrinsics:
    """The camera of a frame; pixel centres of these files are at halves: half a pixel less here.

    `image_size` is asked where w and h are not given. Raises SceneError when something is missing.
    """
    values = {key: value for key, value in values.items() if value is not None}  # null is not there
    refuse_other_models(values, name)
    try:
        sides = float(values.get("w", 0)), float(values.get("h", 0))
        size = (int(sides[0]), int(sides[1])) if all(sides) else image_size()
        fx, fy = _focal_lengths(values, size)
        center = float(values.get("cx", size[0] / 2)) - 0.5, float(values.get("cy", size[1] / 2)) - 0.5
        k1, k2, p1, p2, k3 = (float(values.get(key, 0.0)) for key in COEFFICIENTS)
    except KeyError as error:
        raise SceneError(
            f"{name} lacks the camera: no {error}", fix="write fl_x, fl_y, cx, cy, w and h into it"
        ) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SceneError(
            f"{name} lacks the camera ({error})", fix="write fl_x, fl_y, cx, cy, w and h as numbers into it"
        ) from error
    if not (fx > 0 and fy > 0):
        raise SceneError(f"{name} gives focal lengths {fx:g} and {fy:g}")
    return Intrinsics(pinhole(fx, fy, *center), size, (k1, k2, p1, p2, k3))


def _focal_lengths(values: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float]:
    """Pixels; square where only one of them is known."""
    found: list[float | None] = []
    for axis, side in zip("xy", size, strict=True):
        if f"fl_{axis}" in values:
            found.append(float(values[f"fl_{axis}"]))
        elif f"camera_angle_{axis}" in values:
            found.append(0.5 * side / math.tan(0.5 * float(values[f"camera_angle_{axis}"])))
        else:
            found.append(None)
    first, second = found
    known = first if first is not None else second
    if known is None:
        raise KeyError("fl_x")
    return first if first is not None else known, second if second is not None else known


def _true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def _nonzero(value: Any) -> bool:
    try:
        return value is not None and float(value) != 0.0
    except (TypeError, ValueError, OverflowError):
        return True
