"""The processes that prepare batches, and what is said when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from ponderv2.errors import ResourceError

PATIENCE = 1.0
"""Seconds in which a process whose connections broke becomes visibly dead."""


class WorkerDied(Exception):
    """A data worker ended before its time."""

    def __init__(self, worker: BaseProcess, n_workers: int) -> None:
        self.pid, self.exit_code, self.n_workers = worker.pid, worker.exitcode or 0, n_workers
        super().__init__(f"data worker {self.pid} {self.how}")

    @property
    def how(self) -> str:
        """What ended it."""
        if self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"ended unexpectedly with status {self.exit_code}"

    def explained(self, step: int) -> ResourceError:
        """For the user; `step`: steps done."""
        remedy = "free memory or --set training.workers=0; then --resume"
        if self.exit_code == -getattr(signal, "SIGBUS", 0):
            remedy = (
                "make /dev/shm larger (docker run --shm-size=8g) or --set training.workers=0; then --resume"
            )
        return ResourceError(
            f"one of {self.n_workers} data workers (process {self.pid}) {self.how} while scenes of step "
            f"{step + 1} and the next were prepared",
            fix=remedy,
        )


def watched(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """The items of a loader with workers, whose death is an error of the item that is waited for.

    torch raises it in whatever the main thread does when the signal comes: in a save, in a library that
    turns or swallows errors, in the report of another error. And a connection may break before it comes.

    Raises:
        WorkerDied: in place of whatever torch makes of it.
    """
    others = set(multiprocessing.active_children())
    items = iter(loader)
    watch = _Watch([process for process in multiprocessing.active_children() if process not in others])
    try:
        while True:
            try:
                item = watch.wait_for(items)
            except StopIteration:
                return
            yield item
    finally:
        del items
        watch.end()


class _Watch:
    """Takes the place of torch's handler of SIGCHLD until `end`."""

    def __init__(self, workers: list[BaseProcess]) -> None:
        self._workers, self._process, self._is_waiting = workers, os.getpid(), False
        self._before: Any = None
        # As torch does: only the main thread may have handlers.
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGCHLD, self._child_ended)

    def end(self) -> None:
        """The handler of before is back."""
        if self._before is not None:
            signal.signal(signal.SIGCHLD, self._before)

    def wait_for(self, items: Any) -> Any:
        """The next item; StopIteration after the last."""
        self._raise_if_dead()
        try:
            self._is_waiting = True
            return next(items)
        except (StopIteration, WorkerDied):
            raise
        except Exception as error:
            self._is_waiting = False
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                self._raise_if_dead(error, well=True)
                time.sleep(0.01)
            raise
        finally:
            self._is_waiting = False

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        """A read of half a message from a dead worker would last for ever."""
        if self._is_waiting and os.getpid() == self._process:
            self._raise_if_dead()

    def _raise_if_dead(self, error: Exception | None = None, well: bool = False) -> None:
        """`well`: also where it ended with status 0, as all do after the last item."""
        for worker in self._workers:
            if worker.exitcode or (well and worker.exitcode == 0):
                raise WorkerDied(worker, len(self._workers)) from error
