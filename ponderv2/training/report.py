"""Progress-reporting interface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Advance(Protocol):
    """The handle of a running progress display."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """`n` more steps are done; `fields` are numbers to show (loss terms, memory)."""


@runtime_checkable
class Reporter(Protocol):
    """Messages and progress of a running workflow. Nothing here is a result."""

    def note(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """One line that must not be missed."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
        """The same items, counted on a progress display. `total` where `len` is unknown."""
        ...

    def progress(self, label: str, total: int, completed: int = 0) -> AbstractContextManager[Advance]:
        """A progress display that the workflow advances; `completed` where a run continues."""
        ...


class SilentReporter:
    """Reports nothing: the default without the command line."""

    def note(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str) -> None:
        """Ignored."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
        """The iterable itself."""
        return iterable

    @contextmanager
    def progress(self, label: str, total: int, completed: int = 0) -> Iterator[Advance]:
        """A handle that does nothing."""
        yield SilentAdvance()


class SilentAdvance:
    """The handle without a display."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Ignored."""
