"""Batch normalisation over all processes, and of channels-last volumes; a ReLU that saves memory.

torch sums channels-last volumes naively (statistics of 60,000 cells are off by 3e-4) and is fast for
channels-first ones only, in which convolutions are slow. `batch_norm_rows` normalises rows in memory order,
in blocks that stay in the cache of a CPU, and adds the sums of blocks in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.collectives import sum_over_processes, world_size


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises axis 1 of `[n, channel, ...]`; state names and numerics of `torch.nn.BatchNorm1d`.

    A single value per channel, which torch refuses in training, is normalised with the stored statistics.

    In training, with several processes, mean and variance are those of all processes together; each
    may hold another number of points, also none. Every process of the group must then call it equally often.
    In evaluation nothing is exchanged.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [n, channel, ...], got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """The normalised input, in the input's precision."""
        if world_size() == 1 and self.training and _has_one_value(input) and self.running_mean is not None:
            # A tiny scene at the coarsest level has no variance: the stored statistics stand in, unchanged.
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.normalises_rows(input):
            return self._normalise_channels_last(input)
        if world_size() == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        stored = (self.running_mean, self.running_var)
        values, mean, variance, count = _NormaliseTogether.apply(input, self.eps, *stored)
        if count > 1:
            self.update_running(mean, variance, count)
        if self.affine:
            shape = (1, -1) + (1,) * (input.dim() - 2)
            values = values * self.weight.view(shape) + self.bias.view(shape)
        return values.to(input.dtype)

    def normalises_rows(self, input: Tensor) -> bool:
        """Whether `input` is treated as rows of channels, with the statistics of this process."""
        return world_size() == 1 and self.training and _is_channels_last(input)

    def _normalise_channels_last(self, input: Float[Tensor, "scene channel z y x"]) -> Tensor:
        rows = input.permute(0, 2, 3, 4, 1).reshape(-1, input.shape[1])
        result, mean, variance = batch_norm_rows(rows, self.weight, self.bias, self.eps)
        self.update_running(mean, variance, mean.new_tensor(float(len(rows))))
        return result.view(len(input), *input.shape[2:], -1).permute(0, 4, 1, 2, 3)

    def scale_and_shift(
        self, rows: Float[Tensor, "row channel"], n_values: int
    ) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
        """What the normalisation of `rows` and of `n_values - len(rows)` zeros multiplies with and adds.

        In training, statistics and their updates are those of all `n_values` of all processes together.
        """
        values = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean, variance = self.running_mean, self.running_var
        has_one = world_size() == 1 and n_values < 2
        if mean is None or variance is None or (self.training and not has_one):
            total = sum_over_processes if self.training else _own
            count = total(values.new_tensor(float(n_values)))
            mean = total(values.sum(0)) / count
            zeros = mean.square() * (n_values - len(rows))
            variance = total((values - mean).square().sum(0) + zeros) / count
            if self.training:
                self.update_running(mean.detach(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale
        return scale, shift if self.bias is None else shift + self.bias

    @torch.no_grad()
    def update_running(
        self, mean: Float[Tensor, " channel"], variance: Float[Tensor, " channel"], count: Float[Tensor, ""]
    ) -> None:
        """Moves the running statistics as torch does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (count / (count - 1.0).clamp(min=1.0))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _NormaliseTogether(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) with mean and variance over axis 0, 2, ... of all processes.

    Two sums instead of one of squares: subtracting the mean first keeps the variance exact in float32.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, input: Tensor, eps: float, stored_mean: Tensor | None, stored_variance: Tensor | None
    ) -> tuple[Tensor, Float[Tensor, " channel"], Float[Tensor, " channel"], Float[Tensor, ""]]:
        axes = _reduced_axes(input)
        shape = (1, -1) + (1,) * (input.dim() - 2)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        here = values.new_full((1,), float(values.numel() // values.shape[1]))
        sums = torch.cat([values.sum(dim=axes), here])
        torch.distributed.all_reduce(sums)
        count = sums[-1]
        ctx.input_dtype, ctx.is_stored = input.dtype, bool(count < 2)
        if ctx.is_stored:  # in all processes alike
            if stored_mean is None or stored_variance is None:
                raise ValueError(
                    f"expected more than 1 value per channel over all processes, got {int(count)}"
                )
            mean, variance = (
                stored_mean.to(values.dtype, copy=True),
                stored_variance.to(values.dtype, copy=True),
            )
            centred = values - mean.view(shape)
        else:
            mean = sums[:-1] / count
            centred = values - mean.view(shape)
            squares = (centred * centred).sum(dim=axes)
            torch.distributed.all_reduce(squares)
            variance = squares / count
        inverse = torch.rsqrt(variance + eps)
        normalised = centred * inverse.view(shape)
        ctx.save_for_backward(normalised, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor, None, None, None]:
        normalised, inverse, count = ctx.saved_tensors
        shape = (1, -1) + (1,) * (gradient.dim() - 2)
        if ctx.is_stored:
            return (gradient * inverse.view(shape)).to(ctx.input_dtype), None, None, None
        axes = _reduced_axes(gradient)
        sums = torch.stack([gradient.sum(dim=axes), (gradient * normalised).sum(dim=axes)])
        torch.distributed.all_reduce(sums)
        mean, along = (sums / count).unbind()
        result = (gradient - mean.view(shape) - normalised * along.view(shape)) * inverse.view(shape)
        return result.to(ctx.input_dtype), None, None, None


def _own(value: Tensor) -> Tensor:
    """Of this process alone."""
    return value


def _is_channels_last(values: Tensor) -> bool:
    return (
        values.dim() == 5
        and not values.is_contiguous()
        and values.is_contiguous(memory_format=torch.channels_last_3d)
    )


def _has_one_value(values: Tensor) -> bool:
    """Per channel."""
    return values.dim() >= 2 and values.numel() == values.shape[1]


def _reduced_axes(values: Tensor) -> list[int]:
    return [axis for axis in range(values.dim()) if axis != 1]


BLOCK_ELEMENTS = 2**17


def batch_norm_rows(
    rows: Float[Tensor, "row channel"],
    weight: Float[Tensor, " channel"] | None,
    bias: Float[Tensor, " channel"] | None,
    eps: float,
) -> tuple[Float[Tensor, "row channel"], Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """(x - mean) / sqrt(variance + eps) * weight + bias in the type of the rows; mean and biased variance."""
    return _NormaliseRows.apply(rows, weight, bias, eps)


class _NormaliseRows(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = row_statistics(rows)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(rows, weight, mean, inverse)
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, variance)
        return normalise_rows(rows, mean, inverse, weight, bias), mean, variance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        rows, weight, mean, inverse = ctx.saved_tensors
        of_rows, of_weight, of_bias = norm_gradients(rows, gradient.contiguous(), mean, inverse, weight)
        return of_rows, None if weight is None else of_weight, of_bias if ctx.has_bias else None, None


def row_statistics(rows: Tensor) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and biased variance."""
    mean = _mean([part.sum(0) for _, part in _blocks(rows)], len(rows))
    return mean, _mean([(part - mean).square_().sum(0) for _, part in _blocks(rows)], len(rows))


def normalise_rows(
    rows: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Float[Tensor, "row channel"]:
    """(rows - mean) * inverse * weight + bias."""
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    result = torch.empty_like(rows)
    for place, part in _blocks(rows):
        result[place] = torch.addcmul(shift, part, scale)
    return result


def norm_gradients(
    rows: Tensor, gradient: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None
) -> tuple[Float[Tensor, "row channel"], Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Of the rows, of weight and bias. mean and inverse follow from the rows."""
    sums, along = [], []
    for (_, part), (_, slope) in zip(_blocks(rows), _blocks(gradient), strict=True):
        sums.append(slope.sum(0))
        along.append(((part - mean) * slope).sum(0))
    of_bias, of_centred = _mean(sums, 1), _mean(along, 1)
    scale = inverse if weight is None else inverse * weight
    # dx = scale (g - mean(g) - (x - mean) inverse^2 mean(g (x - mean))) = scale g - factor x - offset
    factor = scale * inverse.square() * of_centred / len(rows)
    offset = scale * of_bias / len(rows) - factor * mean
    result = torch.empty_like(rows)
    for (place, part), (_, slope) in zip(_blocks(rows), _blocks(gradient), strict=True):
        result[place] = torch.addcmul(offset, part, factor).neg_().addcmul_(slope, scale)
    return result, of_centred * inverse, of_bias


def _blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Consecutive rows in float32 or better, and where they are."""
    step = max(BLOCK_ELEMENTS // rows.shape[1], 1)
    wide = torch.promote_types(rows.dtype, torch.float32)
    for start in range(0, len(rows), step):
        place = slice(start, min(start + step, len(rows)))
        yield place, rows[place].to(wide)


def _mean(sums: list[Tensor], count: int) -> Tensor:
    return (torch.stack(sums).double().sum(0) / count).to(sums[0].dtype)


def relu_(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """relu(x), in place. For the backward pass it saves the signs, a byte per element."""
    return _ReLU.apply(x)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x > 0)
        ctx.mark_dirty(x)
        return x.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (positive,) = ctx.saved_tensors
        return gradient * positive
