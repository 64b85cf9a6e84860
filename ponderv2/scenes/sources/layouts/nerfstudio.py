"""transforms.json of nerfstudio, Polycam and Record3D: OpenGL poses, cameras global or per frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.pictures import picture_size
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame, pinhole
from ponderv2.scenes.sources.text_files import read_json

EXPECTS = "transforms.json with depth_file_path (or depth/ beside images/)"
LONGEST_STEM = 64
"""Characters of a picture's name that its frame keeps."""
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def matches(path: Path) -> bool:
    """The one file."""
    return (path / "transforms.json").is_file()


def read(path: Path) -> Capture:
    """Poses become OpenCV's; `applied_transform` is undone, so that distances are those of the recording."""
    values = read_json(path / "transforms.json")
    entries = values.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
        raise SceneError(f"no frames in {path / 'transforms.json'}")
    undo, undone = _undo_applied(values)
    frames: list[RawFrame] = []
    without: list[str] = []
    for index, entry in enumerate(sorted(entries, key=lambda one: str(one.get("file_path", "")))):
        color, depth = _picture_paths(path, entry)
        if color is None or depth is None:
            without.append(str(entry.get("file_path", index)))
            continue
        lens = _lens({**values, **entry}, color)
        pose = undo @ _pose(entry) @ OPENGL_TO_OPENCV
        name = f"{index:06d}_{color.stem[:LONGEST_STEM]}"
        frames.append(RawFrame(name, PictureFile(color), PictureFile(depth), pose, lens, lens))
    if not frames:
        raise SceneError(f"no frame of {path / 'transforms.json'} has a picture and a depth picture")
    repairs = (
        (f"{len(without)} frames without a picture or depth were left out ({without[0]})",) if without else ()
    )
    notes = ("poses turned from OpenGL to OpenCV axes", *undone)
    scale = _number(values, "depth_unit_scale_factor", _number(values, "depth_scale", 0.001))
    return Capture("nerfstudio", tuple(frames), scale, z_is_up=False, notes=notes, repairs=repairs)


def _undo_applied(values: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The recording's own frame, from the one that the tool turned it into."""
    applied = values.get("applied_transform")
    undo, notes = np.eye(4), []
    if applied is not None:
        matrix = np.eye(4)
        matrix[:3] = _matrix(applied, "applied_transform")[:3]
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise SceneError("'applied_transform' of transforms.json cannot be undone")
        undo = np.linalg.inv(matrix)
        notes.append("applied_transform undone")
    scale = _number(values, "applied_scale", 1.0)
    if scale != 1.0:
        undo = undo @ np.diag([1 / scale, 1 / scale, 1 / scale, 1.0])
        notes.append(f"applied_scale {scale:g} undone")
    return undo, tuple(notes)


def _number(values: dict[str, Any], name: str, default: float) -> float:
    """A positive number of the file."""
    try:
        found = float(values.get(name, default))
    except (TypeError, ValueError, OverflowError) as error:
        raise SceneError(f"'{name}' of transforms.json is not a number") from error
    if not (math.isfinite(found) and found > 0):
        raise SceneError(f"'{name}' of transforms.json is {found:g}, expected a positive number")
    return found


def _matrix(values: Any, name: str) -> np.ndarray:
    try:
        matrix = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"'{name}' of transforms.json is not a matrix") from error
    if matrix.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"'{name}' of transforms.json has shape {matrix.shape}, expected 4x4")
    return matrix


def _pose(entry: dict[str, Any]) -> np.ndarray:
    """Not-a-number where there is none, so that the frame is dropped."""
    try:
        matrix = _matrix(entry.get("transform_matrix"), "transform_matrix")
    except SceneError:
        return np.full((4, 4), np.nan)
    pose = np.eye(4)
    pose[: len(matrix)] = matrix
    return pose


def _picture_paths(path: Path, entry: dict[str, Any]) -> tuple[Path | None, Path | None]:
    named = str(entry.get("file_path", ""))
    color = _existing(path / named, ("", ".png", ".jpg", ".jpeg")) if named else None
    if entry.get("depth_file_path"):
        return color, _existing(path / str(entry["depth_file_path"]), ("", ".png"))
    stem = Path(named).stem
    beside = (_existing(path / folder / stem, (".png",)) for folder in ("depth", "depths"))
    return color, next((one for one in beside if one is not None), None)


def _existing(path: Path, endings: tuple[str, ...]) -> Path | None:
    try:
        return next((one for one in (Path(f"{path}{ending}") for ending in endings) if one.is_file()), None)
    except OSError:  # a name that no disk can hold
        return None


def _lens(values: dict[str, Any], color: Path) -> Lens:
    """Intrinsics of COLMAP have pixel centres at halves: half a pixel less here."""
    try:
        if "w" in values and "h" in values:
            size = (int(values["w"]), int(values["h"]))
        else:
            size = picture_size(color)
        if "fl_x" in values:
            fx, fy = float(values["fl_x"]), float(values.get("fl_y", values["fl_x"]))
        else:
            fx = 0.5 * size[0] / math.tan(0.5 * float(values["camera_angle_x"]))
            fy = (
                0.5 * size[1] / math.tan(0.5 * float(values["camera_angle_y"]))
                if "camera_angle_y" in values
                else fx
            )
        center = float(values.get("cx", size[0] / 2)) - 0.5, float(values.get("cy", size[1] / 2)) - 0.5
        k1, k2, p1, p2, k3 = (float(values.get(name, 0.0)) for name in ("k1", "k2", "p1", "p2", "k3"))
        distortion = (k1, k2, p1, p2, k3)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise SceneError(f"transforms.json lacks the camera of {color.name} ({error})") from error
    model = str(values.get("camera_model", "OPENCV"))
    if model.upper() not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"):
        raise SceneError(
            f"the camera model {model} of transforms.json is not a pinhole", fix="undistort it first"
        )
    if not (fx > 0 and fy > 0):
        raise SceneError(f"transforms.json gives {color.name} focal lengths {fx:g} and {fy:g}")
    return Lens(pinhole(fx, fy, *center), size, distortion)
