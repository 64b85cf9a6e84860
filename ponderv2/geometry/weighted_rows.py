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

BLOCK_POINTS = 4096
"""So many points are contracted at once on a CPU, so that the sums over their corners stay in its cache."""


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
