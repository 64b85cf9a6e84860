"""Which folders of a recording of no known layout hold colour and depth images, and which file its poses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderv2.datasets.rgbd.config import GenericConfig
from ponderv2.errors import SceneError
from ponderv2.io.files import files_below
from ponderv2.scenes.sources.capture import PictureFile
from ponderv2.scenes.sources.layouts.image_folders import ENDINGS, OTHER_WORDS, list_images
from ponderv2.scenes.sources.pose_lists import FORMS, POSE_FILES, PoseList, read_poses

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


@dataclass(frozen=True)
class ImageList:
    """Images of one kind, in order."""

    paths: tuple[Path, ...]
    where: str
    """Words for the report."""
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
    """Files that the settings name, which may lie outside of the recording."""
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
    """Of folders whose names say nothing the one that holds such images."""
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
        PictureFile(path).depth()
    except SceneError:
        return False
    return True
