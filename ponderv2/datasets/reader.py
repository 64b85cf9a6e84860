"""What every source of scenes offers: a plan of independent jobs, one scene each.

A source is a function `find(config) -> SourcePlan`; it looks at the input but does no work. Jobs are
picklable, run in worker processes in any order, and depend on nothing but themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo


@runtime_checkable
class RawScene(Protocol):
    """One scene to be prepared. A frozen dataclass of plain values does."""

    @property
    def split(self) -> str:
        """Folder of the store that the scene goes into: train, val, test."""
        ...

    @property
    def name(self) -> str:
        """Name of the scene, unique in its split; becomes a folder."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the settings or the input would give other bytes; plain text or a hash."""
        ...

    def read(self) -> SceneStream:
        """Do the work. Raises SceneError for what is wrong with the input."""
        ...


@runtime_checkable
class SizedScene(Protocol):
    """A raw scene that knows roughly how much will be written; scenes need not."""

    def estimated_bytes(self) -> int:
        """Of the prepared scene on disk, from what is known without doing the work."""
        ...


@dataclass(frozen=True)
class DatasetReader:
    """What a source found."""

    info: DatasetInfo
    scenes: tuple[RawScene, ...]
    notes: tuple[str, ...] = ()
    """For the user, before the work starts: the layout that was recognised, for instance."""
    warnings: tuple[str, ...] = ()
    """What could not be read at all, an archive for instance; the user should not miss it."""
