"""Names of scenes in folders, whole and without the tokens of key frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ponderv2.errors import SceneError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.reader import DatasetInfo, FrameChoice
from ponderv2.scenes.scene import Scene


@dataclass(frozen=True)
class Listed:
    """Scenes that are there by their names alone."""

    scenes: tuple[str, ...]
    """Split and name."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        first = f"{folder.name}/"
        return tuple(one.removeprefix(first) for one in self.scenes if one.startswith(first))

    def is_scene(self, location: Path) -> bool:
        return location.as_posix().removeprefix("data/") in self.scenes

    def has_frames(self, location: Path) -> bool:
        return False

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        raise NotImplementedError

    def notes(self, location: Path) -> tuple[str, ...]:
        return ()


FOLDER = SceneFolders(
    Path("data"),
    DatasetInfo("drives"),
    Listed(
        (
            "train/a/000_f1",
            "train/a/001",
            "train/a/001_f2",
            "train/a/002_f3",
            "train/a/002_f4",
            "train/room_1",
            "val/a/000_f5",
            "val/b/0001_f6",
        )
    ),
)


@pytest.mark.parametrize(
    ("name", "split", "full"),
    [
        ("b/0001", None, "b/0001_f6"),
        ("a/000", "train", "a/000_f1"),  # another scene of another split begins so
        ("a/000", "val", "a/000_f5"),
        ("val/a/000", None, "val/a/000_f5"),
        ("a/001", None, "a/001"),  # exact, although it is short for another one, too
        ("a/001_f2", "train", "a/001_f2"),
        ("a/000", "val+train", None),  # names of joined splits begin with their split
        ("train/a/000", "val+train", "train/a/000_f1"),
        ("a/00", None, None),
        ("a/003", None, None),
        ("room", None, None),  # no key frame of a drive
    ],
)
def test_a_key_frame_is_found_without_its_token(name: str, split: str | None, full: str | None) -> None:
    if full is not None:
        assert FOLDER.full_name(name, split) == full
        return
    with pytest.raises(SceneError, match=f"no scene '{name}' in data"):
        FOLDER.full_name(name, split)


@pytest.mark.parametrize(
    ("name", "split", "candidates"),
    [("a/000", None, "a/000_f1, a/000_f5"), ("a/002", "train", "a/002_f3, a/002_f4")],
)
def test_a_short_name_of_two_scenes_is_refused_with_both(
    name: str, split: str | None, candidates: str
) -> None:
    with pytest.raises(SceneError, match=f"'{name}' is short for 2 scenes in data") as caught:
        FOLDER.full_name(name, split)
    assert caught.value.fix == f"choose one of: {candidates}"
