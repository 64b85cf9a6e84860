"""Ctrl-C, SIGTERM and SIGUSR1 stop the run after the current step; a second Ctrl-C stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from ponderv2.errors import Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""SIGUSR1 is what SLURM sends before it takes a machine away (`--signal=USR1@60`)."""


class Interruption:
    """Context in which signals are recorded instead of ending the process."""

    def __init__(self) -> None:
        self.signal = 0
        """The first one received; 0 = none."""
        self._before: dict[int, object] = {}
        self._process = os.getpid()

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _remember(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def stopped(number: int, step: int, saved: str) -> Interrupted:
    """The exception to raise once everything is saved; exit status 128 + the signal, as in shells.

    130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1.
    """
    return Interrupted(
        f"stopped after step {step}; everything is saved in {saved}",
        fix="the same command with --resume",
        exit_status=128 + number,
    )
