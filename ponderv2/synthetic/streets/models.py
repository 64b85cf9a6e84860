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
    meshes: tuple[MergedMesh, ...]
    """One surface for what is rigid; several for legs that swing, with their parts in the same order."""
    stride: float = 1.4
    """Metres after which the phases repeat."""

    @staticmethod
    def rigid(category: str, parts: Sequence[Part]) -> Model:
        """An object of one shape, centred."""
        return Model.moving(category, [parts], 1.0)

    @staticmethod
    def moving(category: str, phases: Sequence[Sequence[Part]], stride: float) -> Model:
        """An object of several shapes, centred by the box around all of them."""
        meshes = [merge(parts) for parts in phases]
        low = np.min([mesh.bounds[0] for mesh in meshes], axis=0)
        high = np.max([mesh.bounds[1] for mesh in meshes], axis=0)
        middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0.0])
        return Model(category, tuple(mesh.shifted(-middle) for mesh in meshes), stride)

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
