"""Gather, multiply, scatter in plain torch: any device, own backward, the same bits at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ponderv2.sparse import gather_gemm_scatter as by_entry
from ponderv2.sparse.kernel_maps import KernelMap, Level

CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}
"""How many gathered numbers are multiplied at once: small enough for the caches of a CPU."""
WIDE = 16 * 16
"""From this many weights per entry it pays to leave out absent neighbours (two thirds of 27 on surfaces)."""


def submanifold(
    feature: Float[Tensor, "voxel channel"], weight: Float[Tensor, "out kx ky kz channel"], level: Level
) -> Float[Tensor, "voxel out"]:
    """y[p] = sum_k W[:, k] x[p + k - (size - 1) / 2] over occupied voxels, on the same voxels."""
    return convolve(feature, weight, level.submanifold(weight.shape[1:4]))


def strided(
    feature: Float[Tensor, "voxel channel"],
    weight: Float[Tensor, "out kx ky kz channel"],
    stride: int | Sequence[int],
    level: Level,
) -> Float[Tensor, "coarse out"]:
    """y[q] = sum_k W[:, k] x[stride * q + k], on the voxels of `level.strided(...)`."""
    return convolve(feature, weight, level.strided(weight.shape[1:4], stride)[0])


def inverse(
    feature: Float[Tensor, "coarse channel"],
    weight: Float[Tensor, "out kx ky kz channel"],
    stride: int | Sequence[int],
    level: Level,
) -> Float[Tensor, "voxel out"]:
    """y[p] = sum_k W[:, k] x[(p - k) / stride], on the voxels of `level`: back from `strided`.

    Voxels that the strided convolution dropped get zero.
    """
    return convolve(feature, weight, level.strided(weight.shape[1:4], stride)[0].transposed)


def convolve(
    feature: Float[Tensor, "input channel"],
    weight: Float[Tensor, "out kx ky kz channel"],
    kernel_map: KernelMap,
) -> Float[Tensor, "output out"]:
    """Every output row is the sum over kernel entries of its input row times the weight of the entry."""
    if len(feature) != kernel_map.n_in:
        raise ValueError(f"expected {kernel_map.n_in} rows of features, got {len(feature)}")
    kind = feature.device.type
    if torch.is_autocast_enabled(kind):
        feature, weight = (tensor.to(torch.get_autocast_dtype(kind)) for tensor in (feature, weight))
    entries = weight.flatten(1, 3)
    if entries.stride(-1) != 1:
        entries = entries.contiguous()
    return _SparseConvolution.apply(feature, entries, kernel_map)  # type: ignore[return-value]


class _SparseConvolution(torch.autograd.Function):
    """The gradient of the features is the convolution along the transposed map."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(feature, weight)
        ctx.kernel_map = kernel_map
        if _is_wide(weight):
            return by_entry.convolve(feature, weight, kernel_map)
        return _im2col_convolve(feature, weight.flatten(1).t(), kernel_map.table)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        feature, weight = ctx.saved_tensors
        grad = grad.contiguous()
        needs_feature, needs_weight = ctx.needs_input_grad[:2]
        if _is_wide(weight):
            needs = (needs_feature, needs_weight)
            return *by_entry.gradients(feature, grad, weight, ctx.kernel_map, needs), None
        grad_feature = grad_weight = None
        if needs_feature:
            matrix = weight.transpose(0, 1).flatten(0, 1)
            grad_feature = _im2col_convolve(grad, matrix, ctx.kernel_map.mirrored)
        if needs_weight:
            grad_weight = _im2col_weight_gradient(feature, grad, ctx.kernel_map)
        return grad_feature, grad_weight, None


def _is_wide(weight: Float[Tensor, "out entry in"]) -> bool:
    return weight.shape[0] * weight.shape[2] >= WIDE and weight.shape[1] > 1


def _im2col_convolve(
    x: Float[Tensor, "input in"], matrix: Float[Tensor, "entry_in out"], table: Int[Tensor, "output entry"]
) -> Float[Tensor, "output out"]:
    """One product for all entries together, with zeros for absent neighbours."""
    y = x.new_empty(len(table), matrix.shape[1])
    for rows, gathered in _im2col(x, table):
        torch.mm(gathered, matrix, out=y[rows])
    return y


def _im2col(x: Tensor, table: Int[Tensor, "output entry"]) -> Iterator[tuple[slice, Tensor]]:
    """Slices of output rows with their input rows side by side, [rows, entry * in]; zeros for none."""
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    width = table.shape[1] * x.shape[1]
    budget = CHUNK_ELEMENTS["cpu" if x.device.type == "cpu" else "cuda"]
    step = max(64, budget // max(width, 1))
    for start in range(0, len(table), step):
        part = table[start : start + step]
        yield slice(start, start + step), padded.index_select(0, part.reshape(-1)).view(len(part), width)


def _im2col_weight_gradient(x: Tensor, grad: Tensor, kernel_map: KernelMap) -> Float[Tensor, "out entry in"]:
    """dW[:, k] = sum over pairs of grad[output]^T x[input], summed in float32 or better."""
    n_entries, n_channels, n_out_channels = kernel_map.n_entries, x.shape[1], grad.shape[1]
    sum_type = torch.promote_types(x.dtype, torch.float32)
    if kernel_map.n_out * n_channels <= kernel_map.n_in * n_out_channels:
        total = x.new_zeros(n_out_channels, n_entries * n_channels, dtype=sum_type)
        for rows, gathered in _im2col(x, kernel_map.table):
            by_entry.add_product(total, grad[rows].t(), gathered)
        result = total.view(n_out_channels, n_entries, n_channels)
    else:
        total = x.new_zeros(n_channels, n_entries * n_out_channels, dtype=sum_type)
        for rows, gathered in _im2col(grad, kernel_map.mirrored):
            by_entry.add_product(total, x[rows].t(), gathered)
        result = total.view(n_channels, n_entries, n_out_channels).permute(2, 1, 0)
    return result.to(x.dtype)
