"""Errors of predicted depth over measured pixels: AbsRel, RMSE, delta < 1.25 (Eigen et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CLOSE = 1.25
"""Ratio below which a depth counts as right."""


@dataclass(frozen=True)
class DepthSums:
    """Sums over measured pixels, from which the metrics of any number of images follow."""

    n_pixels: int = 0
    relative: float = 0.0
    """Of |d - d*| / d*."""
    squared: float = 0.0
    """Of (d - d*)^2, square metres."""
    n_close: int = 0
    """Pixels with max(d / d*, d* / d) < 1.25."""

    @staticmethod
    def of(depth: Float[Tensor, " pixel"], truth: Float[Tensor, " pixel"]) -> DepthSums:
        """Of pixels with their predicted and measured depths, all above 0, metres. In double precision."""
        depth, truth = depth.double(), truth.double()
        error = depth - truth
        close = torch.maximum(depth / truth, truth / depth) < CLOSE
        return DepthSums(
            len(truth), float((error.abs() / truth).sum()), float(error.square().sum()), int(close.sum())
        )

    @staticmethod
    def total(parts: Iterable[DepthSums]) -> DepthSums:
        """Of all images together: every pixel counts alike."""
        every = list(parts)
        return DepthSums(
            sum(one.n_pixels for one in every),
            sum(one.relative for one in every),
            sum(one.squared for one in every),
            sum(one.n_close for one in every),
        )

    def metrics(self) -> dict[str, float]:
        """abs_rel (mean relative error), rmse (metres), delta1 (share of pixels); nan without a pixel."""
        if not self.n_pixels:
            return {"abs_rel": math.nan, "rmse": math.nan, "delta1": math.nan}
        return {
            "abs_rel": self.relative / self.n_pixels,
            "rmse": math.sqrt(self.squared / self.n_pixels),
            "delta1": self.n_close / self.n_pixels,
        }
