"""A stand-in for the package spconv: the same classes and casts, computed in plain torch on any device.

Its autograd functions carry `custom_fwd(cast_inputs=torch.float16)` as spconv's do. Rows of a strided result
come in another order than ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ponderv2.sparse import torch_backend
from ponderv2.sparse.kernel_maps import Level, triple

DEVICE = "cpu"


@dataclass
class CallLog:
    """What the fake was asked to compute."""

    types: list[torch.dtype] = field(default_factory=list)


@dataclass
class SparseConvTensor:
    """Features at voxels, with what earlier convolutions of the same voxels left behind."""

    features: Tensor
    indices: Tensor
    spatial_shape: list[int]
    batch_size: int
    indice_dict: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.indices.dtype == torch.int32 and self.indices.is_contiguous()

    def replace_feature(self, features: Tensor) -> SparseConvTensor:
        return replace(self, features=features)

    def level(self) -> Level:
        return Level(self.indices.long(), triple(self.spatial_shape), self.batch_size)


class _Convolution(torch.autograd.Function):
    """Product by product in the type that arrives; the casts are those of spconv."""

    @staticmethod
    @torch.amp.custom_fwd(device_type=DEVICE, cast_inputs=torch.float16)
    def forward(ctx: Any, feature: Tensor, weight: Tensor, kernel_map: Any, calls: CallLog) -> Tensor:
        assert feature.dtype == weight.dtype
        calls.types.append(feature.dtype)
        ctx.save_for_backward(feature, weight)
        ctx.kernel_map = kernel_map
        return torch_backend.convolve(feature, weight, kernel_map)

    @staticmethod
    @torch.amp.custom_bwd(device_type=DEVICE)
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        feature, weight = (one.detach().requires_grad_() for one in ctx.saved_tensors)
        with torch.enable_grad():
            result = torch_backend.convolve(feature, weight, ctx.kernel_map)
        return *torch.autograd.grad(result, (feature, weight), grads[0].to(result.dtype)), None, None


class _Module(nn.Module):
    def __init__(
        self, n_in: int, n_out: int, kernel: Any, stride: Any = 1, bias: bool = True, indice_key: str = ""
    ) -> None:
        super().__init__()
        assert not bias
        self.kernel, self.stride, self.key = triple(kernel), triple(stride), indice_key
        self.weight = nn.Parameter(torch.zeros(n_out, *self.kernel, n_in))

    calls = CallLog()


class SubMConv3d(_Module):
    """On the same voxels."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        made = x.level().submanifold(self.kernel)
        return x.replace_feature(_Convolution.apply(x.features, self.weight, made, self.calls))


class SparseConv3d(_Module):
    """To coarser voxels, last ones first."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        kernel_map, coarse = x.level().strided(self.kernel, self.stride)
        y = _Convolution.apply(x.features, self.weight, kernel_map, self.calls)
        x.indice_dict[self.key] = (kernel_map, x.indices, x.spatial_shape)
        indices = coarse.indices.flip(0).int().contiguous()
        return SparseConvTensor(y.flip(0), indices, list(coarse.extent), x.batch_size, x.indice_dict)


class SparseInverseConv3d(_Module):
    """Back to the voxels of the strided convolution of the same key."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        kernel_map, indices, shape = x.indice_dict[self.key]
        y = _Convolution.apply(x.features.flip(0), self.weight, kernel_map.transposed, self.calls)
        return SparseConvTensor(y, indices, shape, x.batch_size, x.indice_dict)


def install(monkeypatch: pytest.MonkeyPatch) -> CallLog:
    """The fake in place of the package; returns what it will be asked for."""
    calls = CallLog()
    monkeypatch.setattr(_Module, "calls", calls)
    package, module = ModuleType("spconv"), ModuleType("spconv.pytorch")
    for one in (SparseConvTensor, SubMConv3d, SparseConv3d, SparseInverseConv3d):
        setattr(module, one.__name__, one)
    package.pytorch = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spconv", package)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", module)
    return calls
