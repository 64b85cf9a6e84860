"""Cameras to render from, and their files: our own, nerfstudio's camera_path.json, transforms.json.

Our own is described in docs/formats.md (poses camera-to-world, OpenCV axes, metres; frames may have
intrinsics of their own):

    {"width": 640, "height": 480, "intrinsics": [[525, 0, 320], [0, 525, 240], [0, 0, 1]],
     "frames": [{"name": "first",
                 "camera_to_world": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}]}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ponderv2.datasets.frame_names import by_number
from ponderv2.datasets.transforms_json import (
    OPENGL_TO_OPENCV,
    Applied,
    applied_of,
    frame_intrinsics,
    matrix_of,
    pose_of,
    positive_number,
)
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.poses import clean_poses
from ponderv2.io.images import COLOR_ENDINGS, LARGEST_SIDE, image_size
from ponderv2.io.named_files import NamedFiles
from ponderv2.io.text import parse_json, read_text
from ponderv2.scenes.origin import near_pose
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class Viewpoint:
    """One image to be rendered."""

    name: str
    camera: Camera
    frame: Frame | None = None
    """The frame that was taken from there."""

    def resized(self, width: int) -> Viewpoint:
        """With `width` pixels across; the height follows."""
        return replace(self, camera=resized(self.camera, width))


@dataclass(frozen=True)
class CameraPath:
    """The cameras of a path, in order."""

    views: tuple[Viewpoint, ...]
    """No two of them share a name."""
    notes: tuple[str, ...] = ()
    """What the user should know of where they are."""
    frames_per_second: float | None = None
    """Of the video that they are for; None = unknown."""


def resized(camera: Camera, width: int) -> Camera:
    """The same view with `width` pixels across. Pixel centres are integers, so corners are at -0.5."""
    scale = width / camera.width
    intrinsics = camera.intrinsics.double().clone()
    intrinsics[:2, :2] *= scale
    intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * scale - 0.5
    height = max(round(camera.height * scale), 1)
    return replace(camera, intrinsics=intrinsics.to(camera.intrinsics.dtype), width=width, height=height)


def path_contents(views: Sequence[Viewpoint]) -> dict[str, Any]:
    """What `read_cameras` reads."""
    return {
        "frames": [
            {
                "name": view.name,
                "width": view.camera.width,
                "height": view.camera.height,
                "intrinsics": view.camera.intrinsics.double().tolist(),
                "camera_to_world": torch.linalg.inv(view.camera.world_to_camera.double()).tolist(),
            }
            for view in views
        ]
    }


FORMS = (
    'write {"width": W, "height": H, "intrinsics": 3x3, "frames": [{"camera_to_world": 4x4}]}, or give'
    " nerfstudio's camera_path.json or a transforms.json"
)
SAME_PLACE = 5e-3
"""Metres and parts of a turn by which frames may disagree on where their scene is."""
FEWEST_SHARED = 2
"""Frames that a file and a scene must share to register the one in the other."""


@dataclass(frozen=True)
class _Entry:
    """A camera before its pose is known in the scene."""

    name: str
    intrinsics: Float[ndarray, "3 3"]
    camera_to_world: Float[ndarray, "4 4"]
    size: tuple[int, int]


def read_cameras(path: Path, frames: Sequence[Frame] = ()) -> CameraPath:
    """The cameras of a file of any of the three kinds.

    `frames` are those of the scene that is rendered: a transforms.json with images of the same names is moved
    to where the scene is, as its recording was turned when it was prepared. Raises SceneError naming what is
    wrong with the file.
    """
    path = Path(path)
    try:
        contents = parse_json(read_text(path), path)
    except SceneError as error:
        raise SceneError(f"not a camera path: {error.message}", fix=error.fix) from error
    if not isinstance(contents, dict):
        raise SceneError(f"{path} is not a camera path: no JSON object", fix=FORMS)
    try:
        if "camera_path" in contents or "keyframes" in contents:
            entries, notes = _of_camera_path(contents, path)
        elif any("transform_matrix" in one for one in _entries(contents)):
            entries, notes = _of_transforms(contents, path, frames)
        else:
            entries, notes = [_of_own(contents, one, i) for i, one in enumerate(_entries(contents))], ()
        made = tuple(_checked(one, index) for index, one in enumerate(_told_apart(entries)))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ArithmeticError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise SceneError(f"{path} is not a camera path: {reason}", fix=FORMS) from error
    if not made:
        raise SceneError(f"{path} holds no cameras")
    return CameraPath(made, tuple(notes), _frames_per_second(contents))


def _entries(contents: dict[str, Any]) -> list[dict[str, Any]]:
    frames = contents["frames"]
    if not isinstance(frames, list) or not all(isinstance(one, dict) for one in frames):
        raise ValueError("'frames' is not a list of objects")
    return frames


def _of_own(contents: dict[str, Any], frame: dict[str, Any], index: int) -> _Entry:
    def entry(name: str) -> Any:
        return frame[name] if name in frame else contents[name]

    pose = np.array(frame["camera_to_world"], dtype=np.float64)
    intrinsics = np.array(entry("intrinsics"), dtype=np.float64)
    if pose.shape != (4, 4) or intrinsics.shape != (3, 3):
        raise ValueError(f"frame {index} has a pose {pose.shape} and intrinsics {intrinsics.shape}")
    name = Path(str(frame.get("name", f"{index:04d}"))).name or f"{index:04d}"
    return _Entry(name, intrinsics, pose, (int(entry("width")), int(entry("height"))))


def _of_camera_path(contents: dict[str, Any], path: Path) -> tuple[list[_Entry], tuple[str, ...]]:
    """nerfstudio's viewer: OpenGL axes, a vertical field of view in degrees, square pixels."""
    cameras = contents.get("camera_path")
    if not isinstance(cameras, list) or not cameras:
        raise SceneError(
            f"{path} holds no camera_path, only {len(contents.get('keyframes') or ())} keyframes",
            fix="let nerfstudio's viewer generate the path (Generate Command), and give that file",
        )
    kind = str(contents.get("camera_type", "perspective")).lower()
    if kind not in ("perspective", "pinhole"):
        raise SceneError(
            f"{path} is for {kind} cameras, and only perspective images are rendered",
            fix="choose the camera type Perspective in nerfstudio's viewer",
        )
    size = int(contents["render_width"]), int(contents["render_height"])
    entries = []
    for index, one in enumerate(cameras):
        pose = np.eye(4)
        pose[:3] = matrix_of(one["camera_to_world"], "camera_to_world", path.name)[:3]
        degrees = positive_number({**contents, **one}, "fov", math.nan, path.name)
        if not degrees < 180:
            raise ValueError(f"camera {index} has a field of view of {degrees:g} degrees")
        focal = 0.5 * size[1] / math.tan(math.radians(degrees) / 2)
        center = (size[0] - 1) / 2, (size[1] - 1) / 2
        intrinsics = np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])
        entries.append(_Entry(f"{index:04d}", intrinsics, pose @ OPENGL_TO_OPENCV, size))
    notes = [f"{len(entries)} cameras of a nerfstudio camera path, turned from OpenGL to OpenCV axes"]
    beside = path.parent / "dataparser_transforms.json"
    if beside.is_file():
        model = _model_frame(beside)
        entries = [replace(one, camera_to_world=model.undo(one.camera_to_world)) for one in entries]
        notes.append(f"poses brought back to the recording's frame by {beside.name}")
    else:
        notes.append(
            "poses are taken as they are; where nerfstudio centred or scaled its scene, put the"
            f" {beside.name} of its run beside the file"
        )
    return entries, tuple(notes)


def _model_frame(path: Path) -> Applied:
    """What nerfstudio did to the poses of a recording before training: X_model = scale (T X)."""
    values = parse_json(read_text(path), path)
    renamed = {"applied_transform": values["transform"], "applied_scale": values["scale"]}
    return applied_of(renamed, path.name)


def _of_transforms(
    contents: dict[str, Any], path: Path, frames: Sequence[Frame]
) -> tuple[list[_Entry], tuple[str, ...]]:
    """The cameras of a recording, in the order of their images."""
    applied, files = applied_of(contents, path.name), NamedFiles(path.parent)
    notes = [f"cameras of {path.name}, turned from OpenGL to OpenCV axes", *applied.notes]
    found = sorted(_entries(contents), key=lambda one: by_number(str(one.get("file_path", ""))))
    poses = np.stack([pose_of(one, "transform_matrix", path.name) for one in found])
    clean = clean_poses(np.stack([applied.undo(one) for one in poses]), similarities=True)
    for index in np.flatnonzero(~clean.valid):
        raise ValueError(f"the pose of frame {index} is none ({clean.reasons[index]})")
    if clean.factor != 1.0:
        notes.append(f"a factor of {clean.factor:.4g} was divided out of the rotations")
    entries, distorted = [], False
    for index, (one, pose) in enumerate(zip(found, clean.camera_to_world, strict=True)):
        named = str(one.get("file_path") or f"{index:04d}").replace("\\", "/")
        intrinsics = frame_intrinsics(
            {**contents, **one}, path.name, lambda named=named: _size_of(files, named)
        )
        distorted = distorted or any(intrinsics.distortion)
        assert intrinsics.size is not None
        entries.append(
            _Entry(
                Path(named).stem or f"{index:04d}",
                intrinsics.matrix,
                pose @ OPENGL_TO_OPENCV,
                intrinsics.size,
            )
        )
    if distorted:
        notes.append("rendered without the lens distortion that the file gives")
    moved, note = _moved_to_scene(entries, frames)
    return moved, (*notes, note)


def _size_of(files: NamedFiles, named: str) -> tuple[int, int]:
    image = files.find(named, COLOR_ENDINGS)
    if image is None:
        raise SceneError(
            f"{files.root / named} is not there, and its width and height are not in the file",
            fix="write w and h into the file",
        )
    return image_size(image)


def _moved_to_scene(entries: list[_Entry], frames: Sequence[Frame]) -> tuple[list[_Entry], str]:
    """Registers the recording in the scene by frames of the same names."""
    # Maps of places far from zero (UTM) would take rounded rotations times that distance with them.
    start = np.mean([one.camera_to_world[:3, 3] for one in entries], axis=0)
    poses = {one.name: near_pose(one.camera_to_world, start) for one in entries}
    maps = []
    for frame in frames:
        own = next((poses[one] for one in (frame.id, frame.id.split("_", 1)[-1]) if one in poses), None)
        if own is not None:
            pose = np.linalg.inv(frame.camera.world_to_camera.double().numpy())
            maps.append(pose @ np.linalg.inv(own))
    unmoved = "poses are taken as they are, in the frame of the scene"
    if len(maps) < FEWEST_SHARED:
        return entries, unmoved
    middle = np.median(np.stack(maps), axis=0)
    apart = max(float(np.abs(one[:3] - middle[:3]).max()) for one in maps)
    size = max(float(np.abs(one[:3, 3]).max()) for one in poses.values())
    if apart > SAME_PLACE * max(1.0, size):
        return entries, f"{unmoved}: its frames of the same names have other poses"
    if np.allclose(near_pose(middle, start), np.eye(4), atol=1e-6):
        return entries, f"{unmoved}, which is that of the file"
    moved = [replace(one, camera_to_world=middle @ near_pose(one.camera_to_world, start)) for one in entries]
    return moved, f"poses moved into the frame of the scene, by {len(maps)} frames that both have"


def _told_apart(entries: list[_Entry]) -> list[_Entry]:
    """Images of cameras with one name would replace each other: those names are numbered."""
    counts = Counter(one.name for one in entries)
    return [
        replace(one, name=f"{index:04d}_{one.name}") if counts[one.name] > 1 else one
        for index, one in enumerate(entries)
    ]


def _checked(entry: _Entry, index: int) -> Viewpoint:
    """Raises ValueError for a camera that cannot be rendered."""
    pose, intrinsics, (width, height) = entry.camera_to_world, entry.intrinsics, entry.size
    if not (np.isfinite(pose).all() and np.isfinite(intrinsics).all()) or abs(np.linalg.det(pose)) < 1e-9:
        raise ValueError(f"the pose of frame {index} is not an invertible matrix of finite numbers")
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise ValueError(f"frame {index} has {width} x {height} pixels")
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise ValueError(f"frame {index} has focal lengths {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g}")
    world_to_camera = torch.from_numpy(np.linalg.inv(pose)).float()
    return Viewpoint(entry.name, Camera(torch.from_numpy(intrinsics).float(), world_to_camera, width, height))


def _frames_per_second(contents: dict[str, Any]) -> float | None:
    """`fps`, or the number of cameras over `seconds`; None where neither is a positive number."""
    cameras = contents.get("camera_path") or ()
    for name, count in (("fps", None), ("seconds", len(cameras))):
        try:
            value = float(contents[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value) and value > 0:
            return value if count is None else count / value
    return None
