"""What every source of scenes offers: a store, a published data set, a folder of another program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from ponderv2.version import __version__

if TYPE_CHECKING:
    from ponderv2.scenes.scene import Scene


INFO_FILE = "dataset.yaml"
"""Of a folder of prepared scenes."""
FrameChoice = Literal["all", "published", "none"]
"""published: as PonderV2 chose from exported recordings, frames 40 to -60 in steps of 10."""


@dataclass(frozen=True)
class LabelSet:
    """The classes that one label array holds."""

    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    """RGB 0..255 per class."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is common to all scenes of a store."""

    name: str
    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    """RGB 0..255 per class."""
    label_field: str = "segment"
    """The label array that holds the classes."""
    splits: tuple[str, ...] = ("train", "val")
    version: str = field(default=__version__)
    """Of the tool that wrote the store."""
    other_labels: Mapping[str, LabelSet] = field(default_factory=dict)
    """Further label arrays by name, each with classes of its own: segment200 beside segment20."""
    box_classes: tuple[str, ...] = ()
    """Classes of the boxes around objects."""

    @property
    def label_sets(self) -> Mapping[str, LabelSet]:
        """The classes of every label array that is known, the usual one first."""
        return {self.label_field: LabelSet(self.class_names, self.class_colors), **self.other_labels}

    def label_set(self, label_field: str) -> LabelSet:
        """The classes of a label array; an empty set where nothing is known of it."""
        if label_field == self.label_field:
            return LabelSet(self.class_names, self.class_colors)
        return self.other_labels.get(label_field, LabelSet())


@runtime_checkable
class Reader(Protocol):
    """Reads the scenes of one folder or file. A value that can be pickled: data workers receive it.

    Prepared scenes and folders of other programs are read for training; data sets as they were published are
    read by `ponder prepare`.
    """

    @property
    def root(self) -> Path:
        """Folder or file of the scenes."""
        ...

    @property
    def info(self) -> DatasetInfo:
        """What is common to all scenes."""
        ...

    @property
    def label_sets(self) -> Mapping[str, LabelSet]:
        """The classes of every label array."""
        return self.info.label_sets

    def names(self, split: str, with_frames: bool = False) -> tuple[str, ...]:
        """Names of the scenes of a split, in a fixed order; empty when there is no such split.

        With `with_frames` those that have frames; all where none has any.
        """
        ...

    def read(
        self, name: str, split: str | None = None, labels: bool = True, frames: FrameChoice = "all"
    ) -> Scene:
        """A scene; images and sweeps are read when they are asked for.

        Without `labels` no file of labels is opened. Raises SceneError: not there, or damaged.
        """
        ...
