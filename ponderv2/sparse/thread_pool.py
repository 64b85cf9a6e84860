"""A pool of single-threaded workers: many small products in parallel, instead of each one on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier, Lock

import torch

_making = Lock()


def n_workers(device: torch.device) -> int:
    """How many parts of a computation run at once: those of torch's setting on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def run_in_threads(parts: Sequence[Callable[[], None]]) -> None:
    """Runs every part without gradients, each on one core; a single part stays in this thread.

    Returns when all are done; then the first error is raised. Parts must not call this function.
    """
    if len(parts) <= 1:
        for part in parts:
            part()
        return
    with _making:
        # As many as the setting says, so that layers of few blocks do not make a pool of their own.
        pool = _pool(max(len(parts), torch.get_num_threads()), os.getpid())
    futures = [pool.submit(_without_gradients, part) for part in parts]
    wait(futures)
    for future in futures:
        future.result()


def _without_gradients(part: Callable[[], None]) -> None:
    with torch.no_grad():
        part()


@lru_cache(maxsize=1)
def _pool(size: int, process: int) -> ThreadPoolExecutor:
    """One pool, made again for another size and in a forked process, in which no thread lives on.

    torch counts threads per thread, but what a thread sets is also where threads that start later begin:
    so the count of this thread is set again once all workers have theirs.
    """
    del process
    here = torch.get_num_threads()
    all_started = Barrier(size + 1)
    pool = ThreadPoolExecutor(size, thread_name_prefix="sparse-convolution")

    def start() -> None:
        torch.get_num_threads()  # or the first parallel operation of the thread would set it anew
        torch.set_num_threads(1)
        all_started.wait()

    for _ in range(size):
        pool.submit(start)
    all_started.wait()
    torch.set_num_threads(here)
    return pool
