"""Cameras and depth scales in files beside the images, under the names that programs give them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ponderv2.datasets.camera_text import (
    LARGEST_MATRIX,
    checked_intrinsics,
    intrinsics_of_values,
    read_intrinsics,
)
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import parse_json, read_text

Role = Literal["depth", "color", "both"]

FOLDERS = ("", "intrinsic", "intrinsics", "calibration", "calib", "camera")
"""Where calibration files are looked for, below a recording."""
ENDINGS = (".txt", ".json", ".yaml", ".yml", ".ini")
_OF_ONE = (
    *("intrinsic_#", "intrinsics_#", "#_intrinsic", "#_intrinsics"),
    *("#_camera", "camera_#", "calib_#", "#_calib"),
)
DEPTH_NAMES = tuple(name.replace("#", "depth") for name in _OF_ONE)
COLOR_NAMES = tuple(name.replace("#", color) for color in ("color", "colour", "rgb") for name in _OF_ONE)
BOTH_NAMES = (
    *("camera_intrinsics", "camera_intrinsic", "intrinsics", "intrinsic", "calibration", "calib"),
    *("cam_params", "camera_params", "camera_parameters", "camera_primesense", "camera", "camera_info"),
    *("k", "asus", "kinect", "kinect2"),
)
"""Names without ending, lower case, `_` for `-`, the most certain first."""
NAMES_ABOVE = frozenset({"camera_intrinsics", "intrinsics", "calibration", "calib", "cam_params"})
"""Names that count in the folder above a recording, where data sets keep one camera for all."""
ABOVE = tuple(
    f"{form}{ending}"
    for name in sorted(NAMES_ABOVE)
    for form in sorted({name, name.replace("_", "-")})
    for ending in ENDINGS
)
"""The same as names of files."""
SAME = 0.5
"""Pixels, or a thousandth, by which two files of one camera may differ."""
_MATRIX = re.compile(
    r"(?:camera_matrix|intrinsic_matrix|camera\.k|\bk)\"?\s*:[^\[\]]*?\[([^\]]*)\]", re.IGNORECASE
)
_KALIBR = re.compile(r"intrinsics\"?\s*:\s*\[([^\]]*)\]", re.IGNORECASE)
_DISTORTION = re.compile(
    r"(?:distortion_coefficients|distortion_coeffs|dist_coeffs|distortion|\bd)\"?\s*:[^\[\]]*?\[([^\]]*)\]",
    re.IGNORECASE,
)
_RESOLUTION = re.compile(r"resolution\"?\s*:\s*\[([^\]]*)\]", re.IGNORECASE)
_WIDTH = re.compile(r"(?<![A-Za-z])(width|height)\"?\s*[:=]\s*(\d+)", re.IGNORECASE)
_SCALE = re.compile(
    r"(?<![A-Za-z])(depth_?map_?factor|png_depth_scale|depth_?scale|depth_?factor|depth_?shift)\"?\s*[:=]\s*"
    r"([\d.eE+-]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Calibration:
    """What the files beside a recording state; None = nothing."""

    depth: Intrinsics | None = None
    color: Intrinsics | None = None
    depth_scale: float | None = None
    """Metres per unit of the depth images."""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """Why files named like cameras were not used."""


@dataclass(frozen=True)
class _Found:
    role: Role
    path: Path
    intrinsics: Intrinsics
    depth_scale: float | None


def find_calibration(*folders: Path) -> Calibration:
    """Cameras of files in a recording's folders, then above the first, the most certain name first.

    Files that contradict each other are named with the one that was used. Raises SceneError where files of
    cameras are there and none can be read.
    """
    found: list[_Found] = []
    errors: list[SceneError] = []
    unread: list[str] = []
    for role, path in calibration_files(*folders):
        try:
            found += _read(role, path)
        except SceneError as error:
            errors.append(error)
            unread.append(path.name)
    if errors and not found:
        raise errors[0]
    depth = _first(found, "depth")
    color = _first(found, "color") or depth
    scales = [one for one in found if one.depth_scale is not None]
    notes = [f"{words} from {one.path.name}" for one, words in _uses(depth, color)]
    if scales and scales[0].depth_scale is not None:
        notes.append(f"depth: {1 / scales[0].depth_scale:g} units per metre, from {scales[0].path.name}")
    notes += [f"{name} holds no camera and was not used" for name in unread]
    return Calibration(
        None if depth is None else depth.intrinsics,
        None if color is None else color.intrinsics,
        scales[0].depth_scale if scales else None,
        tuple(notes),
        tuple(_contradictions(found, depth, color, scales)),
        tuple(error.message for error in errors),
    )


def _uses(depth: _Found | None, color: _Found | None) -> list[tuple[_Found, str]]:
    if depth is not None and color is not None and depth.intrinsics is color.intrinsics:
        return [(depth, "camera")]
    pairs = ((depth, "depth camera"), (color, "colour camera"))
    return [(one, words) for one, words in pairs if one is not None]


def _first(found: list[_Found], role: Role) -> _Found | None:
    """Files of this camera before files of both."""
    own = [one for one in found if one.role == role]
    return next(iter(own or [one for one in found if one.role == "both"]), None)


def _contradictions(
    found: list[_Found], depth: _Found | None, color: _Found | None, scales: list[_Found]
) -> list[str]:
    conflicts = []
    for used, roles in ((depth, ("depth", "both")), (color, ("color", "both"))):
        if used is None:
            continue
        for other in found:
            rival = other.role in roles and other.path != used.path and other.role == used.role
            if rival and not _alike(used.intrinsics, other.intrinsics):
                focal = [one.intrinsics.matrix[0, 0] for one in (used, other)]
                conflicts.append(
                    f"{used.path.name} and {other.path.name} contradict each other (fx {focal[0]:g} and "
                    f"{focal[1]:g}): {used.path.name} was used; --intrinsics FILE decides"
                )
    for other in scales[1:]:
        if not np.isclose(other.depth_scale or 0.0, scales[0].depth_scale or 0.0, rtol=1e-3):
            conflicts.append(
                f"{scales[0].path.name} and {other.path.name} contradict each other in the scale of depth: "
                f"{scales[0].path.name} was used; --depth-scale decides"
            )
    return list(dict.fromkeys(conflicts))


def _alike(one: Intrinsics, two: Intrinsics) -> bool:
    if one.size is not None and two.size is not None:
        two = Intrinsics(two.at_size(*one.size), one.size)
    apart = np.abs(one.matrix - two.matrix)[:2]
    return bool((apart <= np.maximum(SAME, 1e-3 * np.abs(one.matrix[:2]))).all())


def calibration_files(*folders: Path) -> list[tuple[Role, Path]]:
    """Files that may hold a camera, by role, the most certain name of the first folder first."""
    ranks: dict[str, tuple[int, Role]] = {}
    listed: tuple[tuple[Role, tuple[str, ...]], ...]
    listed = (("depth", DEPTH_NAMES), ("color", COLOR_NAMES), ("both", BOTH_NAMES))
    for role, names in listed:
        ranks |= {name: (rank, role) for rank, name in enumerate(names)}
    places = [folder / below for folder in folders for below in FOLDERS]
    found: dict[Path, tuple[int, int, str, Role]] = {}
    for place, folder in enumerate((*places, folders[0].parent)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = path.stem.lower().replace("-", "_")
            above = place == len(places) and name not in NAMES_ABOVE
            if name in ranks and not above and path.suffix.lower() in ENDINGS and path.is_file():
                found.setdefault(path, (place, ranks[name][0], path.name, ranks[name][1]))
    return [(role, path) for path, (_, _, _, role) in sorted(found.items(), key=lambda item: item[1])]


def _read(role: Role, path: Path) -> list[_Found]:
    """The cameras of a file. Raises SceneError when there is none."""
    text = read_text(path, LARGEST_MATRIX)
    scale = _scale(text, path)
    if text.lstrip().startswith("{"):
        nested = _nested(parse_json(text, path))
        if nested:
            return [_Found(part, path, _intrinsics_of_json(values, path), _scale_of(values, path) or scale)
                    for part, values in nested]  # fmt: skip
    return [_Found(role, path, _intrinsics_of_text(text, path), scale)]


def _nested(values: Any) -> list[tuple[Role, dict[str, Any]]]:
    """Cameras in a JSON file that has more than one, or has one under a name."""
    if not isinstance(values, dict):
        return []
    names: dict[str, Role] = {
        "depth": "depth",
        "ir": "depth",
        "color": "color",
        "colour": "color",
        "rgb": "color",
    }
    names |= {"camera": "both", "cam": "both", "intrinsics": "both", "camera_intrinsics": "both"}
    cameras = {name.lower().removesuffix("_camera").removesuffix("_intrinsics") or name: value
               for name, value in values.items() if isinstance(value, dict)}  # fmt: skip
    return [(names[name], value) for name, value in cameras.items() if name in names]


def _intrinsics_of_json(values: dict[str, Any], path: Path) -> Intrinsics:
    """A camera of a JSON object, whatever the case of its names."""
    return intrinsics_of_values(
        {"K" if name in ("k", "K") else name.lower(): one for name, one in values.items()}, path
    )


def _intrinsics_of_text(text: str, path: Path) -> Intrinsics:
    """A matrix in YAML, or one of the forms that `--intrinsics` takes."""
    matrix = _listed(_MATRIX, text, 9)
    if matrix is None:
        four = _listed(_KALIBR, text, 4)
        matrix = None if four is None else pinhole(*four).ravel()
    if matrix is None or text.lstrip().startswith("{"):
        intrinsics = read_intrinsics(path)
        return intrinsics if intrinsics.size is not None else replace(intrinsics, size=_size(text))
    distortion = _listed(_DISTORTION, text, 4, 5)
    five = (0.0,) * 5 if distortion is None else (*map(float, distortion), 0.0)[:5]
    k1, k2, p1, p2, k3 = five
    return Intrinsics(checked_intrinsics(matrix.reshape(3, 3), path), _size(text), (k1, k2, p1, p2, k3))


def _listed(pattern: re.Pattern[str], text: str, *counts: int) -> np.ndarray | None:
    found = pattern.search(text)
    if found is None:
        return None
    try:
        values = np.array([float(word) for word in re.split(r"[\s,]+", found[1]) if word])
    except ValueError:
        return None
    return values if len(values) in counts else None


def _size(text: str) -> tuple[int, int] | None:
    named = {name.lower(): int(value) for name, value in _WIDTH.findall(text)}
    if named.keys() == {"width", "height"}:
        return named["width"], named["height"]
    two = _listed(_RESOLUTION, text, 2)
    return None if two is None else (int(two[0]), int(two[1]))


def _scale(text: str, path: Path) -> float | None:
    found = _SCALE.search(text)
    return None if found is None else _metres_per_unit(found[2], path)


def _scale_of(values: dict[str, Any], path: Path) -> float | None:
    for name in ("scale", "depth_scale", "png_depth_scale", "depth_factor"):
        if name in values:
            return _metres_per_unit(values[name], path)
    return None


def _metres_per_unit(value: Any, path: Path) -> float:
    """Numbers above 1 are units per metre, as 1000 and 5000; others are metres per unit."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"{path} has a depth scale that is not a number: {json.dumps(value, default=str)}"
        ) from error
    if not (np.isfinite(number) and number > 0):
        raise SceneError(f"{path} has a scale of depth of {number:g}, expected a positive number")
    return 1.0 / number if number > 1 else number
