"""Submanifold, strided, inverse and generative convolution as modules, with weights in spconv's layout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.sparse.backends import backend_for
from ponderv2.sparse.generated_levels import children
from ponderv2.sparse.kernel_maps import Level, triple


class _SparseConvolution(nn.Module):
    """Holds the weight and, if asked for, the bias, initialised as spconv does: U(-b, b), b = fan_in^-1/2."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | Sequence[int], bias: bool = False
    ) -> None:
        super().__init__()
        size = triple(kernel)
        self.weight = nn.Parameter(torch.empty(out_channels, *size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        bound = 1.0 / math.sqrt(in_channels * math.prod(size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _plus_bias(self, feature: Tensor) -> Tensor:
        return feature if self.bias is None else feature + self.bias.to(feature.dtype)

    def extra_repr(self) -> str:
        out_channels, *size, in_channels = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel={tuple(size)}, bias={self.bias is not None}"


class SubmanifoldConvolution(_SparseConvolution):
    """Odd kernel; the output voxels are the input voxels, in the same order."""

    def forward(self, feature: Float[Tensor, "voxel channel"], level: Level) -> Float[Tensor, "voxel out"]:
        if self.weight.shape[1:4].numel() == 1:
            return self._plus_bias(feature @ self.pointwise_matrix())
        return self._plus_bias(backend_for(feature).submanifold(feature, self.weight, level))

    def pointwise_matrix(self) -> Float[Tensor, "channel out"]:
        """What a 1x1x1 kernel multiplies with: the *memory* of `[out, 1, 1, 1, in]` read as `[in, out]`.

        spconv does so (its issue 450), and published checkpoints were trained with it. For a normal
        linear layer of the same function set its weight to `pointwise_matrix().T`.
        """
        return self.weight.reshape(self.weight.shape[-1], self.weight.shape[0])


class _ScalingConvolution(_SparseConvolution):
    """Between a level and the coarser one; by default the stride is the kernel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Sequence[int] = 2,
        stride: int | Sequence[int] | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, bias)
        self.kernel = triple(kernel)
        self.stride = triple(kernel if stride is None else stride)


class StridedConvolution(_ScalingConvolution):
    """Output voxel q meets input voxels `stride * q + k`; no padding."""

    def forward(
        self, feature: Float[Tensor, "voxel channel"], level: Level
    ) -> tuple[Float[Tensor, "coarse out"], Level]:
        coarse = level.strided(self.kernel, self.stride)[1]
        return self._plus_bias(backend_for(feature).strided(feature, self.weight, self.stride, level)), coarse


class InverseConvolution(_ScalingConvolution):
    """Back onto the voxels that a strided convolution of the same kernel and stride had as input."""

    def forward(self, feature: Float[Tensor, "coarse channel"], level: Level) -> Float[Tensor, "voxel out"]:
        """`level` is the finer one: the voxels of the result."""
        return self._plus_bias(backend_for(feature).inverse(feature, self.weight, self.stride, level))


class GenerativeConvolution(_SparseConvolution):
    """Transposed convolution of kernel and stride 2 that makes all eight children of every voxel."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 2, bias)

    def forward(
        self, feature: Float[Tensor, "voxel channel"], level: Level
    ) -> tuple[Float[Tensor, "child out"], Level]:
        """y[2 q + k] = W[:, k] x[q], and the level of the children. One product: no child has two parents."""
        finer, order = children(level)
        out_channels, in_channels = self.weight.shape[0], self.weight.shape[-1]
        matrix = self.weight.permute(4, 1, 2, 3, 0).reshape(in_channels, -1)
        return self._plus_bias((feature @ matrix).view(-1, out_channels)[order]), finer
