"""Images of a folder, in the order of their numbers: endings in any case, nothing dropped without a word."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.frame_names import by_number, numbers_of, some, times_of_names
from ponderv2.datasets.recordings import ImageFile, RawFrame
from ponderv2.datasets.rgbd.pairing import Pairing
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.io.depth_images import DEPTH_ENDINGS
from ponderv2.io.images import COLOR_ENDINGS

ENDINGS = frozenset((*COLOR_ENDINGS, *DEPTH_ENDINGS))
"""Of images and depth images; whether one can be read is found out when it is read."""
OTHER_WORDS = frozenset(
    {"mask", "masks", "thumb", "thumbs", "thumbnail", "preview", "conf", "confidence", "label", "labels"}
    | {"seg", "semantic", "instance", "normal", "normals", "overlay", "vis", "viz"}
)
"""In a name: the file is derived from an image and not part of the recording."""
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class ImageFolder:
    """Images in order, and what was left out."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def names_or_none(self) -> tuple[str, ...] | None:
        """The names; None where there are no images at all: a recording of depth alone."""
        return self.names or None

    @property
    def names(self) -> tuple[str, ...]:
        """Names without ending. No two are equal."""
        return tuple(path.stem for path in self.paths)


def files_like(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder whose name fits the pattern, whatever the case, in order; hidden ones are skipped."""
    wanted = pattern.lower()
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        (
            path
            for path in found
            if not path.name.startswith(".")
            and fnmatch.fnmatchcase(path.name.lower(), wanted)
            and path.is_file()
        ),
        key=lambda path: by_number(path.name),
    )


def folder_like(path: Path, *names: str) -> Path | None:
    """The first folder of one of these names, whatever the case."""
    if not path.is_dir():
        return None
    there = {one.name.lower(): one for one in sorted(path.iterdir(), reverse=True) if one.is_dir()}
    exact = (path / name for name in names if (path / name).is_dir())
    return next(exact, None) or next((there[name] for name in names if name in there), None)


def list_images(folder: Path, pattern: str = "*") -> ImageFolder:
    """Images of a folder whose names fit the pattern.

    Masks, thumbnails and files that are not images are left out with a note. Raises SceneError where one
    frame has an image in two kinds of files.
    """
    files = [path for path in files_like(folder, pattern) if path.name.lower() not in SYSTEM_FILES]
    images = [path for path in files if path.suffix.lower() in ENDINGS]
    notes = []
    strange = [path.name for path in files if path.suffix.lower() not in ENDINGS]
    if strange and pattern == "*":
        notes.append(f"{len(strange)} files of {folder.name} are not images ({some(strange)})")
    made = [path for path in images if OTHER_WORDS & set(re.findall(r"[a-z]+", path.stem.lower()))]
    if made and len(made) < len(images):
        notes.append(
            f"{len(made)} files of {folder.name} are masks, labels or thumbnails by name and were left out "
            f"({some([path.name for path in made])})"
        )
        images = [path for path in images if path not in set(made)]
    kept, more = _one_ending(folder, images)
    return ImageFolder(tuple(kept), (*notes, *more))


def _one_ending(folder: Path, images: list[Path]) -> tuple[list[Path], list[str]]:
    """Of files that differ in their ending only, the one with the usual ending."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_stem[path.stem.lower()].append(path)
    how_many = Counter(path.suffix.lower() for path in images)
    dropped: set[Path] = set()
    for twins in by_stem.values():
        if len(twins) > 1:
            ranked = sorted(twins, key=lambda path: -how_many[path.suffix.lower()])
            if how_many[ranked[0].suffix.lower()] == how_many[ranked[1].suffix.lower()]:
                raise SceneError(
                    f"one frame has several files in {folder}: {', '.join(path.name for path in twins)}",
                    fix="keep one kind of files in the folder",
                )
            dropped.update(ranked[1:])
    notes = []
    if dropped:
        names = [path.name for path in dropped]
        notes.append(f"{len(dropped)} files of {folder.name} have a twin of another ending ({some(names)})")
    return [path for path in images if path not in dropped], notes


def raw_frames(
    pairing: Pairing,
    ids: tuple[str, ...],
    colors: tuple[Path, ...],
    depths: tuple[Path, ...],
    color_intrinsics: Intrinsics,
    depth_intrinsics: Intrinsics,
) -> tuple[RawFrame, ...]:
    """Frames of paired images; `colors` (empty: depth alone) and `depths` are the lists that were paired."""
    times = times_of_names([one.name for one in pairing.frames])
    return tuple(
        RawFrame(
            id_,
            None if one.color is None else ImageFile(colors[one.color]),
            ImageFile(depths[one.depth or 0]),
            one.camera_to_world,
            color_intrinsics,
            depth_intrinsics,
            time=time,
        )
        for id_, one, time in zip(ids, pairing.frames, times, strict=True)
    )


def number_or_name(name: str, width: int = 0) -> str:
    """The one whole number of a name, at least `width` digits; the name itself where it is another."""
    found = numbers_of(name)
    whole = len(found) == 1 and found[0] == int(found[0])
    return f"{int(found[0]):0{width}d}" if whole else name


def ids_of(pairing: Pairing, width: int = 0) -> tuple[str, ...]:
    """Ids of frames: their numbers, or their whole names where numbers do not tell them apart."""
    names = tuple(frame.name for frame in pairing.frames)
    short = tuple(number_or_name(name, width) for name in names)
    return short if len(set(short)) == len(short) else names
