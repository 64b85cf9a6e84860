"""What is common to all scenes of a data set: its classes, label arrays and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ponderv2.version import __version__


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

    def label_set(self, label_field: str) -> LabelSet:
        """The classes of a label array; an empty set where nothing is known of it."""
        if label_field == self.label_field:
            return LabelSet(self.class_names, self.class_colors)
        return self.other_labels.get(label_field, LabelSet())
