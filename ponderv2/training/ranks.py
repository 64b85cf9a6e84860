"""The ranks of a run: an error of one is raised in all, and a failed exchange names its process."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ponderv2.collectives import all_gather_lists, process_rank, single_process, world_size
from ponderv2.errors import PonderError, ResourceError

PATIENCE = 5.0
"""Seconds until a dying process is seen as dead."""


@dataclass(frozen=True)
class RankProcess:
    """One process of the run."""

    rank: int
    pid: int
    host: str

    @staticmethod
    def here(rank: int) -> RankProcess:
        """This process."""
        return RankProcess(rank, os.getpid(), socket.gethostname())


@dataclass(frozen=True)
class Ranks:
    """All processes of the run."""

    all: tuple[RankProcess, ...]

    def explained(self, error: BaseException, timeout: float) -> ResourceError | None:
        """The error of a failed exchange, which names its process; None for an error of another kind."""
        if len(self.all) < 2 or not _is_of_an_exchange(error):
            return None
        others = [process for process in self.all if process.pid != os.getpid()]
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        end = time.monotonic() + PATIENCE
        while not (found := [(process, state) for process in others if (state := _trouble(process))]):
            if late or time.monotonic() > end:
                break
            time.sleep(0.1)
        fix = "run the same command with --resume"
        if found:
            process, state = found[0]
            name = f"training process {process.rank} of {len(self.all)} (pid {process.pid} on {process.host})"
            waited = f" and did not answer within {timeout:g} s" if late else ""
            return ResourceError(f"{name} {state}{waited}", fix=fix)
        if late:
            named = ", ".join(f"{one.rank} (pid {one.pid} on {one.host})" for one in others[:8])
            return ResourceError(
                f"no answer within {timeout:g} s from one of the training processes {named}",
                fix=f"{fix}; --set training.timeout=SECONDS waits longer",
            )
        reason = str(error).splitlines()[0][:200]
        return ResourceError(f"one of {len(self.all)} training processes ended: {reason}", fix=fix)


def _is_of_an_exchange(error: BaseException) -> bool:
    """NCCL, the store and the network have error types; gloo raises a RuntimeError that names it."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def _trouble(process: RankProcess) -> str | None:
    """State of a process of this machine that does not run; None where it runs or cannot be seen."""
    if process.host != socket.gethostname() or not Path("/proc/self").exists():
        return None
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return "has ended"
    return {"T": "is stopped", "t": "is stopped", "Z": "has ended", "X": "has ended"}.get(state)


Value = TypeVar("Value")


class OtherProcessFailed(Exception):
    """An internal error of another process of the run."""


@dataclass(frozen=True)
class _Failure:
    """An error, sent to the other processes."""

    rank: int
    error: PonderError | None
    """None for an internal error."""
    text: str
    """The traceback."""

    @staticmethod
    def of(error: Exception) -> _Failure:
        text = "".join(traceback.format_exception(error))
        return _Failure(process_rank(), _portable(error) if isinstance(error, PonderError) else None, text)

    def exception(self) -> Exception:
        """The same error, to be raised in another process."""
        if self.error is not None:
            return self.error
        return OtherProcessFailed(f"process {self.rank} of {world_size()} failed:\n{self.text}")


def run_in_all(work: Callable[[], Value]) -> list[Value]:
    """The results of `work()` in all processes, in order of rank. Every process must call it.

    `work` runs as if its process were alone; its result must be picklable. There is one exchange, after it.

    Raises:
        Exception: where `work` raised in any process, the error of the first of them, in all.
    """
    value, error = attempt(work)
    if world_size() == 1:
        if error is not None:
            raise error
        return [value]  # pyright: ignore[reportReturnType] - there was no error
    failure = None if error is None else _Failure.of(error)
    found = all_gather_lists([(value, failure)])
    _raise_first([failure for _, failure in found if failure is not None], error)
    return [value for value, _ in found]  # pyright: ignore[reportReturnType]


WORD = 2.0
"""Seconds between two exchanges of processes that wait for the first one."""


def by_first_process(work: Callable[[], None]) -> None:
    """`work()` in process 0, while the others wait for it. Every process must call it.

    They hear of process 0 every few seconds, so that the work may take longer than an exchange. It must not
    exchange anything itself.

    Raises:
        Exception: what `work` raised, in all processes.
    """
    if world_size() == 1:
        work()
        return
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again once all processes know of it
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True) if process_rank() == 0 else None
    if thread is not None:
        thread.start()
    while True:
        if thread is not None:
            thread.join(WORD)
        is_done = thread is not None and not thread.is_alive()
        failure = _Failure.of(failures[0]) if is_done and failures else None
        first_is_done, first_failure = all_gather_lists([(is_done, failure)])[0]
        if first_is_done:
            _raise_first([] if first_failure is None else [first_failure], failures[0] if failures else None)
            return


def raise_together(error: Exception | None, device: torch.device) -> None:
    """Raises in all processes the error of the first that has one; exchanges one number where none has.

    Every process must call it, within a training step. `device`: where exchanges are made from.
    """
    if world_size() == 1:
        if error is not None:
            raise error
        return
    failed = torch.tensor([float(error is not None)], device=device)
    torch.distributed.all_reduce(failed)
    if failed.item() > 0:
        _raise_first(all_gather_lists([] if error is None else [_Failure.of(error)]), error)


def attempt(work: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    """The result of `work()`, as if this process were alone, or its error."""
    try:
        with single_process():
            return work(), None
    except Exception as error:  # noqa: BLE001 - raised again once all processes know of it
        return None, error


def _raise_first(failures: list[_Failure], own: Exception | None) -> None:
    """The failing process raises its own error, with its traceback; the others raise a copy."""
    if not failures:
        return
    if own is not None and failures[0].rank == process_rank():
        raise own
    raise failures[0].exception() from own


def _portable(error: PonderError) -> PonderError:
    """The error itself where it can be sent, else its message. Bytes of this process alone are unpickled."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever a child with other arguments raises
        return PonderError(error.message, error.fix)
