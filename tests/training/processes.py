"""Forks a process for a piece of work: real processes, without importing torch again."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

_FORK = multiprocessing.get_context("fork")


def start(work: Callable[..., Any], *arguments: Any) -> Any:
    """A running child."""
    child = _FORK.Process(target=work, args=arguments, daemon=True)
    child.start()
    return child


def run_ranks(work: Callable[..., Any], n: int, *arguments: Any) -> list[Any]:
    """`work(rank, *arguments)` in n children at once; what they return, in order of rank."""
    answers = _FORK.Queue()
    children = [start(_answer, answers, work, rank, arguments) for rank in range(n)]
    found = dict(answers.get(timeout=60) for _ in range(n))
    for child in children:
        child.join(timeout=10)
    for value in found.values():
        if isinstance(value, str) and value.startswith("Traceback"):
            raise AssertionError(value)
    return [found[rank] for rank in range(n)]


def _answer(answers: Any, work: Callable[..., Any], rank: int, arguments: tuple[Any, ...]) -> None:
    try:
        answers.put((rank, work(rank, *arguments)))
    except BaseException:  # noqa: BLE001 - the parent reports it
        answers.put((rank, traceback.format_exc()))
