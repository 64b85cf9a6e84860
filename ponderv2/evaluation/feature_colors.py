"""Features as colours: three principal components as red, green and blue.

The axes of one `FeatureAxes` are the same for every cloud, so that equal colours are equal features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import permutations

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

SHARES = (0.02, 0.5, 0.98)
"""Share of the features below black, half and full of a colour: neither a few wild features nor a lopsided
distribution leaves the rest in the dark."""
UNKNOWN = 40
"""Grey of points without a feature."""


@dataclass(frozen=True)
class FeatureAxes:
    """A map from features to colours. Double precision."""

    mean: Float[Tensor, " channel"]
    axes: Float[Tensor, "channel color"]
    """Orthonormal columns, the largest variance first; zero where there are fewer than three."""
    low: Float[Tensor, " color"]
    middle: Float[Tensor, " color"]
    high: Float[Tensor, " color"]

    def components(self, feature: Float[Tensor, "row channel"]) -> Float[Tensor, "row color"]:
        """Coordinates along the axes."""
        return (feature.double() - self.mean) @ self.axes

    def colors(self, feature: Float[Tensor, "row channel"]) -> UInt8[ndarray, "row 3"]:
        """0..255: black at `low`, half at `middle`, full at `high`, linear between; dark grey for rows that
        are not finite."""
        value = self.components(feature) - self.middle
        extent = torch.where(value < 0, self.middle - self.low, self.high - self.middle)
        share = 0.5 + 0.5 * value / extent.clamp(min=1e-12)
        color = (share.nan_to_num(0.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        color[~feature.isfinite().all(dim=1)] = UNKNOWN
        return color.numpy()


def fit_axes(samples: Iterable[Float[Tensor, "_row channel"]]) -> FeatureAxes:
    """The first three principal components of all rows, each turned so that its largest weight is positive.

    Rows that are not finite are left out. Raises ValueError where none are left.
    """
    rows = torch.cat([one.double() for one in samples])
    rows = rows[rows.isfinite().all(dim=1)]
    if len(rows) == 0:
        raise ValueError("expected features, got no finite row")
    mean = rows.mean(dim=0)
    variance, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    axes = vectors.flip(1)[:, :3]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    axes = axes * (variance.flip(0)[:3] > 1e-12 * variance.sum().clamp(min=1e-300))
    if axes.shape[1] < 3:
        axes = torch.cat([axes, axes.new_zeros(len(axes), 3 - axes.shape[1])], dim=1)
    limits = torch.quantile((rows - mean) @ axes, torch.tensor(SHARES, dtype=rows.dtype), dim=0)
    return FeatureAxes(mean, axes, limits[0], limits[1], limits[2])


def aligned(
    axes: FeatureAxes, feature: Float[Tensor, "row channel"], reference: Float[Tensor, "row color"]
) -> FeatureAxes:
    """The axes of another encoder in the order and with the signs that agree best with a reference.

    `feature` and `reference` (components of the reference encoder) are of the same points. Colours of two
    encoders mean different things; so they differ no more than they have to.
    """
    found, wanted = (_standardised(one) for one in (axes.components(feature), reference))
    correlation = found.T @ wanted / len(found)
    order = max(permutations(range(3)), key=lambda one: float(correlation[list(one), range(3)].abs().sum()))
    chosen = list(order)
    sign = torch.where(correlation[chosen, range(3)] < 0, -1.0, 1.0).double()
    low, middle, high = (limit[chosen] * sign for limit in (axes.low, axes.middle, axes.high))
    return replace(
        axes,
        axes=axes.axes[:, chosen] * sign,
        low=torch.minimum(low, high),
        middle=middle,
        high=torch.maximum(low, high),
    )


def _standardised(values: Float[Tensor, "row color"]) -> Float[Tensor, "row color"]:
    values = values - values.mean(dim=0)
    return values / values.std(dim=0).clamp(min=1e-12)
