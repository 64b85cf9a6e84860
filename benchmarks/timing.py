"""Times of several ways to do the same, taken in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def side_by_side(runs: list[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of every run, alternating so that a busy moment hits all; the first round is not counted."""
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for seconds, run in zip(found, runs, strict=True):
            start = time.perf_counter()
            run()
            if turn:
                seconds.append(time.perf_counter() - start)
    return found
