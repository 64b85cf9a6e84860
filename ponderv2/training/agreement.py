"""An error in one process of a run is one in all of them: they stop together, and none waits for another."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from ponderv2.collectives import alone, gathered, n_processes, process_number
from ponderv2.errors import PonderError

Value = TypeVar("Value")


class OtherProcessFailed(Exception):
    """An internal error of another process of the run."""


@dataclass(frozen=True)
class _Failure:
    """An error on its way to the other processes."""

    rank: int
    error: PonderError | None
    """What the user can fix; None for an internal error."""
    text: str
    """The traceback."""

    @staticmethod
    def of(error: Exception) -> _Failure:
        text = "".join(traceback.format_exception(error))
        return _Failure(process_number(), _portable(error) if isinstance(error, PonderError) else None, text)

    def exception(self) -> Exception:
        """The same error, to be raised in another process."""
        if self.error is not None:
            return self.error
        return OtherProcessFailed(f"process {self.rank} of {n_processes()} failed:\n{self.text}")


def run_in_all(work: Callable[[], Value]) -> list[Value]:
    """The results of `work()` in all processes, in order of rank. Every process must call it.

    `work` runs as if its process were alone; its result must be picklable. There is one exchange, after it.

    Raises:
        Exception: where `work` raised in any process, the error of the first of them, in all.
    """
    value, error = attempt(work)
    if n_processes() == 1:
        if error is not None:
            raise error
        return [value]  # pyright: ignore[reportReturnType] - there was no error
    failure = None if error is None else _Failure.of(error)
    found = gathered([(value, failure)])
    _raise_first([failure for _, failure in found if failure is not None], error)
    return [value for value, _ in found]  # pyright: ignore[reportReturnType]


def raise_together(error: Exception | None, device: torch.device) -> None:
    """Raises in all processes the error of the first that has one; costs one number where none has.

    Every process must call it, within a training step. `device`: where exchanges are made from.
    """
    if n_processes() == 1:
        if error is not None:
            raise error
        return
    failed = torch.tensor([float(error is not None)], device=device)
    torch.distributed.all_reduce(failed)
    if failed.item() > 0:
        _raise_first(gathered([] if error is None else [_Failure.of(error)]), error)


def attempt(work: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    """The result of `work()`, as if this process were alone, or its error."""
    try:
        with alone():
            return work(), None
    except Exception as error:  # noqa: BLE001 - raised again once all processes know of it
        return None, error


def _raise_first(failures: list[_Failure], own: Exception | None) -> None:
    """The first process raises its error itself, with its traceback; the others a copy of it."""
    if not failures:
        return
    if own is not None and failures[0].rank == process_number():
        raise own
    raise failures[0].exception() from own


def _portable(error: PonderError) -> PonderError:
    """The error itself where it can be sent, else its message."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever a child with other arguments raises
        return PonderError(error.message, error.fix)
