"""The same convolutions through spconv (CUDA only); importing this module takes about ten seconds.

spconv's modules are used without parameters of their own: they know kernel, stride and index key, and
get our weight for one call; every thread has its own. Rows of a strided result come in spconv's order and
are put into ours.
Under autocast spconv casts to float16, whatever type autocast has; bfloat16 is therefore done in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from threading import get_ident
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.sparse.kernel_maps import Level, Triple, triple

Convolution = TypeVar("Convolution", bound=Callable[..., Tensor])


def bfloat16_in_float32(convolution: Convolution) -> Convolution:
    """The same convolution, where bfloat16 is asked for: in float32 without autocast, its result rounded.

    Without this spconv would compute in float16, whose range overflows without a loss scale.
    """

    @wraps(convolution)
    def safe(feature: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        kind = feature.device.type
        wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else feature.dtype
        if wanted != torch.bfloat16:
            return convolution(feature, weight, *rest)
        with torch.autocast(kind, enabled=False):
            return convolution(feature.float(), weight.float(), *rest).to(wanted)

    return safe  # pyright: ignore[reportReturnType]


@bfloat16_in_float32
def submanifold(
    feature: Float[Tensor, "voxel channel"], weight: Float[Tensor, "out kx ky kz channel"], level: Level
) -> Float[Tensor, "voxel out"]:
    """As `torch_backend.submanifold`."""
    module = _module(
        get_ident(), "SubMConv3d", weight.shape[-1], weight.shape[0], triple(weight.shape[1:4]), (1, 1, 1)
    )
    return _run(module, weight, _voxels(feature, level)).features


@bfloat16_in_float32
def strided(
    feature: Float[Tensor, "voxel channel"],
    weight: Float[Tensor, "out kx ky kz channel"],
    stride: int | Sequence[int],
    level: Level,
) -> Float[Tensor, "coarse out"]:
    """As `torch_backend.strided`."""
    kernel, step = triple(weight.shape[1:4]), triple(stride)
    module = _module(get_ident(), "SparseConv3d", weight.shape[-1], weight.shape[0], kernel, step)
    result = _run(module, weight, _voxels(feature, level))
    return result.features.index_select(0, _order(result, level, kernel, step))


@bfloat16_in_float32
def inverse(
    feature: Float[Tensor, "coarse channel"],
    weight: Float[Tensor, "out kx ky kz channel"],
    stride: int | Sequence[int],
    level: Level,
) -> Float[Tensor, "voxel out"]:
    """As `torch_backend.inverse`; the strided convolution must have run on this level before."""
    kernel, step = triple(weight.shape[1:4]), triple(stride)
    key = ("spconv result", kernel, step)
    if key not in level.cache:
        raise ValueError(f"no strided convolution of kernel {kernel} and stride {step} has run on this level")
    template, order = level.cache[key]
    module = _module(get_ident(), "SparseInverseConv3d", weight.shape[-1], weight.shape[0], kernel, step)
    theirs = torch.empty_like(feature).index_copy(0, order, feature)
    return _run(module, weight, template.replace_feature(theirs)).features


def _voxels(feature: Tensor, level: Level) -> Any:
    import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]

    if "spconv" not in level.cache:
        # Anything but contiguous int32 gives wrong results without a word.
        indices = level.indices.int().contiguous()
        level.cache["spconv"] = spconv.SparseConvTensor(
            feature.detach(), indices, list(level.extent), level.n_scenes
        )
    template = level.cache["spconv"]
    return template.replace_feature(feature)


def _order(result: Any, level: Level, kernel: Triple, stride: Triple) -> Int[Tensor, " coarse"]:
    """The row of spconv's result that is each row of ours."""
    key = ("spconv result", kernel, stride)
    if key not in level.cache:
        extent = level.strided(kernel, stride)[1].extent
        index = result.indices.long()
        number = index[:, 0]
        for axis in range(3):
            number = number * extent[axis] + index[:, axis + 1]
        level.cache[key] = (result.replace_feature(result.features.detach()), number.argsort())
    return level.cache[key][1]


@lru_cache(maxsize=256)
def _module(
    thread: int, kind: str, in_channels: int, out_channels: int, kernel: Triple, stride: Triple
) -> Any:
    del thread  # of the key: modules are not shared, as each holds the weight of its call
    import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]

    if kind == "SubMConv3d":
        module = spconv.SubMConv3d(in_channels, out_channels, kernel, bias=False, indice_key=f"subm{kernel}")
    elif kind == "SparseConv3d":
        module = spconv.SparseConv3d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            bias=False,
            indice_key=f"strided{kernel}{stride}",
        )
    else:
        module = spconv.SparseInverseConv3d(
            in_channels, out_channels, kernel, bias=False, indice_key=f"strided{kernel}{stride}"
        )
    del module._parameters["weight"]
    return module


def _run(module: Any, weight: Tensor, voxels: Any) -> Any:
    module.__dict__["weight"] = weight.contiguous()
    try:
        return module(voxels)
    finally:
        module.__dict__.pop("weight", None)
