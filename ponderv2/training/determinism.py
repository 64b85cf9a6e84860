"""The same bits every time: which operations torch may use, and with how many threads."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator

import torch

from ponderv2.training.config import TrainingConfig


@contextlib.contextmanager
def repeatable(config: TrainingConfig, warn: Callable[[str], None]) -> Iterator[None]:
    """While it is entered, threads and operations are as the settings say; before and after as they were.

    On a CPU an operation that has no deterministic form raises. On a graphics card it is named once in a
    warning and used: there the result may differ in its last bits.
    """
    threads = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            on_gpu = config.device != "cpu" and torch.cuda.is_available()
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=on_gpu)
            torch.backends.cudnn.benchmark = False
            warnings.showwarning = _named(warnings.showwarning, warn)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(before, warn_only=only_warned)
            torch.backends.cudnn.benchmark = benchmark


def _named(show: Callable[..., None], warn: Callable[[str], None]) -> Callable[..., None]:
    """Sends torch's warnings about operations on their way to the user, once each."""
    known: set[str] = set()

    def showwarning(message: Warning | str, *rest: object, **named: object) -> None:
        text = str(message)
        if "deterministic" not in text:
            show(message, *rest, **named)
        elif (first := text.split(".")[0]) not in known:
            known.add(first)
            warn(f"not the same bits every time: {first}")

    return showwarning
