"""Progress of a running workflow: a bar on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ponder_cli import console
from ponderv2.training.report import Advance

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0
LOGBOOK_ONLY = {"gradient_norm", "seconds", "waited", "points_per_second", "rays_per_second", "point_loss"}


class ConsoleReporter:
    """The Reporter of the command line."""

    def note(self, text: str) -> None:
        """One dim line."""
        console.note(text)

    def warn(self, text: str) -> None:
        """One line marked as a warning."""
        console.warn(text)

    def track(self, iterable: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
        """The items, counted on the display. Without a known total there is no display."""
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # pyright: ignore[reportArgumentType]
        if total is None:
            yield from iterable
            return
        with self.progress(label, total) as handle:
            for item in iterable:
                yield item
                handle.advance()

    @contextmanager
    def progress(self, label: str, total: int, completed: int = 0) -> Iterator[Advance]:
        """A display with rate, time left and the latest fields."""
        if not console.err.is_terminal:
            yield PlainLines(label, total, completed)
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=console.err,
            transient=False,
        ) as display:
            task = display.add_task(escape(label), total=total, completed=completed, rate="", values="")
            yield Bar(display, task, completed)


class Bar:
    """The handle of a bar on a terminal."""

    def __init__(self, display: Progress, task: TaskID, completed: int) -> None:
        self._display, self._task = display, task
        self._rate = Rate(completed)

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Move the bar and show the latest values."""
        self._rate.done += n
        self._display.update(self._task, advance=n, rate=self._rate.text())
        if fields:
            self._display.update(self._task, values=escape(_values(fields)))


class PlainLines:
    """The handle where nobody can see a bar move: a line every few seconds and one at the end."""

    def __init__(
        self, label: str, total: int, completed: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label, self._total, self._clock = label, total, clock
        self._rate = Rate(completed, clock)
        self._last = clock()
        self._values = ""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Count, and print a line if the last one is old or this is the end."""
        self._rate.done += n
        if fields:
            self._values = _values(fields)
        finished = self._rate.done >= self._total
        if not finished and self._clock() - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = self._clock()
        left = "" if finished else f"{_duration(self._rate.seconds_left(self._total))} left"
        parts = [f"{self._label} {self._rate.done}/{self._total}", self._rate.text(), left, self._values]
        console.note("  ".join(part for part in parts if part))


class Rate:
    """Steps per second since the start of this process."""

    def __init__(self, completed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = completed
        self._first, self._clock, self._start = completed, clock, clock()

    def per_second(self) -> float:
        """0 before the first step."""
        elapsed = self._clock() - self._start
        return (self.done - self._first) / elapsed if elapsed > 0 else 0.0

    def seconds_left(self, total: int) -> float:
        """At the rate so far; infinite before the first step."""
        rate = self.per_second()
        return (total - self.done) / rate if rate > 0 else float("inf")

    def text(self) -> str:
        """As "4.2/s", or as "3.1 s each" for slow steps."""
        rate = self.per_second()
        if rate <= 0:
            return ""
        return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def _values(fields: dict[str, float | str]) -> str:
    """The fields that are worth a look while running; all of them are in `metrics.jsonl`."""
    shown = {name: value for name, value in fields.items() if value and name not in LOGBOOK_ONLY}
    return " ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
