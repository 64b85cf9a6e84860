"""A bounded sample of labelled features out of any number of scenes, the same in whatever order they come."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.evaluation.neighbours import LabelledFeatures
from ponderv2.randomness import make_generator


@dataclass
class LabelledSample:
    """At most `per_class` random points of every class, collected scene by scene.

    Every point gets a random priority that follows from the seed and the name of its scene, and the points
    with the lowest ones stay: the sample is uniform over the points of a class, does not depend on the order
    of the scenes, and takes memory for what is kept and one scene.
    """

    per_class: int
    seed: int = 0
    _rows: list[Tensor] = field(default_factory=list)
    """Feature, label, coord, scene, priority; empty before the first scene."""
    _n_scenes: int = 0
    _n_seen: Int[Tensor, " class"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def add(
        self,
        name: str,
        feature: Float[Tensor, "point channel"],
        label: Int[Tensor, " point"],
        coord: Float[Tensor, "point 3"],
    ) -> None:
        """The points of a scene; those without a class (-1) are ignored."""
        generator = make_generator("labelled features", self.seed, name)
        priority = torch.rand(len(label), dtype=torch.double, generator=generator)
        scene = torch.full_like(label, self._n_scenes)
        self._n_scenes += 1
        rows = [one[label >= 0] for one in (feature, label, coord, scene, priority)]
        self._count(rows[1])
        rows = _lowest(rows, self.per_class)
        self._rows = rows if not self._rows else _lowest(_concatenated(self._rows, rows), self.per_class)

    def points(self) -> LabelledFeatures:
        """What was kept, class by class. Raises ValueError where no scene was added."""
        if not self._rows:
            raise ValueError("expected at least one scene, got none")
        feature, label, coord, scene, _ = self._rows
        weight = self._n_seen.double() / torch.bincount(label, minlength=len(self._n_seen)).clamp(min=1)
        return LabelledFeatures(feature, label, coord, scene, weight.float()[label])

    def _count(self, label: Int[Tensor, " point"]) -> None:
        n_classes = max(len(self._n_seen), int(label.max()) + 1 if len(label) else 0)
        known = torch.zeros(n_classes, dtype=torch.long)
        known[: len(self._n_seen)] = self._n_seen
        self._n_seen = known + torch.bincount(label, minlength=n_classes)


def _concatenated(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
    return [torch.cat(pair) for pair in zip(before, after, strict=True)]


def _lowest(rows: list[Tensor], per_class: int) -> list[Tensor]:
    """The rows of lowest priority of every class, sorted by class and priority."""
    label, priority = rows[1], rows[4]
    order = torch.argsort(priority, stable=True)
    order = order[torch.argsort(label[order], stable=True)]
    count = torch.bincount(label)
    start = torch.cumsum(count, 0) - count
    rank = torch.arange(len(label)) - start[label[order]]
    kept = order[rank < per_class]
    return [one[kept] for one in rows]
