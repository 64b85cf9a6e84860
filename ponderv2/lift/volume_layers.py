"""Layers for dense volumes that save less for the backward pass than torch's, with the same results."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.sparse.normalisation import BatchNorm, norm_gradients, normalise_rows, row_statistics

ONES = [1, 1, 1]


def max_pool2(x: Float[Tensor, "scene channel z y x"]) -> Float[Tensor, "scene channel z2 y2 x2"]:
    """The largest of every 2x2x2 cells; an odd last plane counts by itself. Saves indices, not the input."""
    return _MaxPool2.apply(x)


class _MaxPool2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        largest, place = F.max_pool3d(x, 2, ceil_mode=True, return_indices=True)
        ctx.save_for_backward(place.int())
        ctx.shape = x.shape
        ctx.layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last_3d
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (place,) = ctx.saved_tensors
        # Of the input only the shape is read: memory that nobody touches is not taken from the system.
        like = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.layout)
        backward = torch.ops.aten.max_pool3d_with_indices_backward
        two = [2, 2, 2]
        return backward(gradient, like, two, two, [0, 0, 0], ONES, True, place.long())


def normed_convolution(
    x: Float[Tensor, "scene in z y x"], norm: BatchNorm, weight: Float[Tensor, "out in 3 3 3"]
) -> Float[Tensor, "scene out z y x"]:
    """conv(norm(x)) with padding 1. On one process, in training, the norm is recomputed in backward."""
    if not norm.normalises_rows(x) or torch.is_autocast_enabled(x.device.type):
        return F.conv3d(norm(x), weight, padding=1)
    result, mean, variance = _NormedConvolution.apply(x, norm.weight, norm.bias, norm.eps, weight)
    norm.update_running(mean, variance, mean.new_tensor(float(x.numel() // x.shape[1])))
    return result


class _NormedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(x)
        mean, variance = row_statistics(rows)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, norm_weight, norm_bias, mean, inverse, weight)
        ctx.mark_non_differentiable(mean, variance)
        normed = _volume(normalise_rows(rows, mean, inverse, norm_weight, norm_bias), x)
        return F.conv3d(normed, weight, padding=1), mean, variance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, mean, inverse, weight = ctx.saved_tensors
        rows = _rows(x)
        normed = _volume(normalise_rows(rows, mean, inverse, norm_weight, norm_bias), x)
        backward = torch.ops.aten.convolution_backward
        none, wanted = [0, 0, 0], [True, True, False]
        of_normed, of_weight, _ = backward(
            gradient, normed, weight, None, ONES, ONES, ONES, False, none, 1, wanted
        )
        del normed
        of_rows, of_norm, of_bias = norm_gradients(rows, _rows(of_normed), mean, inverse, norm_weight)
        return _volume(of_rows, x), of_norm, of_bias, None, of_weight


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def _volume(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(len(like), *like.shape[2:], -1).permute(0, 4, 1, 2, 3)
