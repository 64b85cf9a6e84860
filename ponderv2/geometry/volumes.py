"""Feature volumes, dense and sparse, and their value and Jacobian at points."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ChannelMap:
    """A linear map of the channels that is the same in all cells: a 1x1x1 convolution."""

    weight: Float[Tensor, "out channel"]
    bias: Float[Tensor, " out"]

    def __call__(
        self, rows: Float[Tensor, "row channel"], part: slice = slice(None)
    ) -> Float[Tensor, "row _"]:
        """Of the results only those in `part`."""
        return F.linear(rows, self.weight[part], self.bias[part])


@dataclass(frozen=True)
class FeatureVolume:
    """One feature grid per scene, and the box that it covers in the frame of the rays."""

    values: Float[Tensor, "scene channel z y x"]
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    """Corners (x, y, z) of the box. With `corners_are_centres`, of the first and last cell *centres*."""
    corners_are_centres: bool = False
    """True: box corners are cell centres (align_corners), as published. False: box faces are cell faces."""
    last: ChannelMap | None = None
    """What is still to be applied to each cell that is read, so that the others never have their features."""

    @property
    def n_cells(self) -> int:
        """Cells of all scenes together."""
        return self.values.shape[0] * self.values[0, 0].numel()

    def rows(self, channels: slice = slice(None)) -> Float[Tensor, "cell channel"]:
        """The features, one row per cell in the order scene, z, y, x."""
        if self.last is not None:
            return self.last(self.value_rows(), channels)
        return self.value_rows(channels)

    def value_rows(self, channels: slice = slice(None)) -> Float[Tensor, "cell channel"]:
        """`values`, one row per cell: a copy, unless they are stored channels-last."""
        picked = self.values[:, channels]
        if picked.is_contiguous(memory_format=torch.channels_last_3d) or not self.values.is_contiguous():
            return picked.permute(0, 2, 3, 4, 1).reshape(self.n_cells, picked.shape[1])
        # plain transposes are several times faster than a permutation of five axes
        parts = [grid.flatten(1).T.contiguous() for grid in picked]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def used_rows(
    values: Float[Tensor, "scene channel z y x"], rows: tuple[Tensor, ...], used: Int[Tensor, " used"]
) -> tuple[Float[Tensor, "used _"], ...]:
    """`part[used]` for each part of `value_rows`, in order; the gradient goes to `values`.

    `used` names each cell once. The gradient is written once, in the memory format of `values`.
    """
    return _UsedRows.apply(values, used, *rows)


class _UsedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, used: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(used)
        ctx.shape = values.shape
        ctx.channels_first = values.is_contiguous()
        return tuple(part.index_select(0, used) for part in rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (used,) = ctx.saved_tensors
        scene, channel, z, y, x = ctx.shape
        dense = gradients[0].new_zeros(scene * z * y * x, channel)
        # Copied one by one: all of them side by side would be the largest array of a training step's peak.
        for part, gradient in zip(
            dense.split([one.shape[1] for one in gradients], dim=1), gradients, strict=True
        ):
            part.index_copy_(0, used, gradient)
        if ctx.channels_first:
            by_channel = dense.new_empty(scene, channel, z * y * x)
            for target, source in zip(by_channel, dense.view(scene, z * y * x, channel), strict=True):
                target.copy_(source.T)  # a plain transpose is several times faster than a permutation
            by_channel = by_channel.view(ctx.shape)
        else:
            by_channel = dense.view(scene, z, y, x, channel).permute(0, 4, 1, 2, 3)
        return by_channel, None, *(None for _ in gradients)


@dataclass(frozen=True)
class SparseVolume:
    """The occupied cells of one grid per scene; all others are zero. The boxes are those of the grids."""

    rows: Float[Tensor, "cell channel"]
    number: Int[Tensor, " cell"]
    """`((scene * size_z + z) * size_y + y) * size_x + x`, ascending."""
    shape: tuple[int, int, int, int]
    """Scenes, and cells along z, y, x."""
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    corners_are_centres: bool = False
    """As in `FeatureVolume`."""

    @property
    def n_cells(self) -> int:
        """Occupied and empty ones."""
        return prod(self.shape)

    def dense(self) -> Float[Tensor, "scene channel z y x"]:
        """With the empty cells; the channel is last in memory."""
        empty = self.rows.new_zeros(self.n_cells, self.rows.shape[1])
        return empty.index_copy(0, self.number, self.rows).view(*self.shape, -1).permute(0, 4, 1, 2, 3)

    def volume(self) -> FeatureVolume:
        """The dense volume."""
        return self.with_values(self.dense())

    def with_values(self, values: Float[Tensor, "scene channel z y x"]) -> FeatureVolume:
        """Other features of all cells, in the same boxes."""
        return FeatureVolume(values, self.lower, self.upper, self.corners_are_centres)
