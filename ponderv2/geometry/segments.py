"""Sums and means of consecutive rows: voxels of a cell, points of a scene."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor


def segment_sum(
    rows: Float[Tensor, "row channel"], counts: Int[Tensor, " segment"]
) -> Float[Tensor, "segment channel"]:
    """Sum of the first `counts[0]` rows, of the next `counts[1]`, and so on; 0 where the count is 0.

    The sum of the counts is the number of rows; that is not checked, since it would wait for a GPU. On CUDA
    torch-scatter does it where it is installed. The same bits at every run.
    """
    if _by_torch_scatter(rows):
        return _segment_csr(rows, counts, "sum")
    if len(counts) == 0:
        return rows[:0]
    return torch.segment_reduce(rows, "sum", lengths=counts, axis=0, unsafe=True)


def segment_mean(
    rows: Float[Tensor, "row channel"], counts: Int[Tensor, " segment"]
) -> Float[Tensor, "segment channel"]:
    """Mean instead of the sum, see `segment_sum`; 0 where the count is 0."""
    return segment_sum(rows, counts) / counts[:, None].clamp(min=1).to(rows.dtype)


def _by_torch_scatter(rows: Tensor) -> bool:
    return rows.is_cuda and find_spec("torch_scatter") is not None


def _segment_csr(rows: Tensor, counts: Tensor, reduce: str) -> Tensor:
    from torch_scatter import segment_csr  # pyright: ignore[reportMissingImports]

    ends = counts.cumsum(0)
    return segment_csr(rows, torch.cat([ends.new_zeros(1), ends]), reduce=reduce)
