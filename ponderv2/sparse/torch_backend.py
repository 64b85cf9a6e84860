"""Gather, multiply, scatter in plain torch: any device, own backward, the same bits at every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.sparse.kernel_maps import KernelMap, Level

CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}
"""How many gathered numbers are multiplied at once: small enough for the caches of a CPU."""
BLOCK_ROWS = {"cpu": 2048, "cuda": 2**30}
"""How many output rows are treated at once where entries are multiplied one by one."""
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
    entries = weight.flatten(1, 3).permute(1, 2, 0)  # [entry, in, out]
    return _SparseConvolution.apply(feature, entries, kernel_map)  # type: ignore[return-value]


class _SparseConvolution(torch.autograd.Function):
    """The gradient of the features is the convolution along the transposed map."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(feature, weight)
        ctx.kernel_map = kernel_map
        return _gather_multiply(feature, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        feature, weight = ctx.saved_tensors
        grad = grad.contiguous()
        needs_feature, needs_weight = ctx.needs_input_grad[:2]
        back = ctx.kernel_map.transposed
        grad_feature = grad_weight = None
        if needs_feature:
            grad_feature = _gather_multiply(grad, weight.transpose(1, 2), back)
        if needs_weight:
            grad_weight = _weight_gradient(feature, grad, ctx.kernel_map)
        return grad_feature, grad_weight, None


def _is_wide(n_channels: int, n_out_channels: int, kernel_map: KernelMap) -> bool:
    return n_channels * n_out_channels >= WIDE and kernel_map.n_entries > 1


def _gather_multiply(x: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """[n_in, in] and [entry, in, out] to [n_out, out]."""
    n_entries, n_channels, n_out_channels = weight.shape
    if kernel_map.table_is_single:
        spread = x @ weight.transpose(0, 1).reshape(n_channels, -1)
        rows = torch.cat([spread.view(-1, n_out_channels), x.new_zeros(1, n_out_channels)])
        return rows.index_select(0, kernel_map.single)
    if _is_wide(n_channels, n_out_channels, kernel_map):
        return _multiply_by_entry(x, weight, kernel_map)
    flat = weight.reshape(n_entries * n_channels, n_out_channels)
    y = x.new_empty(kernel_map.n_out, n_out_channels)
    for rows, gathered in _gathered(x, kernel_map.table):
        torch.mm(gathered, flat, out=y[rows])
    return y


def _block_rows(x: Tensor) -> int:
    return BLOCK_ROWS["cpu" if x.device.type == "cpu" else "cuda"]


def _multiply_by_entry(x: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """One product per entry and block, of the neighbours that are there only, then one sum per output row.

    The sums have a fixed order on every device.
    """
    y = x.new_zeros(kernel_map.n_out, weight.shape[2])
    for block in kernel_map.blocks(_block_rows(x)):
        gathered = x.index_select(0, block.inputs)
        products = x.new_empty(len(gathered), weight.shape[2])
        for entry, part in block.meetings:
            torch.mm(gathered[part], weight[entry], out=products[part])
        if len(products):
            y[block.rows] = F.embedding_bag(
                block.order, products, block.starts, mode="sum", include_last_offset=True
            )
    return y


def _gathered(x: Tensor, table: Int[Tensor, "output entry"]) -> Iterator[tuple[slice, Tensor]]:
    """Slices of output rows with their input rows side by side, [rows, entry * in]; zeros for none."""
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    width = table.shape[1] * x.shape[1]
    budget = CHUNK_ELEMENTS["cpu" if x.device.type == "cpu" else "cuda"]
    step = max(64, budget // max(width, 1))
    for start in range(0, len(table), step):
        part = table[start : start + step]
        yield slice(start, start + step), padded.index_select(0, part.reshape(-1)).view(len(part), width)


def _weight_gradient(x: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """dW[k] = sum over meetings of x[input]^T grad[output], summed in float32 or better; [entry, in, out]."""
    n_entries, n_channels, n_out_channels = kernel_map.n_entries, x.shape[1], grad.shape[1]
    sum_type = torch.promote_types(x.dtype, torch.float32)
    if _is_wide(n_channels, n_out_channels, kernel_map):
        result = _weight_gradient_by_entry(x, grad, kernel_map, sum_type)
    elif kernel_map.n_out * n_channels <= kernel_map.n_in * n_out_channels:
        total = x.new_zeros(n_out_channels, n_entries * n_channels, dtype=sum_type)
        for rows, gathered in _gathered(x, kernel_map.table):
            _add_product(total, grad[rows].t(), gathered)
        result = total.view(n_out_channels, n_entries, n_channels).permute(1, 2, 0)
    else:
        total = x.new_zeros(n_channels, n_entries * n_out_channels, dtype=sum_type)
        for rows, gathered in _gathered(grad, kernel_map.mirrored):
            _add_product(total, x[rows].t(), gathered)
        result = total.view(n_channels, n_entries, n_out_channels).transpose(0, 1)
    return result.to(x.dtype)


def _weight_gradient_by_entry(
    x: Tensor, grad: Tensor, kernel_map: KernelMap, sum_type: torch.dtype
) -> Tensor:
    total = x.new_zeros(kernel_map.n_entries, x.shape[1], grad.shape[1], dtype=sum_type)
    for block in kernel_map.blocks(_block_rows(x)):
        inputs = x.index_select(0, block.inputs)
        outputs = grad[block.rows].index_select(0, block.outputs)
        for entry, part in block.meetings:
            _add_product(total[entry], inputs[part].t(), outputs[part])
    return total


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
