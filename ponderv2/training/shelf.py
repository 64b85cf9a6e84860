"""The checkpoints of one run: last, the one before it, best, and the steps that are kept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ponderv2.errors import CheckpointError, OutputError
from ponderv2.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Resumed:
    """The newest checkpoint that could be read."""

    checkpoint: Checkpoint
    path: Path
    problems: tuple[str, ...]
    """Why newer ones could not be read, one sentence each."""


@dataclass(frozen=True)
class Shelf:
    """`runs/<name>/checkpoints`. Files are never changed in place, so that names may share one file."""

    folder: Path
    keep_steps: tuple[int, ...] = ()

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

    def put(self, checkpoint: Checkpoint, is_best: bool = False) -> None:
        """Saves as last and, where it applies, as best and as step-N. Raises OutputError."""
        save_checkpoint(self.last, checkpoint, keep=self.previous)
        if is_best:
            _share(self.last, self.best)
        if checkpoint.step in self.keep_steps:
            _share(self.last, self.folder / f"step-{checkpoint.step}.pth")

    def newest(self) -> Resumed:
        """The newest readable checkpoint. Raises CheckpointError when there is none."""
        problems: list[str] = []
        for path in self._by_age():
            try:
                return Resumed(load_checkpoint(path), path, tuple(problems))
            except CheckpointError as error:
                problems.append(error.message)
        reason = f": {problems[0]}" if problems else f" in {self.folder}"
        raise CheckpointError(f"no checkpoint to continue from{reason}", fix="start again without --resume")

    def is_empty(self) -> bool:
        """Whether nothing was saved yet."""
        return not self._by_age()

    def _by_age(self) -> list[Path]:
        """Existing checkpoints, newest first."""
        steps = sorted(self.folder.glob("step-*.pth"), key=_step_in_name, reverse=True)
        return [path for path in (self.last, self.previous, *steps, self.best) if path.exists()]


def _step_in_name(path: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", path.stem)
    return int(found[1]) if found else -1


def _share(source: Path, target: Path) -> None:
    """Gives a file a second name; copies where the file system has no links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {target}: {error.strerror}", fix="free space, then --resume"
        ) from error
