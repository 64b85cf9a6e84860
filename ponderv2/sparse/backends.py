"""Which backend computes a sparse convolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

from torch import Tensor

from ponderv2.sparse import torch_backend
from ponderv2.sparse.kernel_maps import Level


@runtime_checkable
class Backend(Protocol):
    """The three convolutions. Feature rows are in the order of their `Level`."""

    def submanifold(self, feature: Tensor, weight: Tensor, level: Level) -> Tensor: ...

    def strided(
        self, feature: Tensor, weight: Tensor, stride: int | Sequence[int], level: Level
    ) -> Tensor: ...

    def inverse(
        self, feature: Tensor, weight: Tensor, stride: int | Sequence[int], level: Level
    ) -> Tensor: ...


@lru_cache(maxsize=1)
def spconv_installed() -> bool:
    """Whether the spconv package can be found. Does not import it: that takes about ten seconds."""
    return find_spec("spconv") is not None


def backend_for(feature: Tensor) -> Backend:
    """spconv for single and half precision on a CUDA device where it is installed, plain torch otherwise.

    Also for no voxels at all, which spconv refuses (a process of several may have none in a step).
    spconv has no bfloat16: `spconv_backend` computes in float32 what is asked for in it. spconv's CPU build
    is never used: it loses updates at random with more than one thread.
    """
    if len(feature) and feature.is_cuda and feature.dtype.itemsize <= 4 and spconv_installed():
        from ponderv2.sparse import spconv_backend

        return spconv_backend
    return torch_backend
