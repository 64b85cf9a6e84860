"""Times of several ways to do the same, taken in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def side_by_side(
    runs: list[Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of every run, alternating so that a busy moment hits all; the first round is not counted.

    With one thread `time.process_time` as clock leaves out what else the machine does.
    """
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for seconds, run in zip(found, runs, strict=True):
            start = clock()
            run()
            if turn:
                seconds.append(clock() - start)
    return found
