"""The point of a set that is nearest to a place, where one is within reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from scipy.spatial import KDTree


@dataclass(frozen=True)
class NearestPoints:
    """Points that are looked up by place, exactly. A value that can be pickled."""

    tree: KDTree | None
    """Of the points; None of no points."""
    reach: float
    """Points as far away as this, or farther, are not found; in the unit of the points."""

    @staticmethod
    def of(points: Float[Tensor, "point 3"], reach: float) -> NearestPoints:
        """Raises ValueError for points that are not finite."""
        from scipy.spatial import KDTree

        return NearestPoints(KDTree(points.numpy()) if len(points) else None, reach)

    def __len__(self) -> int:
        return 0 if self.tree is None else int(self.tree.n)

    def rows(self, places: Float[Tensor, "query 3"]) -> Int[Tensor, " query"]:
        """Number of the nearest point of each place, -1 where none is within reach."""
        if self.tree is None or len(places) == 0:
            return torch.full((len(places),), -1)
        distance, row = self.tree.query(places.numpy(), distance_upper_bound=self.reach)
        return torch.from_numpy(np.where(np.isfinite(distance), row, -1))
