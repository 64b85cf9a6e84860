"""Errors that a user can fix. Anything else that is raised is an internal error."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from typing import Literal


class PonderError(Exception):
    """One sentence on what is wrong and, where there is one, what to type to fix it."""

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class SceneError(PonderError):
    """A capture, a scene or a scene store that cannot be used."""


class PresetError(PonderError):
    """A preset, a key of it or a value that is not accepted."""


class CheckpointError(PonderError):
    """A checkpoint that is missing, damaged, unsafe or of another model."""


@dataclass(frozen=True)
class Misfit:
    """An entry of a checkpoint or of a model that the other does not have, or has in another shape."""

    entry: str
    kind: Literal["missing", "unexpected", "other shape"]
    trouble: str
    """In words, with both shapes."""


class MismatchError(CheckpointError):
    """A checkpoint whose entries do not fit the model that they are for."""

    def __init__(self, message: str, rows: list[Misfit], fix: str | None = None) -> None:
        super().__init__(message, fix)
        self.rows = rows
        """Everything that does not fit."""


class OutputError(PonderError):
    """A result that cannot be written: disk full, no permission, already there."""


class ResourceError(PonderError):
    """Not enough memory, no GPU, or an extra that is not installed."""


class TrainingError(PonderError):
    """A training run that cannot continue: its numbers are not finite."""


class Interrupted(PonderError):
    """A run that was asked to stop, did so and can be continued."""

    def __init__(self, message: str, fix: str | None = None, exit_status: int = 130) -> None:
        super().__init__(message, fix)
        self.exit_status = exit_status


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the allocator of Python, the system, the CPU or the GPU gave up.

    torch's allocator for the CPU and CUDA's own calls have no type for it: they raise RuntimeError (and its
    child AcceleratorError), recognised by their text. No other error is recognised by its text.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    torch = sys.modules.get("torch")  # not loaded: then it has raised nothing
    if torch is None or not isinstance(error, RuntimeError):
        return False
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "not enough memory", "can't allocate memory"))
