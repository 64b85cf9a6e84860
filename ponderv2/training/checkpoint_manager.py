"""The checkpoints of a run: last, previous, best, and which steps are retained."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ponderv2.errors import CheckpointError
from ponderv2.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ponderv2.training.config import TrainingConfig

DAMAGED = ".damaged"
"""Ending of a checkpoint that could not be read when the run was resumed."""


@dataclass(frozen=True)
class ResumePoint:
    """The newest checkpoint that could be read."""

    checkpoint: Checkpoint
    path: Path
    problems: tuple[str, ...]
    """Why newer ones could not be read, one sentence each."""
    damaged: tuple[Path, ...] = ()
    """The newer ones."""

    def set_aside(self) -> None:
        """Renames the damaged ones, so that none of them replaces a good one at the next save."""
        for path in self.damaged:
            with contextlib.suppress(OSError):
                os.replace(path, path.with_name(path.name + DAMAGED))


@dataclass(frozen=True)
class Retention:
    """Which steps stay as `step-N.pth`."""

    steps: tuple[int, ...] = ()
    """For good."""
    every: int = 0
    """Until `newest` later ones are there; 0 = none."""
    newest: int = 5

    @staticmethod
    def of(config: TrainingConfig) -> Retention:
        """From the settings."""
        return Retention(config.keep_steps, config.keep_every, config.keep_newest)

    def includes(self, step: int) -> bool:
        """Whether a step is kept when it is done."""
        return step in self.steps or bool(self.every and step % self.every == 0)

    def expired(self, steps: list[int]) -> list[int]:
        """The stored steps that are no longer retained."""
        passing = sorted(step for step in steps if step not in self.steps)
        return passing[: -self.newest] if self.every else []


@dataclass(frozen=True)
class CheckpointManager:
    """`runs/<name>/checkpoints`. Files are never changed in place, so that names may share one file."""

    folder: Path
    retention: Retention = Retention()

    @property
    def last(self) -> Path:
        """The newest."""
        return self.folder / "last.pth"

    @property
    def previous(self) -> Path:
        """The one that was last before."""
        return self.folder / "previous.pth"

    @property
    def best(self) -> Path:
        """The one with the best validation."""
        return self.folder / "best.pth"

    def put(self, checkpoint: Checkpoint, is_best: bool = False, again: bool = False) -> None:
        """Saves as last and, where it applies, as best and as step-N. Raises OutputError.

        `again`: the last one is of the same step; the one before it stays.
        """
        retention = self.retention.includes(checkpoint.step)
        also = [*([self.best] if is_best else []), *([self._of_step(checkpoint.step)] if retention else [])]
        save_checkpoint(self.last, checkpoint, keep=None if again else self.previous, also=also)
        if retention:
            for step in self.retention.expired([_step_in_name(path) for path in self._steps()]):
                with contextlib.suppress(OSError):
                    self._of_step(step).unlink()

    def newest(self) -> ResumePoint:
        """The newest readable checkpoint. Raises CheckpointError when there is none."""
        problems: list[str] = []
        damaged: list[Path] = []
        for path in self._by_age():
            try:
                return ResumePoint(load_checkpoint(path), path, tuple(problems), tuple(damaged))
            except CheckpointError as error:
                problems.append(error.message)
                damaged.append(path)
        reason = f": {problems[0]}" if problems else f" in {self.folder}"
        raise CheckpointError(f"no checkpoint to continue from{reason}", fix="start again without --resume")

    def is_empty(self) -> bool:
        """Whether nothing was saved yet."""
        return not self._by_age()

    def _by_age(self) -> list[Path]:
        """Existing checkpoints, newest first."""
        return [path for path in (self.last, self.previous, *self._steps(), self.best) if path.exists()]

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pth"), key=_step_in_name, reverse=True)

    def _of_step(self, step: int) -> Path:
        return self.folder / f"step-{step}.pth"


def _step_in_name(path: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", path.stem)
    return int(found[1]) if found else -1
