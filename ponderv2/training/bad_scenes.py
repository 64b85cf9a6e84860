"""Scenes that cannot be read: replaced by others and listed, up to a limit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ponderv2.errors import SceneError
from ponderv2.io.files import write_bytes
from ponderv2.randomness import make_generator
from ponderv2.training.sampler import SampleIndex

LIST_FILE = "bad_scenes.json"


@dataclass(frozen=True)
class BadScene:
    """An unreadable scene that was replaced by another one."""

    name: str
    reason: str
    """One sentence."""
    fix: str | None = None


def replacements(sample: SampleIndex, n_scenes: int) -> Iterator[SampleIndex]:
    """Replacements of an unreadable scene: all others of its dataset, in a random order.

    A pure function of the sample index: every process, worker and resumed run takes the same one.
    """
    generator = make_generator("stand-in", sample.dataset, sample.index, sample.draw)
    for index in torch.randperm(n_scenes, generator=generator).tolist():
        if index != sample.index:
            yield SampleIndex(index, sample.draw, sample.dataset)


class BadScenes:
    """The unreadable scenes of a run, the same in all its processes."""

    def __init__(self, folder: Path, most: int) -> None:
        """`most`: distinct scenes that may be skipped."""
        self._path, self._most = folder / LIST_FILE, most
        self.scenes: dict[str, BadScene] = {}

    def add(self, found: Iterable[BadScene]) -> list[BadScene]:
        """Remembers them and returns the new ones."""
        new: dict[str, BadScene] = {}
        for scene in found:
            if scene.name not in self.scenes:
                new[scene.name] = self.scenes[scene.name] = scene
        return list(new.values())

    def write(self, new: Sequence[BadScene], step: int) -> None:
        """Adds the scenes to the list in the run folder. Raises OutputError."""
        listed: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError):
            listed = dict(json.loads(self._path.read_text()))
        listed |= {scene.name: {"step": step, "reason": scene.reason} for scene in new}
        write_bytes(self._path, (json.dumps(listed, indent=1) + "\n").encode())

    @property
    def is_full(self) -> bool:
        """Whether there are more than allowed."""
        return len(self.scenes) > self._most

    def error(self) -> SceneError:
        """Ends a run with too many of them."""
        return too_many(list(self.scenes.values()))


def too_many(scenes: Sequence[BadScene]) -> SceneError:
    """Ends a run with too many unreadable scenes; names the first reason."""
    if len(scenes) == 1:
        return SceneError(scenes[0].reason, fix=scenes[0].fix)
    named = ", ".join(scene.name for scene in scenes[:5]) + (", ..." if len(scenes) > 5 else "")
    return SceneError(
        f"{len(scenes)} scenes cannot be used: {named}; the first: {scenes[0].reason}",
        fix=scenes[0].fix or "repair them, or --set training.max_bad_scenes=N to train without them",
    )
