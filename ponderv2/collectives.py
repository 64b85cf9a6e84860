"""What all processes of a run know together: sums, with gradients, and lists. One process knows its own.

Every process must call each of these equally often and in the same order, so they belong into training steps
only: what a process does for itself (a validation, the making of a model) runs under `single_process`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Row = TypeVar("Row")


_depth_alone = 0


@contextmanager
def single_process() -> Iterator[None]:
    """While it is entered this process counts as the only one: nothing below is exchanged with others."""
    global _depth_alone
    _depth_alone += 1
    try:
        yield
    finally:
        _depth_alone -= 1


def world_size() -> int:
    """How many processes share the run; 1 outside a process group and under `single_process`."""
    return 1 if _depth_alone else group_size()


def group_size() -> int:
    """How many processes share the run, under `single_process` too: they still share memory and cores."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


def process_rank() -> int:
    """Which process this is, counted from 0."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def all_gather_lists(rows: list[Row]) -> list[Row]:
    """The rows of all processes, in order of rank; the same list in each."""
    if world_size() == 1:
        return rows
    parts: list[list[Row]] = [[] for _ in range(world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def all_gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """The rows of all processes in order of rank, without gradient, and which of them are of this one.

    Processes may have unequal numbers of rows.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows, slice(0, len(rows))
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    torch.distributed.all_gather(counts, torch.full_like(counts[0], len(rows)))
    n_rows = torch.cat(counts).tolist()
    padded = rows.new_zeros(max(n_rows), *rows.shape[1:])
    padded[: len(rows)] = rows
    every = [torch.empty_like(padded) for _ in n_rows]
    torch.distributed.all_gather(every, padded)
    first = sum(n_rows[: process_rank()])
    found = torch.cat([part[:n] for part, n in zip(every, n_rows, strict=True)])
    return found, slice(first, first + len(rows))


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes. Its gradient is summed over them too."""
    if world_size() == 1:
        return value
    return _SumOverProcesses.apply(value)


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce, whose derivative is an all-reduce.

    As `torch.distributed.nn.functional.all_reduce`, which is deprecated since torch 2.13; what is to replace
    it is not public.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sum_over_processes(gradient)


def global_mean(total: Float[Tensor, ""], count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """This process's share of a mean over the rays of all processes; zero where nothing was counted.

    Distributed data parallel training averages gradients over processes. A sum divided by the count
    of *all* processes and multiplied by their number therefore has the gradient of the one-process run.
    """
    with torch.no_grad():
        everywhere = sum_over_processes(count.detach().clone())
    return total * world_size() / everywhere.clamp(min=1.0)
