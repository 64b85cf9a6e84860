"""Any folder of depth images, perhaps colour images, and a text file of poses; read only on request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.datasets.camera_text import read_intrinsics
from ponderv2.datasets.recordings import ImageFile, RawFrame, Recording
from ponderv2.datasets.rgbd.calibration import Calibration, find_calibration
from ponderv2.datasets.rgbd.camera_conventions import with_size_of_images
from ponderv2.datasets.rgbd.config import GenericConfig, RgbdConfig
from ponderv2.datasets.rgbd.depth_units import unit_of_floats
from ponderv2.datasets.rgbd.image_folders import ENDINGS, OTHER_WORDS, ids_of, list_images, raw_frames
from ponderv2.datasets.rgbd.pairing import Pairing, Poses, pair_frames
from ponderv2.datasets.rgbd.pose_conventions import ChosenReading, PoseReading, choose_reading
from ponderv2.datasets.rgbd.pose_lists import FORMS, POSE_FILES, PoseList, read_poses
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.geometry.pose_candidates import spread_frames
from ponderv2.io.files import files_below

EXPECTS = "a folder of depth images, one of colour images where there are some, and a text file of poses"
N_SAMPLED = 16
"""Number of frames used to decide the pose convention."""
Kind = Literal["color", "depth"]
WORDS: dict[Kind, frozenset[str]] = {
    "color": frozenset(
        {"color", "colour", "colors", "rgb", "image", "images", "img", "imgs", "frames", "photos"}
    ),
    "depth": frozenset({"depth", "depths", "depthmap", "depthmaps", "z"}),
}
"""In the name of a folder or a file."""
POSE_WORDS = ("pose", "traj", "groundtruth", "ground_truth", "gt", "odom", "extrinsic", "camera", "cam")
"""In the name of a file or folder of poses, the most certain first."""


def matches(path: Path) -> bool:
    """Depth images, where they usually are. What is ambiguous is reported on reading."""
    try:
        return path.is_dir() and find_images(path, None, "depth") is not None
    except SceneError:
        return True


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """What the settings leave open is decided by the depth images, or asked for.

    Raises SceneError naming what is missing or not clear, and the option that says it.
    """
    given = config.generic
    depths = find_images(path, given.depth, "depth")
    if depths is None:
        raise SceneError(f"no folder of depth images in {path}", fix="--depth-dir NAME")
    colors = None if given.color == "none" else find_images(path, given.color, "color", without=depths)
    listed, where = find_poses(path, given.poses)
    known = Calibration() if config.intrinsics is not None else find_calibration(path)
    intrinsics, size_notes = _depth_intrinsics(path, config, known, depths, colors)

    def paired(camera_to_world: Float[ndarray, "pose 4 4"]) -> Pairing:
        names = None if colors is None else colors.names
        return pair_frames(path, names, depths.names, Poses(camera_to_world, listed.names), config.pairing)

    chosen = _reading(listed, config, known, depths, intrinsics, paired)
    pairing = paired(chosen.reading.camera_to_world(listed))
    color_intrinsics = intrinsics if known.color is None or known.color is known.depth else known.color
    paths = () if colors is None else colors.paths
    frames = raw_frames(pairing, ids_of(pairing), paths, depths.paths, color_intrinsics, intrinsics)
    where_from = "no colour images: depth alone" if colors is None else f"colour from {colors.where}"
    notes = (
        f"depth from {depths.where}, {where_from}, poses from {where}",
        chosen.note,
        *size_notes,
        *known.notes,
    )
    return Recording(
        "generic",
        frames,
        chosen.reading.depth_unit,
        notes=(*notes, *pairing.notes, *depths.notes, *(() if colors is None else colors.notes)),
        repairs=(*known.repairs, *pairing.repairs),
        unit_declared=True,
    )


def _reading(
    listed: PoseList,
    config: RgbdConfig,
    known: Calibration,
    depths: ImageList,
    intrinsics: Intrinsics,
    paired: Callable[[Float[ndarray, "pose 4 4"]], Pairing],
) -> ChosenReading:
    """Looks at some of the paired frames."""
    start = PoseReading("xyzw", "camera_to_world", "opencv", 1.0, 0.001)
    frames = paired(start.camera_to_world(listed)).frames
    places = [frames[index].depth or 0 for index in spread_frames(len(frames), N_SAMPLED)]
    images = [_depth(depths.paths[place]) for place in places]

    def poses_of_images(camera_to_world: Float[ndarray, "pose 4 4"]) -> Float[ndarray, "image 4 4"]:
        found = {one.depth: one.camera_to_world for one in paired(camera_to_world).frames}
        return np.stack([found.get(place, np.full((4, 4), np.nan)) for place in places])

    unit = config.depth_scale or known.depth_scale or _float_unit(images)
    sized = [(depth, intrinsics.at_size(depth.shape[1], depth.shape[0])) for depth, _ in images]
    return choose_reading(listed, config.generic, unit, sized, poses_of_images)


def _depth(path: Path) -> tuple[Float64[ndarray, "row column"], bool]:
    """Raw numbers, 0 = no measurement, and whether they are floats."""
    values = ImageFile(path).depth()
    floats = values.dtype.kind == "f"
    depth = values.astype(np.float64)
    if values.dtype == np.uint16:
        depth[depth == 65535] = 0.0
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0), floats


def _float_unit(images: Sequence[tuple[Float64[ndarray, "row column"], bool]]) -> float | None:
    """Metres or millimetres, by size; None where it is neither, and for whole numbers."""
    measured = [depth[depth > 0] for depth, floats in images if floats]
    if not measured or not any(map(len, measured)):
        return None
    return unit_of_floats(float(np.median(np.concatenate(measured))))


def _depth_intrinsics(
    path: Path, config: RgbdConfig, known: Calibration, depths: ImageList, colors: ImageList | None
) -> tuple[Intrinsics, tuple[str, ...]]:
    """The depth camera with the size of its images. Raises SceneError where there is none."""
    intrinsics = known.depth if config.intrinsics is None else read_intrinsics(config.intrinsics)
    if intrinsics is None:
        raise SceneError(
            f"no intrinsics in {path}",
            fix="--intrinsics FILE with fx fy cx cy or 3x3 numbers of the depth camera",
        )
    color = None if colors is None else ImageFile(colors.paths[0])
    frame = RawFrame("", color, ImageFile(depths.paths[0]), np.eye(4), intrinsics, intrinsics)
    recording = with_size_of_images(Recording("generic", (frame,), 1.0))
    # Notes on --intrinsics are given where it is read for the frames.
    return recording.frames[0].depth_intrinsics, recording.notes if config.intrinsics is None else ()


@dataclass(frozen=True)
class ImageList:
    """Images of one kind, in order."""

    paths: tuple[Path, ...]
    where: str
    """Description for the report."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names without ending."""
        return tuple(path.stem for path in self.paths)


def find_images(
    path: Path, given: str | None, kind: Kind, without: ImageList | None = None
) -> ImageList | None:
    """Images of a kind: in the folder that is given, in one whose name says so, in the only one left.

    `without` are those of the other kind. None where there are none. Raises SceneError where it is not clear
    which folder is meant, or the one that is given has no images.
    """
    option = f"--{kind}-dir"
    if given is not None:
        images = _images_of(path / given, kind, without)
        if images is None:
            raise SceneError(f"no images in {path / given}", fix=f"{option} NAME of a folder in {path}")
        return images
    folders = _folders(path)
    named = [one for one in folders if WORDS[kind] & _words(one.name)]
    found = [images for one in named if (images := _images_of(one, kind, without)) is not None]
    if len(found) > 1:
        exact = [one for one, folder in zip(found, named, strict=False) if folder.name.lower() in WORDS[kind]]
        if len(exact) != 1:
            names = ", ".join(one.where for one in found)
            raise SceneError(f"several folders may hold the {kind} images: {names}", fix=f"{option} NAME")
        found = exact
    if found:
        return found[0]
    mixed = _images_of(path, kind, without)
    if mixed is not None:
        return mixed
    return _only_left(folders, kind, without)


def named_parts(path: Path, given: GenericConfig) -> list[Path]:
    """Files that the settings name, which may be outside the recording."""
    parts = [path / name for name in (given.color, given.depth, given.poses) if name not in (None, "none")]
    return [one for part in parts for one in (files_below(part) if part.is_dir() else [part])]


def find_poses(path: Path, given: str | None) -> tuple[PoseList, str]:
    """The poses and the name of their file. Raises SceneError where there are none, or several."""
    if given is not None:
        file = path / given
        if not file.exists():
            raise SceneError(
                f"no file or folder {path / given}", fix="--poses NAME of a file in the recording"
            )
        return read_poses(file), file.name
    candidates = _pose_candidates(path)
    read: list[tuple[int, Path, PoseList]] = []
    errors: list[SceneError] = []
    for rank, one in candidates:
        try:
            read.append((rank, one, read_poses(one)))
        except SceneError as error:
            errors.append(error)
    read = [one for one in read if len(one[2].translation) > 1] or read
    if not read:
        if errors and candidates[0][0] < len(POSE_WORDS):
            raise errors[0]
        tried = "".join(f"; {one.message}" for one in errors[:2])
        raise SceneError(
            f"no text file of poses in {path}{tried}", fix=f"--poses NAME of a file with {FORMS}"
        )
    best = min(rank for rank, _, _ in read)
    first = [one for one in read if one[0] == best]
    if len(first) > 1:
        names = ", ".join(one.name for _, one, _ in first)
        raise SceneError(f"several files may hold the poses: {names}", fix="--poses NAME")
    return first[0][2], first[0][1].name


def _pose_candidates(path: Path) -> list[tuple[int, Path]]:
    """Text files of the recording, and folders of one file for each frame, by what their names say."""
    found: list[tuple[int, Path]] = []
    for folder in (path, *_folders(path)):
        files = [
            one for one in sorted(folder.iterdir()) if one.suffix.lower() in POSE_FILES and one.is_file()
        ]
        rank = _rank(folder.name) if folder != path else len(POSE_WORDS)
        if folder != path and len(files) > 1 and rank < len(POSE_WORDS):
            found.append((rank, folder))
        elif folder == path or rank < len(POSE_WORDS):
            found += [(min(rank, _rank(one.stem)), one) for one in files if not _is_image(one)]
    return sorted(found, key=lambda one: one[0])


def _rank(name: str) -> int:
    low = name.lower()
    return next((rank for rank, word in enumerate(POSE_WORDS) if word in low), len(POSE_WORDS))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() == ".npy" and bool(WORDS["depth"] & _words(path.stem))


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def _folders(path: Path) -> list[Path]:
    """Folders that may hold images of the recording."""
    inside = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    return [one for one in inside if not OTHER_WORDS & _words(one.name)]


def _images_of(folder: Path, kind: Kind, without: ImageList | None) -> ImageList | None:
    """Those of a kind; where colour and depth lie in one folder, names tell them apart."""
    if not folder.is_dir() or not any(one.suffix.lower() in ENDINGS for one in folder.iterdir()):
        return None
    listed = list_images(folder, "*")
    others = frozenset(without.paths) if without is not None else frozenset()
    paths = [one for one in listed.paths if one not in others]
    marked = [one for one in paths if WORDS["depth"] & _words(one.stem)]
    if marked and len(marked) < len(listed.paths):
        paths = marked if kind == "depth" else [one for one in paths if one not in set(marked)]
    elif kind == "depth" and not WORDS["depth"] & _words(folder.name) and not marked:
        paths = [one for one in paths if _is_depth(paths[0])]
    return ImageList(tuple(paths), folder.name, listed.notes) if paths else None


def _only_left(folders: list[Path], kind: Kind, without: ImageList | None) -> ImageList | None:
    """The one folder with such images among folders with uninformative names."""
    taken = {one.parent for one in without.paths} if without is not None else set()
    rest = [one for one in folders if one not in taken and not WORDS["depth"] & _words(one.name)]
    found = [images for one in rest if (images := _images_of(one, kind, without)) is not None]
    if len(found) > 1:
        names = ", ".join(one.where for one in found)
        raise SceneError(f"several folders may hold the {kind} images: {names}", fix=f"--{kind}-dir NAME")
    return found[0] if found else None


def _is_depth(path: Path) -> bool:
    """Whether the numbers of an image can be depth."""
    try:
        ImageFile(path).depth()
    except SceneError:
        return False
    return True
