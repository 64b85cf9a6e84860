"""transforms.json of nerfstudio, instant-ngp, Polycam and Record3D, and meta_data.json of SDFStudio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ponderv2.datasets.camera_text import checked_intrinsics
from ponderv2.datasets.frame_names import by_number
from ponderv2.datasets.recordings import ImageFile, MaskFile, RawFrame, Recording
from ponderv2.datasets.transforms_json import (
    OPENGL_TO_OPENCV,
    Applied,
    applied_of,
    depth_unit_of,
    frame_entries,
    frame_intrinsics,
    matrix_of,
    pose_of,
    refuse_other_models,
)
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.io.depth_images import DEPTH_ENDINGS
from ponderv2.io.images import COLOR_ENDINGS, image_size
from ponderv2.io.named_files import NamedFiles
from ponderv2.io.text import read_json

EXPECTS = "transforms.json with depth_file_path or depth_path (or depth/ beside images/)"
SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
SDFSTUDIO = "meta_data.json"
LONGEST_STEM = 64
"""Characters of an image's name that its frame keeps."""
COLOR_KEYS = ("file_path", "rgb_path")
DEPTH_KEYS = ("depth_file_path", "depth_path", "sensor_depth_path")
FLOAT_ENDINGS = (".npy", ".npz", ".exr", ".tif", ".tiff")
BESIDE = ("depth", "depths")
"""Folders in which depth images are looked for where none are named."""


def matches(path: Path) -> bool:
    """A folder with one of the files, or such a file itself."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _has_poses(path)
    return bool(_files(path))


def read(path: Path) -> Recording:
    """Poses become OpenCV's; transforms applied to them are undone: distances are those of the recording.

    Raises SceneError when there is no frame with colour and depth: what is missing, and the first path.
    """
    files = _files(path)
    if not files:
        raise SceneError(f"no transforms.json at {path}", fix=f"expected {EXPECTS}")
    found = _Found(NamedFiles(files[0].parent))
    scales = {_read_file(one, found) for one in files}
    if len(scales) > 1:
        raise SceneError(f"{' and '.join(one.name for one in files)} give different units of depth")
    _refuse_nothing(found, files)
    scale, key = scales.pop()
    unit = f"depth unit {scale:g} m ({key})" if key else "depth unit: none is named (whole numbers: 0.001 m)"
    return Recording(
        "nerfstudio", tuple(found.frames), scale,
        notes=(*found.notes, *found.files.rules, unit), repairs=_repairs(found), unit_declared=bool(key),
    )  # fmt: skip


@dataclass
class _Found:
    """Frames of all files, and what was missing."""

    files: NamedFiles
    frames: list[RawFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    no_color: list[str] = field(default_factory=list)
    """Paths, or the numbers of entries that name none."""
    no_depth: list[str] = field(default_factory=list)
    """Depth images that are named but not there."""
    unnamed_depth: list[str] = field(default_factory=list)
    """Images for which no depth is named nor beside them."""
    doubled: list[str] = field(default_factory=list)
    no_mask: list[str] = field(default_factory=list)
    """Masks that are named but not there."""
    seen: set[Path] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / "transforms.json").is_file():
        return [path / "transforms.json"]
    splits = [path / name for name in SPLITS if (path / name).is_file()]
    if splits:
        return splits
    sdfstudio = path / SDFSTUDIO
    return [sdfstudio] if sdfstudio.is_file() and _has_poses(sdfstudio) else []


def _has_poses(path: Path) -> bool:
    try:
        entries = frame_entries(read_json(path), path)
    except SceneError:
        return False
    return any("transform_matrix" in one or "camtoworld" in one for one in entries)


def _read_file(path: Path, found: _Found) -> tuple[float, str]:
    """Adds the frames of one file; metres per unit of depth and the key that says so."""
    values = read_json(path)
    entries = sorted(frame_entries(values, path), key=_place)
    refuse_other_models(values, path.name)
    sdfstudio = any("camtoworld" in one for one in entries)
    applied = applied_of(values, path.name)
    turned = OPENGL_TO_OPENCV
    if sdfstudio:
        applied, turned = _world_of_sdfstudio(values, path.name), np.eye(4)
        found.note("poses with OpenCV axes, as SDFStudio writes them")
    else:
        found.note("poses turned from OpenGL to OpenCV axes")
    for note in applied.notes:
        found.note(note)
    units = {depth_unit_of({**values, **entry}, path.name) for entry in entries}
    if len(units) > 1:
        raise SceneError(f"frames of {path.name} have different units of depth", fix="give them one unit")
    unit, key = units.pop()
    if sdfstudio and not key and applied.scale != 1.0:
        floats = any(_named(one, DEPTH_KEYS).lower().endswith(FLOAT_ENDINGS) for one in entries)
        unit, key = (1.0 if floats else 0.001) / applied.scale, "worldtogt"
    for entry in entries:
        images = _images(entry, found)
        if images is None:
            continue
        color, depth = images
        first = color or depth
        intrinsics = _intrinsics({**values, **entry}, f"{path.name} for {first.name}", first)
        if any(intrinsics.distortion):
            found.note("lens distortion (k1 k2 p1 p2 k3) removed from colour and depth alike")
        pose = applied.undo(pose_of(entry, "camtoworld" if sdfstudio else "transform_matrix", path.name))
        name = f"{len(found.frames):06d}_{first.stem[:LONGEST_STEM]}"
        image = None if color is None else ImageFile(color)
        mask = _named_mask(entry, found)
        found.frames.append(
            RawFrame(name, image, ImageFile(depth), pose @ turned, intrinsics, intrinsics, mask)
        )
    return unit, key


def _world_of_sdfstudio(values: Mapping[str, Any], name: str) -> Applied:
    """`worldtogt` leads from the poses' frame, often a unit cube, back to the recording's."""
    if values.get("worldtogt") is None:
        return Applied(np.eye(4), 1.0, ())
    matrix = np.eye(4)
    matrix[:3] = matrix_of(values["worldtogt"], "worldtogt", name)[:3]
    factor = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    if not np.isfinite(matrix).all() or abs(factor) < 1e-9:
        raise SceneError(f"'worldtogt' of {name} is not an invertible matrix of finite numbers")
    if np.allclose(matrix, np.eye(4)):
        return Applied(np.eye(4), 1.0, ())
    # The factor acts on translations alone: scale, then rotate and shift.
    matrix[:3, :3] /= factor
    note = f"worldtogt applied, with its factor of {factor:g} for poses and depth"
    return Applied(np.linalg.inv(matrix), 1.0 / factor, (note,))


def _images(entry: Mapping[str, Any], found: _Found) -> tuple[Path | None, Path] | None:
    """Colour and depth of an entry; None where one of them is missing; the reason is recorded.

    An entry that names no image but a depth image has depth alone.
    """
    named = _named(entry, COLOR_KEYS)
    if not named and _named(entry, DEPTH_KEYS):
        depth = found.files.find(_named(entry, DEPTH_KEYS), DEPTH_ENDINGS)
        if depth is None:
            found.no_depth.append(str(found.files.wanted(_named(entry, DEPTH_KEYS))))
            return None
        found.note("entries without an image have depth alone")
        return None, depth
    color = found.files.find(named, COLOR_ENDINGS) if named else None
    if color is None:
        found.no_color.append(str(found.files.wanted(named)) if named else "an entry without file_path")
        return None
    if color in found.seen:
        found.doubled.append(color.name)
        return None
    found.seen.add(color)
    named = _named(entry, DEPTH_KEYS)
    if named:
        depth = found.files.find(named, DEPTH_ENDINGS)
        if depth is None:
            found.no_depth.append(str(found.files.wanted(named)))
            return None
    else:
        depth = _depth_beside(color, found.files)
        if depth is None:
            found.unnamed_depth.append(str(color))
            return None
    return color, depth


def _depth_beside(color: Path, files: NamedFiles) -> Path | None:
    for folder in BESIDE:
        for stem in (color.stem, f"{color.stem}_depth", f"{color.stem}.depth"):
            depth = files.find(f"{folder}/{stem}", DEPTH_ENDINGS)
            if depth is not None and depth != color:
                return depth
    return None


def _named_mask(entry: Mapping[str, Any], found: _Found) -> MaskFile | None:
    """Of `mask_path`, in which black hides. Those beside the images are found later."""
    named = _named(entry, ("mask_path",))
    mask = found.files.find(named, COLOR_ENDINGS) if named else None
    if named and mask is None:
        found.no_mask.append(str(found.files.wanted(named)))
    return None if mask is None else MaskFile(mask)


def _named(entry: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(entry[key]) for key in keys if entry.get(key)), "")


def _intrinsics(values: Mapping[str, Any], name: str, color: Path) -> Intrinsics:
    if "intrinsics" in values and "fl_x" not in values:
        try:
            matrix = np.array(values["intrinsics"], np.float64)[:3, :3].reshape(3, 3)
            size = int(values["width"]), int(values["height"])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise SceneError(f"{name} lacks the camera ({error})") from error
        return Intrinsics(checked_intrinsics(matrix, color), size)
    return frame_intrinsics(values, name, lambda: image_size(color))


def _place(entry: Mapping[str, Any]) -> Any:
    """In the order of the numbers of their images: frame_2 before frame_10."""
    return by_number(_named(entry, COLOR_KEYS) or _named(entry, DEPTH_KEYS))


def _refuse_nothing(found: _Found, files: list[Path]) -> None:
    """Raises SceneError when no frame is left: which of three causes it was."""
    if found.frames:
        return
    name = files[0].name
    if found.no_depth:
        raise SceneError(
            f"none of the {len(found.no_depth)} depth images that {name} names is there, the first is"
            f" {found.no_depth[0]}",
            fix="copy the depth images there, or correct the paths",
        )
    if found.unnamed_depth:
        raise SceneError(
            f"{name} names no depth (no {DEPTH_KEYS[0]} or {DEPTH_KEYS[1]}), and there is no depth image"
            f" beside {found.unnamed_depth[0]}",
            fix="export the recording with depth: a phone with LiDAR, `ns-process-data polycam --use-depth`",
        )
    raise SceneError(
        f"none of the {len(found.no_color)} images that {name} names is there, the first is"
        f" {found.no_color[0]}",
        fix=f"put {name} beside the folder of the images, or correct the paths",
    )


def _repairs(found: _Found) -> tuple[str, ...]:
    groups = (
        (found.no_color, "frames were left out: their image is not there"),
        (found.no_depth, "frames were left out: their depth image is not there"),
        (found.unnamed_depth, "frames without depth were left out"),
        (found.doubled, "frames were left out: their image was there before"),
        (found.no_mask, "masks are not there and hide nothing"),
    )
    return tuple(f"{len(paths)} {what}, the first is {paths[0]}" for paths, what in groups if paths)
