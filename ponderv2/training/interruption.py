"""Ctrl-C and SIGTERM ask the run to stop after the step; a second Ctrl-C stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from ponderv2.errors import Interrupted


class Interruption:
    """While it is entered, signals are remembered instead of ending the process."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self.signal is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGUSR1")
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _remember(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def error(self, step: int, saved: str) -> Interrupted:
        """What to raise once everything is saved."""
        status = 130 if self.signal in (None, signal.SIGINT) else 143
        return Interrupted(
            f"stopped after step {step}; everything is saved in {saved}",
            fix="continue with the same command and --resume",
            exit_status=status,
        )
