"""What an object of the street is: its category and its surface, at every phase of its walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.parts import Part
from ponderv2.synthetic.streets.shapes import MergedMesh, merge

SLACK = 0.03
"""Annotated boxes are that much larger than the object on every side but below, metres."""


@dataclass(frozen=True)
class Model:
    """An object in its own frame: x forward, z up, standing on z = 0, its middle at the origin."""

    category: str
    """Name in the category table of nuScenes."""
    phases: tuple[tuple[Part, ...], ...]
    """One surface for what is rigid; several for legs that swing."""
    stride: float = 1.4
    """Metres after which the phases repeat."""

    @staticmethod
    def rigid(category: str, parts: Sequence[Part]) -> Model:
        """An object of one shape, centred."""
        return Model.moving(category, [parts], 1.0)

    @staticmethod
    def moving(category: str, phases: Sequence[Sequence[Part]], stride: float) -> Model:
        """An object of several shapes, centred by the box around all of them."""
        from ponderv2.synthetic.parts import shift
        from ponderv2.synthetic.streets.shapes import placed

        bounds = np.stack([merge(parts).bounds for parts in phases])
        low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
        back = shift(-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0.0)
        return Model(category, tuple(placed(parts, back) for parts in phases), stride)

    @cached_property
    def meshes(self) -> tuple[MergedMesh, ...]:
        """The surface of every phase; parts are in the same order in all of them."""
        return tuple(merge(parts) for parts in self.phases)

    @cached_property
    def extent(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner of the surface in all phases."""
        bounds = np.stack([mesh.bounds for mesh in self.meshes])
        return np.stack([bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)])

    @property
    def size(self) -> Float[np.ndarray, "3"]:
        """Length, width, height of the annotated box, whose lower face is on the ground."""
        low, high = self.extent
        return np.array(
            [high[0] - low[0] + 2 * SLACK, high[1] - low[1] + 2 * SLACK, high[2] + SLACK], dtype=float
        )
