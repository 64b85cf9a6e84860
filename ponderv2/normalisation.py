"""Batch normalisation whose statistics are those of the whole batch, also when processes share it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.collectives import n_processes, sum_over_processes
from ponderv2.row_norm import normalise_rows


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
        if n_processes() == 1 and self.training and _has_one_value(input) and self.running_mean is not None:
            # A tiny scene at the coarsest level has no variance: the stored statistics stand in, unchanged.
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.normalises_rows(input):
            return self._normalise_channels_last(input)
        if n_processes() == 1 or not self.training:
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
        return n_processes() == 1 and self.training and _is_channels_last(input)

    def _normalise_channels_last(self, input: Float[Tensor, "scene channel z y x"]) -> Tensor:
        rows = input.permute(0, 2, 3, 4, 1).reshape(-1, input.shape[1])
        result, mean, variance = normalise_rows(rows, self.weight, self.bias, self.eps)
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
        has_one = n_processes() == 1 and n_values < 2
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
