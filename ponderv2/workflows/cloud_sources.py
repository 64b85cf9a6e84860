"""The clouds that features are asked of: files, one scene, or the scenes of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ponderv2.errors import OutputError, SceneError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.point_cloud_files import ReadCloud, read_cloud_with_notes
from ponderv2.scenes.scene import PointCloud

Level = Literal["point", "voxel"]


@dataclass(frozen=True)
class CloudSource:
    """A cloud that is read when it is its turn, and where its features go."""

    name: str
    out: Path
    """The file of its features."""
    read: Callable[[], ReadCloud]
    """Files are read once, scenes whenever they are asked for."""
    done: bool = False
    """Its features are there already."""


def sources_of_files(
    files: Sequence[Path], out: Path | None, level: Level, scale: float, up_axis: str
) -> list[CloudSource]:
    """One file goes into the file `out`, several into a folder, by their names.

    Raises OutputError for another ending, or for two files of one name.
    """
    names = [file.name if len(files) == 1 else file.stem for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OutputError(f"several files are called {twice[0]}: their features would replace each other")
    if out is not None and len(files) == 1:
        _check_ending(out, level)
    if out is not None and len(files) > 1:
        check_folder(out, "features of several files go")

    def reader(file: Path) -> Callable[[], ReadCloud]:
        return cache(lambda: read_cloud_with_notes(file, scale, up_axis, centred=True))

    targets = [out if len(files) == 1 else (out or Path()) / f"{name}{ending_of(level)}" for name in names]
    return [
        CloudSource(name, target or Path(), reader(file))
        for file, name, target in zip(files, names, targets, strict=True)
    ]


def source_of_scene(
    store: SceneFolders, scene: str, split: str | None, out: Path | None, level: Level
) -> CloudSource:
    """One scene, into the file `out`; its name may be short.

    Raises OutputError for another ending, SceneError for a name of no scene or of several.
    """
    if out is not None:
        _check_ending(out, level)
    scene = store.full_name(scene, split)
    return CloudSource(scene, out or Path(), lambda: _whole(store.read(scene, split).cloud))


def sources_of_split(store: SceneFolders, split: str, out: Path | None, level: Level) -> list[CloudSource]:
    """All scenes, into the folder `out`; those whose file is there are done.

    Raises SceneError for a split without scenes, OutputError for a file in place of a folder.
    """
    names = store.names(split)
    if not names:
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    if out is not None:
        check_folder(out, "a whole split goes", "--scene NAME or --out DIR")

    def reader(name: str) -> Callable[[], ReadCloud]:
        return lambda: _whole(store.read(name, split).cloud)

    targets = {name: (out or Path()) / f"{name}{ending_of(level)}" for name in names}
    return [
        CloudSource(name, target, reader(name), out is not None and target.is_file())
        for name, target in targets.items()
    ]


def elsewhere(sources: Sequence[CloudSource], folder: Path, level: Level) -> list[CloudSource]:
    """The same clouds, with files of features in another folder."""
    return [
        replace(source, out=folder / f"{number}{ending_of(level)}", done=False)
        for number, source in enumerate(sources)
    ]


def ending_of(level: Level) -> str:
    """Of the file of features."""
    return ".npz" if level == "voxel" else ".npy"


def check_folder(out: Path, what: str, fix: str = "--out DIR") -> None:
    """Raises OutputError where a file is named in place of a folder."""
    if out.suffix in (".npy", ".npz", ".ply", ".png", ".jpg", ".jpeg"):
        raise OutputError(f"{what} into a folder, not into {out}", fix=fix)


def _whole(cloud: PointCloud) -> ReadCloud:
    finite: Bool[ndarray, " stored"] = np.ones(len(cloud), bool)
    return ReadCloud(cloud, finite, ())


def _check_ending(out: Path, level: Level) -> None:
    ending = ending_of(level)
    if out.suffix != ending or out.is_dir():
        fix = f"--out {out.with_suffix(ending).name}"
        raise OutputError(f"features of each {level} go into a file {ending}, not {out}", fix=fix)
