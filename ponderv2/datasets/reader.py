"""The reader of a raw data set: scenes that are read independently of each other, in any process.

A data set offers `find(config) -> DatasetReader`, which looks at the input and reads nothing yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from ponderv2.config import StrictConfig
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_files, files_below
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo, FrameChoice, LabelSet
from ponderv2.scenes.scene import Scene

READERS_VERSION = 2
"""Raised whenever the same files and settings give other scenes, so that stored ones are regenerated."""


@runtime_checkable
class RawScene(Protocol):
    """One scene of a raw data set. A frozen dataclass of plain values is enough; it must be picklable."""

    @property
    def split(self) -> str:
        """Folder of the store that the scene goes into: train, val, test."""
        ...

    @property
    def name(self) -> str:
        """Name of the scene, unique in its split; becomes a folder."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the settings or the input would give other bytes; plain text or a hash."""
        ...

    def read(self) -> Scene | SceneStream:
        """The scene, or where frames decide about it a stream of them. Raises SceneError."""
        ...


@runtime_checkable
class SizedScene(Protocol):
    """A raw scene that can estimate how much will be written; optional."""

    def estimated_bytes(self) -> int:
        """Of the prepared scene on disk, from what is known without doing the work."""
        ...


@dataclass(frozen=True)
class DatasetReader:
    """The scenes that were found in a raw data set, as an implementation of `Reader`."""

    info: DatasetInfo
    scenes: tuple[RawScene, ...]
    notes: tuple[str, ...] = ()
    """For the user, before the work starts: the layout that was recognised, for instance."""
    warnings: tuple[str, ...] = ()
    """What could not be read at all, an archive for instance; shown prominently."""
    root: Path = Path()
    """Folder or file of the data."""

    @property
    def label_sets(self) -> Mapping[str, LabelSet]:
        """The classes of every label array."""
        return self.info.label_sets

    def names(self, split: str, with_frames: bool = False) -> tuple[str, ...]:
        """Names of the scenes of a split. Which have frames is not known before they are read."""
        return tuple(one.name for one in self.scenes if one.split == split)

    def read(
        self, name: str, split: str | None = None, labels: bool = True, frames: FrameChoice = "all"
    ) -> Scene:
        """A scene; of a stream the frames are decoded and stay in memory.

        Its cloud is empty where the points have to be fused from the frames. Raises SceneError.
        """
        for one in self.scenes:
            if one.name == name and split in (None, one.split):
                found = one.read()
                scene = found.scene(name) if isinstance(found, SceneStream) else found
                scene = scene if labels else _unlabelled(scene)
                return replace(scene, frames=()) if frames == "none" else scene
        listed = ", ".join(one.name for one in self.scenes[:5]) + (", ..." if len(self.scenes) > 5 else "")
        raise SceneError(f"no scene '{name}' in {self.root}", fix=f"choose one of: {listed}")


@dataclass(frozen=True)
class GeneratedSize:
    """How much was generated of one scene."""

    n_frames: int
    n_points: int
    note: str = ""
    """For the user."""


@runtime_checkable
class GeneratedScene(Protocol):
    """One scene that is generated into a folder in the layout of a published data set. Picklable."""

    @property
    def split(self) -> str:
        """Of the published data set."""
        ...

    @property
    def name(self) -> str:
        """Unique in its split."""
        ...

    def done(self, root: Path) -> GeneratedSize | None:
        """Whether the scene is whole in the folder; SceneError where it has other settings."""
        ...

    def generate(self, root: Path) -> GeneratedSize:
        """Write all files of the scene, the same in any process. Raises OutputError."""
        ...

    def estimated_bytes(self) -> int:
        """Of the scene on disk."""
        ...


@dataclass(frozen=True)
class DatasetGenerator:
    """Scenes that `prepare` generates as a published data set, whose own reader then reads them."""

    scenes: tuple[GeneratedScene, ...]
    check_folder: Callable[[Path], None]
    """Raises SceneError for a folder that must not be written into."""
    finish: Callable[[Path], None]
    """Writes what all scenes have in common, once they are whole."""
    notes: tuple[str, ...] = ()


def _unlabelled(scene: Scene) -> Scene:
    """The scene without labels of points, pixels and objects."""
    frames = tuple(replace(frame, semantic_path=None) for frame in scene.frames)
    return replace(scene, cloud=replace(scene.cloud, labels={}), frames=frames, boxes=None)


def fingerprint(root: Path, files: Iterable[Path], *texts: str) -> str:
    """SHA-256 of texts and of the contents of files, by their names relative to `root`.

    Neither the times of files nor the place of `root` count. Every file is read whole.
    """
    pairs = ((_relative(path, root), path) for path in files)
    return digest_of_files(pairs, f"{READERS_VERSION}", *texts)


def _relative(path: Path, root: Path) -> str:
    try:
        return os.path.relpath(path, root)
    except ValueError:  # on another drive of Windows
        return str(path)


def files_of_settings(config: StrictConfig, without: Iterable[str] = ("path",)) -> list[Path]:
    """The files that settings name (cameras, lists), those of named folders included."""
    values = [value for name, value in config if name not in without and isinstance(value, Path)]
    return [one for value in values for one in (files_below(value) if value.is_dir() else [value])]
