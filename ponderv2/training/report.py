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
        """Say that `n` more steps are done; `fields` are numbers worth seeing (loss terms, memory)."""


@runtime_checkable
class Reporter(Protocol):
    """What a workflow may say while it runs. Nothing here is a result."""

    def note(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """One line that the user should not miss."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
        """The same items, counted on a display with rate and time left. `total` where `len` is unknown."""
        ...

    def progress(self, label: str, total: int, completed: int = 0) -> AbstractContextManager[Advance]:
        """A display that the workflow moves itself; `completed` where a run continues."""
        ...


class SilentReporter:
    """Says nothing: the default when the library is used without the command line."""

    def note(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str) -> None:
        """Ignored."""

    def track(self, iterable: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
        """The iterable itself."""
        return iterable

    @contextmanager
    def progress(self, label: str, total: int, completed: int = 0) -> Iterator[Advance]:
        """A handle that counts nothing."""
        yield SilentAdvance()


class SilentAdvance:
    """The handle of a display that is not there."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Ignored."""
