"""What readers of drives share: a scene per scan of the LiDAR, prepared or read in place.

A drive has many scans, so that scenes are found by split and name, never by a list of all of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from numpy import ndarray

from ponderv2.datasets.reader import DatasetReader
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo, FrameChoice
from ponderv2.scenes.scene import Scene, Sweep

Item = TypeVar("Item")
SWEEP_BYTES, CLOUD_BYTES = 18, 32
"""Of a point in a stored sweep, and in the cloud of the scene with its normal."""
LARGEST = 1e6
"""Metres (and pixels) that no number of a box reaches."""
MIDDLE = (0.3, 0.7)
"""Where the principal point lies, as shares of the size of the image: that of half the size is at 0.25."""


@dataclass(frozen=True)
class KeyFrame:
    """A scene, and what was left out of it."""

    scene: Scene
    notes: tuple[str, ...] = ()


@runtime_checkable
class Drives(Protocol):
    """The scans of a data set. A value that can be pickled."""

    @property
    def root(self) -> Path:
        """Folder as it was given."""
        ...

    def names(self, split: str) -> tuple[str, ...]:
        """Names of the scenes, drive by drive in the order of time; empty for an unknown split."""
        ...

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a scene."""
        ...

    @property
    def has_frames(self) -> bool:
        """Whether scenes have cameras."""
        ...

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One scene; without `labels` no file of classes or boxes is opened. Raises SceneError."""
        ...

    def fingerprint(self, split: str, name: str) -> str:
        """Changes with the settings and with every byte that the scene is made of."""
        ...

    def problems(self) -> tuple[str, ...]:
        """What was left out of the data set as a whole."""
        ...

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        ...


@dataclass(frozen=True)
class DriveScene:
    """One scene to be prepared."""

    split: str
    name: str
    drives: Drives

    def fingerprint(self) -> str:
        """Of settings and files."""
        return self.drives.fingerprint(self.split, self.name)

    def estimated_bytes(self) -> int:
        """Of the prepared scene."""
        return self.drives.estimated_bytes()

    def read(self) -> SceneStream:
        """The scene with its sweeps. Raises SceneError."""
        found = self.drives.read(self.split, self.name, True)
        scene = found.scene

        def finish() -> PreparedScene:
            cloud = PreparedCloud.of(scene.cloud)
            return PreparedScene(cloud, notes=found.notes, sweeps=scene.sweeps, boxes=scene.boxes)

        return SceneStream(map(DecodedFrame.of, scene.frames), finish)


@dataclass(frozen=True)
class DrivesInPlace:
    """Scenes read where they are. A location is ROOT/SPLIT/NAME; no file is there."""

    drives: Drives

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the scenes of a split, in the order of time."""
        return self.drives.names(folder.name)

    def is_scene(self, location: Path) -> bool:
        """Whether there is such a scene in the split."""
        split, name = self._parts(location)
        return self.drives.has(split, name)

    def has_frames(self, location: Path) -> bool:
        """Whether there are cameras."""
        return self.drives.has_frames

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene; images and sweeps are read when asked for. Raises SceneError."""
        scene = self.drives.read(*self._parts(location), labels).scene
        return replace(scene, name=name, frames=() if frames == "none" else scene.frames)

    def notes(self, location: Path) -> tuple[str, ...]:
        """What was left out of the data set and of this scene."""
        return (*self.drives.problems(), *self.drives.read(*self._parts(location), False).notes)

    def _parts(self, location: Path) -> tuple[str, str]:
        parts = location.relative_to(self.drives.root).parts
        return (parts[0], "/".join(parts[1:])) if parts else ("", "")


@dataclass(frozen=True)
class DriveSource:
    """A data set of drives that was opened, to be prepared or to be read in place."""

    info: DatasetInfo
    drives: Drives
    about: tuple[str, ...] = ()
    """For the user."""
    find_missing: Callable[[frozenset[str]], tuple[str, ...]] = lambda names: ()
    """What is missing of the files of these scenes; looked for only where they are prepared."""

    def reader(self) -> DatasetReader:
        """Every scene, to be prepared. Raises SceneError where there is none."""
        drives = self.drives
        scenes = tuple(
            DriveScene(split, name, drives) for split in self.info.splits for name in drives.names(split)
        )
        if not scenes:
            raise SceneError(f"no scans in {drives.root}", fix="check the settings that choose among them")
        missing = self.find_missing(frozenset(one.name for one in scenes))
        notes = (f"{len(scenes)} scans in {drives.root}", *self.about)
        return DatasetReader(self.info, scenes, notes, drives.problems() + missing, root=drives.root)

    def in_place(self) -> tuple[DatasetInfo, DrivesInPlace]:
        """What is known of the folder, and how it is read without preparing it."""
        return self.info, DrivesInPlace(self.drives)


def required(found: Item | None, name: str, split: str, root: Path) -> Item:
    """A scene that was found. Raises SceneError for None."""
    if found is None:
        raise SceneError(f"no scan {name} in the split {split} of {root}")
    return found


def present_sweeps(sweeps: Iterable[Sweep], notes: list[str]) -> tuple[Sweep, ...]:
    """Those whose file is there and whose pose is finite; the others are counted in the notes."""
    every = tuple(sweeps)
    there = tuple(
        one for one in every if one.path.is_file() and bool(torch.isfinite(one.world_to_sensor).all())
    )
    if len(there) < len(every):
        lost = next(one for one in every if all(one is not other for other in there))
        notes.append(
            f"{len(every) - len(there)} of {len(every)} sweeps are missing or have no pose ({lost.path.name})"
        )
    return there


def inverse(pose: Float64[ndarray, "4 4"]) -> Float[torch.Tensor, "4 4"]:
    """Of a pose, in single precision; one that is not finite stays so."""
    made = np.linalg.inv(pose) if np.isfinite(pose).all() else pose
    return torch.from_numpy(made).float()


def camera_fault(intrinsics: Float64[ndarray, "..."] | None, width: int, height: int) -> str:
    """What is wrong with the intrinsics for an image of this size, as a clause; empty where nothing is."""
    if intrinsics is None:
        return "it has no intrinsics"
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        return "its intrinsics are no 3 x 3 numbers"
    if not np.allclose(intrinsics[2], (0.0, 0.0, 1.0)) or abs(intrinsics[1, 0]) > 1e-6:
        return "its intrinsics are those of no pinhole: the last row is 0 0 1"
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0.0 or min(width, height) <= 0:
        return f"its focal lengths or its size of {width} x {height} pixels are not positive"
    place = intrinsics[0, 2] / width, intrinsics[1, 2] / height
    if not all(MIDDLE[0] <= one <= MIDDLE[1] for one in place):
        return (
            f"its principal point ({intrinsics[0, 2]:.0f}, {intrinsics[1, 2]:.0f}) is far from the middle of "
            f"{width} x {height} pixels: the intrinsics are those of another image size"
        )
    return ""


def usable_boxes(
    numbers: Float64[ndarray, "box number"], size: Float64[ndarray, "box 3"], notes: list[str]
) -> Bool[ndarray, " box"]:
    """Boxes whose numbers are finite and below LARGEST, and whose sizes are positive; others are noted."""
    with np.errstate(invalid="ignore"):
        good = np.asarray((np.abs(numbers) < LARGEST).all(axis=1) & (size > 0.0).all(axis=1))
    if not good.all():
        notes.append(f"{int((~good).sum())} of {len(good)} boxes have no finite place, size or heading")
    return good


def chosen(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name fits one of the patterns (`scene-00*`); any name where there is none."""
    return not patterns or any(fnmatch.fnmatch(name, one) for one in patterns)


def stored_bytes(n_points: int, n_sweeps: int, image_bytes: int) -> int:
    """Rough size of a prepared scene: its cloud, a copy of each sweep, and its images."""
    return n_points * (CLOUD_BYTES + SWEEP_BYTES * n_sweeps) + image_bytes + 8192


def no_scenes(what: str, root: Path, expected: str) -> SceneError:
    """There is nothing to read."""
    if not root.is_dir():
        there = "is a file, not a folder" if root.exists() else "is not there"
        return SceneError(f"no {what}: {root} {there}", fix=expected)
    return SceneError(f"no {what} in {root}", fix=expected)
