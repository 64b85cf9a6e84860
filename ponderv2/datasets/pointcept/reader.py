"""Pointcept's folders (1.5.2 and later): SPLIT/SCENE/{coord,color,normal,segment*,instance}.npy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ponderv2.datasets.ponderv2.images import SceneImages
from ponderv2.io.colors import NO_COLOR_NOTE
from ponderv2.scenes.array_folders import PREPARED, read_scene, read_scene_with_notes
from ponderv2.scenes.point_arrays import ESTIMATED_NORMALS
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Scene


@dataclass(frozen=True)
class ArrayScenes:
    """One array per file, memory-mapped; images beside the folders, as PonderV2 stores them."""

    images: SceneImages
    label_fields: tuple[str, ...] = ()
    """Label arrays that every scene of the benchmark has: -1 where a folder lacks one."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Folders with coord.npy at most two levels down."""
        return PREPARED.scene_names(folder)

    def is_scene(self, location: Path) -> bool:
        """Whether there are points."""
        return PREPARED.is_scene(location)

    def has_frames(self, location: Path) -> bool:
        """Whether there are images."""
        return PREPARED.has_frames(location) or self.images.are_there(location)

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene; without `labels` no file of them is opened. Raises SceneError."""
        scene = read_scene(location, name, labels)
        cloud = scene.cloud
        if labels:
            absent = dict.fromkeys(self.label_fields, torch.full((len(cloud),), -1))
            cloud = replace(cloud, labels={**absent, **cloud.labels})
        found = scene.frames or self.images.read(location, labels, frames, cloud.origin)[0]
        return replace(scene, cloud=cloud, frames=found)

    def notes(self, location: Path) -> tuple[str, ...]:
        """What was guessed, computed or left out."""
        notes = read_scene_with_notes(location, location.name, with_labels=False)[1]
        notes += () if (location / "normal.npy").is_file() else (ESTIMATED_NORMALS,)
        notes += () if (location / "color.npy").is_file() else (NO_COLOR_NOTE,)
        return (*notes, *self.images.read(location, False, "all")[1])
