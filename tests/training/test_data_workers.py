"""Data workers that really die, at moments that matter. Nothing here may last until a time-out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import closing

import pytest
from torch.utils.data import DataLoader, Dataset

from ponderv2.training.data_loader import WorkerDied, watched

SLOW = 600.0


class _Items(Dataset[tuple[int, bytes]]):
    """Its worker's process and some bytes; one of the items is trouble."""

    def __init__(self, trouble: str = "none", size: int = 1) -> None:
        self.trouble, self.size = trouble, size

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        if index == 6:
            if self.trouble == "slow":
                time.sleep(SLOW)
            if self.trouble in ("exit", "leave"):
                os._exit(3 if self.trouble == "exit" else 0)
            if self.trouble == "bus":
                os.kill(os.getpid(), signal.SIGBUS)
            if self.trouble == "wrong":
                raise ValueError("a defect of the dataset")
        return os.getpid(), b"x" * self.size


def _first(batch: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    return batch[0]


def _items(trouble: str = "none", size: int = 1) -> closing[Generator[tuple[int, bytes], None, None]]:
    loader = DataLoader(_Items(trouble, size), batch_size=1, num_workers=2, collate_fn=_first)
    return closing(watched(loader))


def test_a_death_while_something_else_runs_is_told_with_the_next_item() -> None:
    with _items() as items:
        worker, _ = next(items)
        os.kill(worker, signal.SIGKILL)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
        assert sum(range(100_000)) == 4_999_950_000  # nothing strikes here
        with pytest.raises(WorkerDied, match=f"{worker} was killed by SIGKILL"):
            next(items)


def test_a_death_ends_the_wait_for_its_item() -> None:
    with _items("slow") as items:
        workers = [next(items)[0] for _ in range(6)]
        threading.Timer(0.3, os.kill, (workers[0], signal.SIGKILL)).start()
        with pytest.raises(WorkerDied, match=f"{workers[0]} was killed"):
            next(items)


def test_half_an_item_is_not_waited_for() -> None:
    """A pipe holds 64 kB, so that a worker with more to say is killed in the middle of it."""
    with _items(size=8_000_000) as items:
        worker, _ = next(items)
        time.sleep(0.3)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=str(worker)):
            list(items)


@pytest.mark.parametrize(
    ("trouble", "how", "fix"),
    [
        ("exit", "ended unexpectedly with status 3", "free memory"),
        ("leave", "ended unexpectedly with status 0", "free memory"),
        ("bus", "was killed by SIGBUS", "--shm-size"),
    ],
)
def test_what_ended_it_and_what_to_do_is_told(trouble: str, how: str, fix: str) -> None:
    with _items(trouble) as items, pytest.raises(WorkerDied, match=how) as caught:
        list(items)
    error = caught.value.explained(step=6)
    assert "one of 2 data workers" in str(error) and "step 7" in str(error)
    assert error.fix and fix in error.fix


def test_an_error_of_the_dataset_stays_what_it_is() -> None:
    with _items("wrong") as items, pytest.raises(ValueError, match="a defect of the dataset"):
        list(items)


def test_afterwards_signals_are_handled_as_before() -> None:
    with _items() as items:
        assert len({worker for worker, _ in items}) == 2
    of_torch = signal.getsignal(signal.SIGCHLD)
    with _items() as items:
        next(items)
        assert signal.getsignal(signal.SIGCHLD) is not of_torch
    assert signal.getsignal(signal.SIGCHLD) is of_torch
