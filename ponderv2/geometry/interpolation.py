"""Weighted sums of rows of a matrix, and the same backwards: the inner loop of every volume lookup.

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

    @cached_property
    def order(self) -> Int[Tensor, " entry"]:
        """Positions in the flattened index, sorted by row."""
        return torch.argsort(self.index.reshape(-1), stable=True)

    @cached_property
    def ends(self) -> Int[Tensor, " bound"]:
        """Where the entries of each row begin in `order`, and the end of the last."""
        counts = torch.bincount(self.index.reshape(-1), minlength=self.n_rows)
        return F.pad(counts.cumsum(0), (1, 0))

    @cached_property
    def compact(self) -> tuple[Int[Tensor, " used"], RowIndex]:
        """The rows that occur, ascending, and the same index into them alone."""
        used = torch.nonzero(self.ends[1:] > self.ends[:-1])[:, 0]
        place = torch.empty(self.n_rows, dtype=self.index.dtype, device=self.index.device)
        place[used] = torch.arange(len(used), dtype=self.index.dtype, device=self.index.device)
        inner = RowIndex(place[self.index], len(used))
        bounds = torch.cat([self.ends[used], self.ends[-1:]])
        inner.__dict__["ends"] = bounds
        return used, inner


def weighted_sum(
    rows: Float[Tensor, "row channel"], coefficient: Float[Tensor, "point sum corner"], index: RowIndex
) -> Float[Tensor, "point sum channel"]:
    """sum_k coefficient[p, s, k] rows[index[p, k]]. Differentiable twice, in rows and coefficients."""
    return _Gather.apply(rows, coefficient, index)


def contracted_sum(
    rows: Float[Tensor, "row channel"],
    coefficient: Float[Tensor, "point sum corner"],
    index: RowIndex,
    vector: Float[Tensor, "point channel"],
) -> Float[Tensor, "point sum"]:
    """`weighted_sum` times a vector over channels; nothing of its size is kept for the backward pass.

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
            place = slice(start, start + block)
            part = RowIndex(index.index[place], index.n_rows)
            torch.bmm(
                _gather(rows, coefficient[place], part), vector[place, :, None], out=result[place, :, None]
            )
        return result

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None]:
        rows, coefficient, vector = ctx.saved_tensors
        mixed = torch.bmm(gradients[0][:, None, :], coefficient)  # the weight of each corner in the result
        for_rows = _scatter(vector[:, None, :], mixed, ctx.index) if ctx.needs_input_grad[0] else None
        for_vector = _gather(rows, mixed, ctx.index)[:, 0] if ctx.needs_input_grad[3] else None
        return for_rows, None, None, for_vector


@dataclass(frozen=True)
class Corners:
    """The 8 cells around each point, and how they are mixed there."""

    index: RowIndex
    """Into `FeatureVolume.rows`. Cells outside the volume have coefficient 0."""
    weight: Float[Tensor, "point 1 8"]
    slope: Float[Tensor, "point 3 8"]
    """Derivative of `weight` with respect to x, y, z of the point, in the frame of the rays."""


def corners_at(
    volume: FeatureVolume, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
) -> Corners:
    """The cells that a trilinear lookup at `points` reads.

    With `corners_are_centres` cells beyond the border count as zero. Without, the outer half cell repeats its
    cell centre's value and everything outside the box is zero. Differentiable with respect to the points.
    """
    size_z, size_y, size_x = volume.values.shape[2:]
    size = torch.tensor([size_x, size_y, size_z], device=points.device)
    per_unit, position = _cell_coordinates(volume, points, scene, size)
    inside = torch.ones_like(position, dtype=torch.bool)
    box = torch.ones_like(inside[:, :1])
    if not volume.corners_are_centres:
        box = ((position >= -0.5) & (position <= size - 0.5)).all(dim=-1, keepdim=True)
        inside = (position >= 0) & (position <= size - 1)  # beyond the outer centres nothing changes
        position = position.clamp(min=torch.zeros_like(size), max=size - 1)
    first = position.detach().floor().clamp(min=-2)
    if not volume.corners_are_centres:
        first = first.clamp(max=(size - 2).clamp(min=0))
    first = first.clamp(max=size + 1)
    fraction = position - first
    cell = first.long()[..., None] + torch.tensor([0, 1], device=points.device)
    exists = (cell >= 0) & (cell < size[:, None]) & box[..., None]
    mix = torch.stack([1.0 - fraction, fraction], dim=-1) * exists
    step = (per_unit * inside)[..., None] * points.new_tensor([-1.0, 1.0]) * exists
    cell = torch.minimum(cell.clamp(min=0), size[:, None] - 1)
    return Corners(_flat_index(volume, cell, scene), *_products(mix, step))


def _cell_coordinates(
    volume: FeatureVolume, points: Tensor, scene: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Cells per unit of length, and the position counted in cell centres."""
    intervals = size - 1 if volume.corners_are_centres else size
    per_unit = (intervals / (volume.upper - volume.lower).to(points.dtype))[scene]
    position = (points - volume.lower.to(points.dtype)[scene]) * per_unit
    return per_unit, position if volume.corners_are_centres else position - 0.5


def _flat_index(volume: FeatureVolume, cell: Tensor, scene: Tensor) -> RowIndex:
    _, _, size_z, size_y, size_x = volume.values.shape
    x, y, z = cell.unbind(dim=1)
    plane = (scene.long()[:, None] * size_z + z) * size_y
    index = (plane[:, :, None, None] + y[:, None, :, None]) * size_x + x[:, None, None, :]
    return RowIndex(index.reshape(-1, 8), volume.n_cells)


def _products(mix: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The 8 trilinear weights and their derivatives, from the two weights along each axis."""

    def product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).reshape(-1, 8)

    x, y, z = mix.unbind(dim=1)
    step_x, step_y, step_z = step.unbind(dim=1)
    slope = torch.stack([product(step_x, y, z), product(x, step_y, z), product(x, y, step_z)], dim=1)
    return product(x, y, z)[:, None], slope


def lookup(
    volume: FeatureVolume,
    points: Float[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    channels: slice = slice(None),
) -> Float[Tensor, "point channel"]:
    """Trilinear value at points of the ray frame; zero outside the volume (see `corners_at`)."""
    corners = corners_at(volume, points, scene)
    return weighted_sum(volume.rows(channels), corners.weight, corners.index)[:, 0]


def trilinear(
    volume: FeatureVolume,
    points: Float[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    channels: slice = slice(None),
) -> tuple[Float[Tensor, "point channel"], Float[Tensor, "point channel 3"]]:
    """Trilinear value, and its derivative with respect to the point in ray-frame units.

    Gradients reach the volume through both results, and the points through both (cross terms included).
    """
    corners = corners_at(volume, points, scene)
    both = torch.cat([corners.weight, corners.slope], dim=1)
    mixed = weighted_sum(volume.rows(channels), both, corners.index)
    return mixed[:, 0], mixed[:, 1:].transpose(1, 2)
