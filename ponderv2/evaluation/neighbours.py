"""Nearest neighbours in feature space: a probe without training, and how often neighbours share a label.

Features are compared by their cosine, exactly: every query with every row of the bank, some queries at a
time. Everything runs on the device of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAIRS_AT_ONCE = 2**24
"""Similarities that are held at the same time: 64 MiB."""


@dataclass(frozen=True)
class Neighbours:
    """The rows of a bank that are most similar to each query, the nearest first."""

    index: Int[Tensor, "query neighbour"]
    """Rows of the bank."""
    similarity: Float[Tensor, "query neighbour"]
    """Cosine, -1..1; -inf where the bank has no further row that is allowed."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Points of several scenes with a feature and a class each."""

    feature: Float[Tensor, "point channel"]
    label: Int[Tensor, " point"]
    coord: Float[Tensor, "point 3"]
    """Metres, in the frame of the scene of the point."""
    scene: Int[Tensor, " point"]
    """Which scene the point is of."""
    weight: Float[Tensor, " point"]
    """For how many points of its class it stands; 1 where the points are all that there are."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.feature, self.label, self.coord, self.scene, self.weight

    @staticmethod
    def cat(every: Sequence[LabelledFeatures]) -> LabelledFeatures:
        """The points of all."""
        return LabelledFeatures(*map(torch.cat, zip(*(one._parts for one in every), strict=True)))

    def to(self, device: torch.device | str) -> LabelledFeatures:
        """The same on a device."""
        return LabelledFeatures(*(one.to(device) for one in self._parts))


def nearest_neighbours(
    query: Float[Tensor, "query channel"],
    bank: Float[Tensor, "row channel"],
    k: int,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Neighbours:
    """The `k` rows with the largest cosine, of a smaller bank all. A feature of zeros is similar to nothing.

    Raises ValueError for an empty bank.
    """
    if not len(bank):
        raise ValueError("expected a bank of at least one row, got none")
    unit = F.normalize(bank, dim=1)
    found = [
        _largest(F.normalize(query[part], dim=1) @ unit.T, k)
        for part in _parts(len(query), len(bank), pairs_at_once)
    ]
    return _joined(found, min(k, len(bank)), query)


def knn_classes(
    query: Float[Tensor, "query channel"],
    bank: LabelledFeatures,
    n_classes: int,
    k: int,
    temperature: float,
) -> Int[Tensor, " query"]:
    """The class with the largest sum of exp(cosine / temperature) among the `k` nearest rows.

    The weighted vote of Wu et al. 2018 (instance discrimination), as DINO evaluates its features.
    """
    found = nearest_neighbours(query, bank.feature, k)
    # Subtracting the largest changes no vote and keeps the exponential finite.
    weight = torch.exp((found.similarity - found.similarity[:, :1]) / temperature)
    votes = weight.new_zeros(len(query), n_classes)
    return votes.scatter_add_(1, bank.label[found.index], weight).argmax(dim=1)


@dataclass(frozen=True)
class Purity:
    """Shares, 0..1: how many of a point's nearest neighbours in feature space have its class."""

    of_class: Float[Tensor, " class"]
    """Mean over the points of a class; nan where none was counted."""
    chance: Float[Tensor, " class"]
    """The same for neighbours drawn at random from those that are allowed."""
    n_counted: Int[Tensor, " class"]
    """Points that have at least `k` allowed neighbours of their class, so that 1 can be reached."""
    weight: Float[Tensor, " class"]
    """For how many points these stand."""

    @property
    def mean(self) -> float:
        """Over classes; nan where no point was counted."""
        return float(self.of_class.nanmean())

    @property
    def mean_chance(self) -> float:
        """The same of random neighbours."""
        return float(self.chance.nanmean())

    @property
    def over_points(self) -> float:
        """Over the points that the counted ones stand for, so that large classes count most."""
        return float((self.of_class.nan_to_num() * self.weight).sum() / self.weight.sum())


def neighbour_purity(
    points: LabelledFeatures,
    n_classes: int,
    k: int,
    distance: float,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Purity:
    """Share of the `k` nearest neighbours in feature space that have the class of the point.

    Neighbours are points of other scenes, or at least `distance` metres away: what lies close has a similar
    feature whatever was learned. Points whose class has fewer than `k` such neighbours are not counted.
    Needs no training. A distance of inf leaves the other scenes alone.
    """
    share = points.feature.new_zeros(len(points))
    chance, same_class = share.clone(), torch.zeros_like(points.label)
    unit = F.normalize(points.feature, dim=1)
    for part in _parts(len(points), len(points), pairs_at_once):
        allowed = _allowed(points, part, distance)
        same = points.label[part, None] == points.label
        same_class[part] = (same & allowed).sum(dim=1)
        chance[part] = same_class[part] / allowed.sum(dim=1).clamp(min=1)
        similarity = (unit[part] @ unit.T).masked_fill_(~allowed, -torch.inf)
        nearest = _largest(similarity, k)
        hit = (points.label[nearest.index] == points.label[part, None]) & nearest.similarity.isfinite()
        share[part] = hit.sum(dim=1) / k
    counted = same_class >= k
    label = points.label[counted]
    n_counted = torch.bincount(label, minlength=n_classes)

    def mean(values: Tensor) -> Tensor:
        total = torch.bincount(label, values[counted].double(), minlength=n_classes)
        return torch.where(n_counted > 0, total / n_counted, torch.nan)

    weight = torch.bincount(label, points.weight[counted].double(), minlength=n_classes).double()
    return Purity(mean(share), mean(chance), n_counted, weight)


def _allowed(points: LabelledFeatures, part: slice, distance: float) -> Bool[Tensor, "query point"]:
    """Which points may be neighbours of some of them; never a point of itself."""
    apart = torch.cdist(
        points.coord[part].double(),
        points.coord.double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    allowed = (points.scene[part, None] != points.scene) | (apart >= distance)
    return allowed.diagonal_scatter(allowed.new_zeros(len(allowed)), part.start)


def _largest(similarity: Float[Tensor, "query row"], k: int) -> Neighbours:
    value, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
    return Neighbours(index, value)


def _joined(parts: list[Neighbours], k: int, like: Tensor) -> Neighbours:
    if not parts:
        return Neighbours(like.new_zeros(0, k, dtype=torch.long), like.new_zeros(0, k))
    return Neighbours(torch.cat([one.index for one in parts]), torch.cat([one.similarity for one in parts]))


def _parts(n_queries: int, n_rows: int, pairs_at_once: int) -> Iterator[slice]:
    size = max(pairs_at_once // max(n_rows, 1), 1)
    return (slice(start, start + size) for start in range(0, n_queries, size))
