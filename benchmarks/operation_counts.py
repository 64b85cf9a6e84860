"""Arithmetic and memory traffic of all that torch executes, to compare a time with what it must take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import prod
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

CACHE_BYTES = 2**20
"""Operands up to this size are taken to stay in the cache and not counted as traffic."""
GATHERS = ("index_select", "index.Tensor", "gather", "embedding")
"""Read as much of their first operand as they write."""


class OperationCounts(TorchDispatchMode):
    """Counts what this thread executes, backward passes included, and books it when `finish` names it."""

    def __init__(self) -> None:
        super().__init__()
        self._flops = self._traffic = 0.0
        self.flops: dict[str, float] = defaultdict(float)
        self.traffic: dict[str, float] = defaultdict(float)
        self._largest = 0
        self.largest: dict[str, int] = defaultdict(int)
        """Bytes of the largest tensor that was made, views aside."""

    def finish(self, part: str) -> None:
        """What was executed since the last call was `part`."""
        self.flops[part] += self._flops
        self.traffic[part] += self._traffic
        self.largest[part] = max(self.largest[part], self._largest)
        self._flops = self._traffic = 0.0
        self._largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = torch.ops.aten.addmm if func.overloadpacket is torch.ops.aten.addmm_ else func.overloadpacket
        count = flop_registry.get(packet)
        if packet is torch.ops.aten.convolution_backward and args[9] > 1:
            self._flops += _grouped_backward(*args)
        elif count is not None:
            self._flops += count(*args, **(kwargs or {}), out_val=result)
        if not func.is_view:
            self._traffic += _traffic(func, args, result)
            self._largest = max([self._largest, *_sizes(result)])
        return result


def _grouped_backward(*args: Any) -> int:
    """Of the input and of the weight, as in the forward pass; torch counts all channels with all."""
    gradient, weight, mask = args[0], args[2], args[10]
    return (mask[0] + mask[1]) * 2 * gradient.numel() * weight[0].numel()


def _traffic(func: Any, args: tuple[Any, ...], result: Any) -> int:
    name = str(func)
    if "embedding_bag" in name:
        rows, bags = (args[0], args[1]) if args[0].is_floating_point() else (args[1], args[0])
        return bags.numel() * rows.shape[1] * rows.element_size() + _large(result)
    if any(gather in name for gather in GATHERS):
        return 2 * _large(result)
    return _large(args) + _large(result)


def _large(values: Any) -> int:
    return sum(size for size in _sizes(values) if size > CACHE_BYTES)


def _sizes(values: Any) -> list[int]:
    """Bytes of each tensor."""
    return [t.numel() * t.element_size() for t in tree_leaves(values) if isinstance(t, Tensor)]


def product_seconds(size: int = 2048, repeats: int = 5) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of one square matrix product in float32."""
    left = torch.randn(size, size)
    return _seconds(lambda: left @ left, repeats)


def copy_rate(n_bytes: int = 2**28, repeats: int = 5) -> float:
    """Bytes per second, read and written ones together, of copying what no cache holds; by CPU time."""
    source = torch.ones(n_bytes // 4)
    target = torch.empty_like(source)
    cpu = min(_seconds(lambda: target.copy_(source), repeats)[1])
    return 2 * n_bytes * torch.get_num_threads() / cpu


def product_flops(size: int = 2048) -> int:
    """Of `product_seconds`."""
    return 2 * prod((size, size, size))


def _seconds(run: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    run()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = perf_counter(), process_time()
        run()
        wall.append(perf_counter() - start)
        cpu.append(process_time() - start_cpu)
    return wall, cpu
