"""What a layout of a folder of scenes has to offer. A place is ROOT/SPLIT/SCENE, without a file ending."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Scene

__all__ = ["FrameChoice", "SceneLayout"]


@runtime_checkable
class SceneLayout(Protocol):
    """How scenes are stored. A frozen dataclass of plain values, so that it travels to worker processes."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the scenes of a split, sorted, without looking into them."""
        ...

    def is_scene(self, place: Path) -> bool:
        """Whether there is a scene."""
        ...

    def has_frames(self, place: Path) -> bool:
        """Whether there are photographs of the scene, as far as file names tell."""
        ...

    def read(self, place: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene; without `labels` none are opened. Raises SceneError."""
        ...

    def notes(self, place: Path) -> tuple[str, ...]:
        """What was guessed, computed or left out in reading a scene."""
        ...
