"""Predicted boxes matched to true ones by the distance of their centres, as the nuScenes benchmark does.

Per class, predictions of all samples come by score; each takes the nearest true box of its sample that is
still free. Samples do not influence each other: what is done here one after another are the ranks of the
predictions in their samples, and all samples of a rank are matched at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

AT_ONCE = 2_000_000
"""Pairs whose distances are computed together."""


@dataclass(frozen=True)
class BoxTable:
    """Boxes of all samples, one after another in the order of the samples. Metres, double precision."""

    sample: Int[ndarray, " box"]
    """Never falls."""
    center: Float64[ndarray, "box 3"]
    size: Float64[ndarray, "box 3"]
    """Length along the heading, width, height."""
    yaw: Float64[ndarray, " box"]
    velocity: Float64[ndarray, "box 2"]
    """nan = unknown."""
    category: Int[ndarray, " box"]
    attribute: Int[ndarray, " box"]
    """-1 = none."""
    score: Float64[ndarray, " box"]
    """0 for true boxes."""

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, index: Int[ndarray, " chosen"] | Bool[ndarray, " box"]) -> BoxTable:
        """The chosen boxes; in their order, where they are to be matched."""
        return BoxTable(
            self.sample[index],
            self.center[index],
            self.size[index],
            self.yaw[index],
            self.velocity[index],
            self.category[index],
            self.attribute[index],
            self.score[index],
        )


@dataclass(frozen=True)
class Pairs:
    """Predictions and true boxes of one sample that are near each other: by rank, prediction and distance."""

    rank: Int[ndarray, " pair"]
    """Of the prediction among those of its sample, the surest first."""
    found: Int[ndarray, " pair"]
    true: Int[ndarray, " pair"]
    distance: Float64[ndarray, " pair"]

    def below(self, distance: float) -> Pairs:
        """Those nearer than this."""
        near = self.distance < distance
        return Pairs(self.rank[near], self.found[near], self.true[near], self.distance[near])


def by_score(score: Float64[ndarray, " box"]) -> Int[ndarray, " box"]:
    """The surest first; of equal ones the later first, as the benchmark has it."""
    return np.lexsort((-np.arange(len(score)), -score))


def match(found: BoxTable, true: BoxTable, distances: Sequence[float]) -> Int[ndarray, "distance found"]:
    """Index of the true box of each prediction for each largest distance (exclusive), -1 = none.

    Args:
        found: Predictions of one class.
        true: Boxes of this class.
        distances: Metres between centres, seen from above.
    """
    partner = np.full((len(distances), len(found)), -1)
    if not len(found) or not len(true):
        return partner
    pairs = near_pairs(found, true, max(distances))
    for row, distance in enumerate(distances):
        near = pairs.below(distance)
        taken = np.zeros(len(true), bool)
        cuts = [0, *(np.flatnonzero(np.diff(near.rank)) + 1).tolist(), len(near.rank)]
        for start, end in pairwise(cuts):
            here, there = near.found[start:end], near.true[start:end]
            free = ~taken[there]
            here, there = here[free], there[free]
            nearest = np.diff(here, prepend=-1) != 0
            partner[row, here[nearest]] = there[nearest]
            taken[there[nearest]] = True
    return partner


def near_pairs(found: BoxTable, true: BoxTable, distance: float) -> Pairs:
    """All pairs of one sample that are nearer than this, seen from above."""
    first = np.searchsorted(true.sample, found.sample, "left")
    count = np.searchsorted(true.sample, found.sample, "right") - first
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(AT_ONCE, total[-1], AT_ONCE), "right").tolist()
    parts = []
    for start, end in pairwise([0, *cuts, len(found)]):
        number = count[start:end]
        here = np.repeat(np.arange(start, end), number)
        begins = np.cumsum(number) - number
        there = first[here] + np.arange(len(here)) - begins[here - start]
        away = found.center[here, :2] - true.center[there, :2]
        far = np.sqrt(away[:, 0] ** 2 + away[:, 1] ** 2)
        near = far < distance
        parts.append((here[near], there[near], far[near]))
    here, there, far = (np.concatenate(column) for column in zip(*parts, strict=True))
    rank = _rank_in_sample(found)[here]
    order = np.lexsort((there, far, here, rank))
    return Pairs(rank[order], here[order], there[order], far[order])


def _rank_in_sample(found: BoxTable) -> Int[ndarray, " found"]:
    order = by_score(found.score)
    order = order[np.argsort(found.sample[order], kind="stable")]
    sample = found.sample[order]
    rank = np.empty(len(found), np.int64)
    rank[order] = np.arange(len(found)) - np.searchsorted(sample, sample, "left")
    return rank
