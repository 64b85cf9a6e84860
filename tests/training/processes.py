"""Forks a process for a piece of work: real processes, without importing torch again."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

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


def join(rank: int, port: int, n: int, timeout: float = 30.0) -> None:
    """Makes this child one of `n` in a gloo group; an exchange that others do not take part in then fails."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=n, timeout=timedelta(seconds=timeout)
    )
