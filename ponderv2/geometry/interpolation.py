"""Trilinear interpolation in feature volumes, as weighted sums of rows of a matrix.

Both directions are one call of `embedding_bag`, which reads each row once and writes only the sum. The
backward pass sorts by row instead of adding atomically, so it is deterministic on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.geometry.volumes import FeatureVolume

BLOCK_POINTS = 4096
"""Points contracted at once on a CPU, so that the sums over their corners stay in its cache."""


@dataclass(frozen=True)
class RowIndex:
    """Which rows of a matrix of `n_rows` rows belong to each point."""

    index: Int[Tensor, "point corner"]
    n_rows: int
    known_ends: Int[Tensor, " bound"] | None = None
    """`ends`, where they follow from those of another index."""

    @cached_property
    def order(self) -> Int[Tensor, " entry"]:
        """Positions in the flattened index, sorted by row."""
        return torch.argsort(self.index.reshape(-1), stable=True)

    @cached_property
    def ends(self) -> Int[Tensor, " bound"]:
        """Where the entries of each row begin in `order`, and the end of the last."""
        if self.known_ends is not None:
            return self.known_ends
        counts = torch.bincount(self.index.reshape(-1), minlength=self.n_rows)
        return F.pad(counts.cumsum(0), (1, 0))

    @cached_property
    def compact(self) -> tuple[Int[Tensor, " used"], RowIndex]:
        """The rows that occur, ascending, and the same index into them alone."""
        used = torch.nonzero(self.ends[1:] > self.ends[:-1])[:, 0]
        position = torch.empty(self.n_rows, dtype=self.index.dtype, device=self.index.device)
        position[used] = torch.arange(len(used), dtype=self.index.dtype, device=self.index.device)
        ends = torch.cat([self.ends[used], self.ends[-1:]])
        return used, RowIndex(position[self.index], len(used), ends)


def weighted_sum(
    rows: Float[Tensor, "row channel"], coefficient: Float[Tensor, "point sum corner"], index: RowIndex
) -> Float[Tensor, "point sum channel"]:
    """sum_k coefficient[p, s, k] rows[index[p, k]]. Differentiable twice, in rows and coefficients."""
    if not torch.is_grad_enabled():
        return _gather(rows, coefficient, index)  # without the cost of a function with a backward pass
    return _Gather.apply(rows, coefficient, index)


def contracted_sum(
    rows: Float[Tensor, "row channel"],
    coefficient: Float[Tensor, "point sum corner"],
    index: RowIndex,
    vector: Float[Tensor, "point channel"],
) -> Float[Tensor, "point sum"]:
    """`weighted_sum` times a vector over channels; nothing of its size is saved for the backward pass.

    Differentiable once in rows and vector; where the coefficients need a gradient, by plain operations.
    """
    if coefficient.requires_grad:
        return (weighted_sum(rows, coefficient, index) * vector[:, None, :]).sum(-1)
    return _Contract.apply(rows, coefficient, index, vector)


def _gather(rows: Tensor, coefficient: Tensor, index: RowIndex) -> Tensor:
    n_points, n_sums, n_corners = coefficient.shape
    if n_points == 0:
        return rows.new_zeros(0, n_sums, rows.shape[1])
    bags = index.index[:, None, :].expand(-1, n_sums, -1).reshape(-1, n_corners)
    weights = coefficient.reshape(-1, n_corners).contiguous()
    return F.embedding_bag(bags, rows, mode="sum", per_sample_weights=weights).view(n_points, n_sums, -1)


def _scatter(source: Tensor, coefficient: Tensor, index: RowIndex) -> Tensor:
    n_points, n_sums, n_corners = coefficient.shape
    if n_points == 0:
        return source.new_zeros(index.n_rows, source.shape[-1])
    point = torch.div(index.order, n_corners, rounding_mode="floor")
    bags = point
    if n_sums > 1:
        bags = (point[:, None] * n_sums + torch.arange(n_sums, device=point.device)).reshape(-1)
    weights = coefficient.transpose(1, 2).reshape(-1, n_sums)[index.order].reshape(-1)
    flat = source.reshape(n_points * n_sums, -1).contiguous()
    return F.embedding_bag(
        bags, flat, index.ends * n_sums, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, coefficient: Tensor, index: RowIndex) -> Tensor:
        ctx.save_for_backward(rows, coefficient)
        ctx.index = index
        return _gather(rows, coefficient, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, coefficient = ctx.saved_tensors
        gradient, index = gradients[0], ctx.index
        for_rows = _Scatter.apply(gradient, coefficient, index) if ctx.needs_input_grad[0] else None
        for_coefficient = gradient @ rows[index.index].transpose(1, 2) if ctx.needs_input_grad[1] else None
        return for_rows, for_coefficient, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, coefficient: Tensor, index: RowIndex) -> Tensor:
        ctx.save_for_backward(source, coefficient)
        ctx.index = index
        return _scatter(source, coefficient, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        source, coefficient = ctx.saved_tensors
        gradient, index = gradients[0], ctx.index
        for_source = _Gather.apply(gradient, coefficient, index) if ctx.needs_input_grad[0] else None
        for_coefficient = source @ gradient[index.index].transpose(1, 2) if ctx.needs_input_grad[1] else None
        return for_source, for_coefficient, None


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, coefficient: Tensor, index: RowIndex, vector: Tensor) -> Tensor:
        ctx.save_for_backward(rows, coefficient, vector)
        ctx.index = index
        block = BLOCK_POINTS if rows.device.type == "cpu" else max(len(vector), 1)
        result = vector.new_empty(coefficient.shape[:2])
        for start in range(0, len(vector), block):
            points = slice(start, start + block)
            part = RowIndex(index.index[points], index.n_rows)
            torch.bmm(
                _gather(rows, coefficient[points], part), vector[points, :, None], out=result[points, :, None]
            )
        return result

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None]:
        rows, coefficient, vector = ctx.saved_tensors
        weight = torch.bmm(gradients[0][:, None, :], coefficient)  # the weight of each corner in the result
        for_rows = _scatter(vector[:, None, :], weight, ctx.index) if ctx.needs_input_grad[0] else None
        for_vector = _gather(rows, weight, ctx.index)[:, 0] if ctx.needs_input_grad[3] else None
        return for_rows, None, None, for_vector


@dataclass(frozen=True)
class TrilinearCorners:
    """The 8 cells around each point, and how they are weighted there."""

    index: RowIndex
    """Into `FeatureVolume.rows`, x fastest. Cells outside the volume have coefficient 0."""
    coefficient: Float[Tensor, "point sum 8"]
    """Sum 0 gives the value at the point; sums 1 to 3, where asked for, its derivative by x, y, z."""

    @property
    def weight(self) -> Float[Tensor, "point 1 8"]:
        """The coefficients of the value."""
        return self.coefficient[:, :1]

    @property
    def slope(self) -> Float[Tensor, "point 3 8"]:
        """Those of the derivatives."""
        return self.coefficient[:, 1:]

    def part(self, points: slice) -> TrilinearCorners:
        """Of some of the points."""
        return TrilinearCorners(
            RowIndex(self.index.index[points], self.index.n_rows), self.coefficient[points]
        )

    def interpolate(
        self, rows: Float[Tensor, "row channel"], n_sums: int | None = None
    ) -> Float[Tensor, "point sum channel"]:
        """The first `n_sums` sums over rows of the cells, or all: the value, then its derivatives.

        Differentiable with respect to the rows and, through the coefficients, the points (also twice).
        """
        return weighted_sum(rows, self.coefficient[:, :n_sums], self.index)


def corners_at(
    volume: FeatureVolume, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
) -> TrilinearCorners:
    """The cells that a trilinear look-up at points of the rays' frame reads; derivatives are in its units.

    Differentiable with respect to the points.
    """
    intervals = _intervals(volume, points)
    lower, edge = volume.lower.to(points), (volume.upper - volume.lower).to(points)
    per_unit = (intervals / edge.T).index_select(1, scene)
    position = (points.T - lower.T.index_select(1, scene)) * per_unit
    return corners_at_cells(
        volume, position if volume.corners_are_centres else position - 0.5, scene, per_unit
    )


def corners_in_box(
    volume: FeatureVolume,
    position: Float[Tensor, "3 point"],
    scene: Int[Tensor, " point"],
    with_slope: bool,
) -> TrilinearCorners:
    """The same for positions 0..1 in the box of the volume; derivatives are per edge of the box."""
    intervals = _intervals(volume, position)
    cells = position * intervals if volume.corners_are_centres else position * intervals - 0.5
    return corners_at_cells(volume, cells, scene, intervals if with_slope else None)


def corners_at_cells(
    volume: FeatureVolume,
    position: Float[Tensor, "3 point"],
    scene: Int[Tensor, " point"],
    scale: Float[Tensor, "3 #point"] | None,
) -> TrilinearCorners:
    """For positions counted in cells, 0 at the centre of the first; `scale`: cells per unit of derivatives.

    With `corners_are_centres` cells beyond the border count as zero. Without, the outer half cell repeats its
    cell centre's value and everything outside the box is zero. Axis by axis, which is several times faster
    on a CPU than point by point.
    """
    size = _size(volume, position)
    if volume.corners_are_centres:
        first = position.detach().floor().clamp(min=-2).minimum(size + 1)
        low_exists, high_exists = _within(first, 0.0, size - 1), _within(first, -1.0, size - 2)
        varies = scale
    else:
        box = _within(position.detach(), -0.5, size - 0.5)
        low_exists = box[0] * box[1] * box[2]
        high_exists = low_exists * (size > 1)
        varies = None if scale is None else _within(position.detach(), 0.0, size - 1) * scale
        position = position.clamp(min=0).minimum(size - 1)  # beyond the outer centres nothing changes
        first = position.detach().floor().minimum((size - 2).clamp(min=0))
    fraction = position - first
    weight = torch.stack([(1.0 - fraction) * low_exists, fraction * high_exists])
    x, y, z = weight.unbind(dim=1)
    products = [corner_products(x, y, z)]
    if varies is not None:
        slope = torch.stack([varies * -low_exists, varies * high_exists])
        products += [
            corner_products(slope[:, 0], y, z),
            corner_products(x, slope[:, 1], z),
            corner_products(x, y, slope[:, 2]),
        ]
    coefficient = torch.cat(products).T.contiguous().unflatten(1, (len(products), 8))
    return TrilinearCorners(_row_index(volume, first, size, scene), coefficient)


def corner_products(
    x: Float[Tensor, "2 point"], y: Float[Tensor, "2 point"], z: Float[Tensor, "2 point"]
) -> Float[Tensor, "8 point"]:
    """Of the two factors along each axis, x fastest."""
    return ((z[:, None] * y)[:, :, None] * x).flatten(0, 2)


def _size(volume: FeatureVolume, like: Tensor) -> Float[Tensor, "3 1"]:
    return like.new_tensor(tuple(reversed(volume.values.shape[2:])))[:, None]


def _intervals(volume: FeatureVolume, like: Tensor) -> Float[Tensor, "3 1"]:
    """Cells along the edges x, y, z of the box."""
    return _size(volume, like) - 1 if volume.corners_are_centres else _size(volume, like)


def _within(value: Tensor, lowest: float, highest: Tensor) -> Tensor:
    """1 where lowest <= value <= highest, else 0, without comparisons, which are several times slower."""
    above = value if lowest == 0.0 else value - lowest
    return (highest - value).mul_(above).sign_().add_(1.0).clamp_(max=1.0)


def _row_index(volume: FeatureVolume, first: Tensor, size: Tensor, scene: Tensor) -> RowIndex:
    whole = torch.int32 if volume.n_cells < 2**31 else torch.int64
    ends = torch.stack([first, first + 1]).clamp(min=0).minimum(size - 1).to(whole)
    size_z, size_y, size_x = volume.values.shape[2:]
    x, y, z = ends[:, 0], ends[:, 1] * size_x, ends[:, 2] * (size_x * size_y)
    if len(volume.values) > 1:
        z = z + scene.to(whole) * (size_x * size_y * size_z)
    index = ((z[:, None] + y)[:, :, None] + x).flatten(0, 2).T.contiguous()
    return RowIndex(index, volume.n_cells)
