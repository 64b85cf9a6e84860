"""Images beside processed scenes: pickled views ROOM_rgbd/VIEW.pth (S3DIS, Structured3D), else recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

from ponderv2.datasets.frame_names import by_number
from ponderv2.datasets.ponderv2.recordings import has_recording, read_recording
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.io.colors import read_colors
from ponderv2.io.disk_cache import cached
from ponderv2.io.safe_pickle import PickledFile, read_pickled
from ponderv2.scenes.origin import Origin, near_pose
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Frame

MIN_COVERAGE = 0.25
"""Views whose depth is known on a smaller part are left out, as in PonderV2 (which renames their files)."""
NO_DEPTH = 65535
LARGEST_CLASS = 40
"""PonderV2 ignores larger numbers in the images of classes."""


@dataclass(frozen=True)
class PickledImages:
    """Images that share one pickled file."""

    n_classes: int | None = None
    """Classes from this number on are taken for unlabelled; None = not known."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        rgb = _image(path, "rgb", 3)
        return rgb if rgb.dtype == np.uint8 else read_colors(rgb, path).as_bytes()

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """In units of the file; 0 outside of the mask and where nothing was measured."""
        depth = _image(path, "depth", 2)
        return np.where(_measured(path, depth), depth, 0).astype(np.float32)

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """Class per pixel; class 0 counts."""
        values = _image(path, "semantic_map", 2).astype(np.int64)
        limit = LARGEST_CLASS + 1 if self.n_classes is None else self.n_classes
        return np.where((values >= 0) & (values < limit), values, -1)


def has_views(location: Path) -> bool:
    """Whether there is at least one view of a room."""
    return next(_folder(location).glob("*.pth"), None) is not None


def read_views(
    location: Path, depth_scale: float, n_classes: int | None, origin: Origin = (0.0, 0.0, 0.0)
) -> tuple[tuple[Frame, ...], tuple[str, ...]]:
    """The views of a room that can be used, and what was left out. Nothing is renamed or written there.

    `origin`: metres, subtracted from the positions of the cameras.
    """
    paths = {
        path.stem: path
        for path in sorted(_folder(location).glob("*.pth"), key=lambda one: by_number(one.stem))
    }
    if not paths:
        return (), ()
    content = "\n".join(f"{path} {_outline(path)}" for path in paths.values())
    found = cached("views", content, lambda: _index(paths))
    images = PickledImages(n_classes)
    frames = []
    for number, name in enumerate(found["ids"].tolist()):
        path = paths[name]
        width, height = (int(side) for side in found["size"][number])
        camera = Camera(
            torch.from_numpy(found["K"][number]).float(),
            torch.from_numpy(
                np.linalg.inv(near_pose(found["camera_to_world"][number], np.array(origin)))
            ).float(),
            width,
            height,
        )
        labels = path if found["labelled"][number] else None
        frames.append(Frame(name, camera, depth_scale, path, path, labels, images=images))
    return tuple(frames), tuple(found["notes"].tolist())


def _folder(location: Path) -> Path:
    return location.with_name(f"{location.name}_rgbd")


def _outline(path: Path) -> str:
    """What the index needs of a view: camera and shapes; of bare pickles not the numbers of the mask."""
    try:
        with PickledFile.open(path) as file:
            return file.outline()
    except SceneError as error:
        return error.message


def _index(paths: Mapping[str, Path]) -> dict[str, ndarray]:
    """Cameras of all usable views; images are not decoded, but for the mask of the depth."""
    rows: list[tuple[str, ndarray, ndarray, tuple[int, int], bool]] = []
    left_out: dict[str, list[str]] = {}
    for name, path in paths.items():
        try:
            rows.append((name, *_camera(path)))
        except _Unusable as reason:
            left_out.setdefault(str(reason), []).append(name)
        except SceneError as error:
            left_out.setdefault(f"cannot be read ({error.message[:160]})", []).append(name)
    notes = [f"{len(names)} views left out, {why}: {names[0]}" for why, names in left_out.items()]
    return {
        "ids": np.array([row[0] for row in rows], np.str_),
        "K": np.array([row[1] for row in rows], np.float64).reshape(-1, 3, 3),
        "camera_to_world": np.array([row[2] for row in rows], np.float64).reshape(-1, 4, 4),
        "size": np.array([row[3] for row in rows], np.int64).reshape(-1, 2),
        "labelled": np.array([row[4] for row in rows], np.bool_),
        "notes": np.array(notes, np.str_),
    }


class _Unusable(Exception):
    """Why a view is left out."""


def _camera(path: Path) -> tuple[ndarray, ndarray, tuple[int, int], bool]:
    """Intrinsics, pose camera-to-world, width and height, and whether there are classes."""
    with PickledFile.open(path) as file:
        shape = file.shape("depth")
        if shape is None or len(shape) != 2 or file.shape("rgb") != (*shape, 3):
            raise _Unusable("colour and depth are missing or differ in size")
        intrinsics = _matrix(file.read("intrinsic"))[:3, :3]
        pose = _matrix(file.read("extrinsic"))
        labelled = file.shape("semantic_map") == shape
        known = file.read("depth_mask") if file.shape("depth_mask") == shape else _valid(file.read("depth"))
    if intrinsics.shape != (3, 3) or pose.shape != (4, 4):
        raise _Unusable("the camera is not a matrix")
    if not (np.isfinite(intrinsics).all() and np.isfinite(pose).all()) or intrinsics[0, 0] <= 0:
        raise _Unusable("the camera is not finite")
    if abs(np.linalg.det(pose[:3, :3])) < 1e-6:
        raise _Unusable("the pose cannot be inverted")
    if np.asarray(known, np.float64).mean() < MIN_COVERAGE:
        raise _Unusable(f"with depth on less than {MIN_COVERAGE:.0%} of the image")
    return intrinsics, pose, (shape[1], shape[0]), labelled


def _matrix(values: Any) -> ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise _Unusable("the camera is not a matrix")
    return values.astype(np.float64)


def _valid(depth: ndarray) -> ndarray:
    return np.isfinite(depth) & (depth > 0) & (depth < NO_DEPTH)


def _measured(path: Path, depth: ndarray) -> ndarray:
    mask = read_pickled(path, ("depth_mask",)).get("depth_mask")
    measured = _valid(depth)
    return measured & mask.astype(bool) if mask is not None and mask.shape == depth.shape else measured


def _image(path: Path, key: str, n_axes: int) -> ndarray:
    image = read_pickled(path, (key,)).get(key)
    if not isinstance(image, np.ndarray) or image.ndim != n_axes or image.dtype.kind not in "fiub":
        raise SceneError(f"{path} has no image '{key}'", fix="process the room again, or delete the file")
    return image


@dataclass(frozen=True)
class SceneImages:
    """Where they are looked for, and how their numbers are to be read."""

    root: Path
    depth_scale: float = 0.001
    """Metres per unit of depth in pickled views."""
    n_classes: int | None = None

    def are_there(self, location: Path) -> bool:
        """As far as names of files tell."""
        return has_views(location) or has_recording(self.root, location.name)

    def read(
        self, location: Path, labels: bool, choice: FrameChoice, origin: Origin = (0.0, 0.0, 0.0)
    ) -> tuple[tuple[Frame, ...], tuple[str, ...]]:
        """The frames of a scene and what was left out; without `labels` frames know of none.

        `origin`: what was subtracted from the points, and is from the cameras.
        """
        if choice == "none":
            return (), ()
        frames, notes = read_views(location, self.depth_scale, self.n_classes, origin)
        if not frames and not notes:
            split = location.parent.name
            frames, notes = read_recording(self.root, split, location.name, choice, origin)
        if not labels:
            frames = tuple(replace(frame, semantic_path=None) for frame in frames)
        return frames, notes
