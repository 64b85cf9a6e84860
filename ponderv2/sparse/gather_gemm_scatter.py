"""Sparse convolution by gather, GEMM and scatter: one product per kernel entry and block of output rows.

A product reads what was gathered just before it, so its operands lie in the cache of one core; the cores
share the blocks. Sums have a fixed order on every device: those of features on any number of cores, those of
weight gradients on the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.sparse.kernel_maps import Block, KernelMap
from ponderv2.sparse.thread_pool import n_workers, run_in_threads

BLOCK_ROWS = {"cpu": 2048, "cuda": 2**30}
"""Most rows of a block; under each kernel entry about a third of them has a neighbour."""
NARROW_BLOCKS = 4
"""Factor by which blocks on a CPU may be larger where rows have few channels."""
WIDE_ROW = 128
"""Channels from which rows are not narrow."""


def block_rows(device: torch.device, n_channels: int) -> int:
    """Most rows of a block whose rows have up to `n_channels`."""
    if device.type != "cpu":
        return BLOCK_ROWS["cuda"]
    narrow = WIDE_ROW // max(n_channels, 1)
    return BLOCK_ROWS["cpu"] * min(1 << max(narrow.bit_length() - 1, 0), NARROW_BLOCKS)


def convolve(
    x: Float[Tensor, "input in"], weight: Float[Tensor, "out entry in"], kernel_map: KernelMap
) -> Float[Tensor, "output out"]:
    """Every output row is the sum over entries of its input row times the weight of the entry."""
    blocks = _blocks(kernel_map, x.device, max(weight.shape[0], weight.shape[2]))
    return _convolve_in_threads(x, [matrix.t() for matrix in weight.unbind(1)], blocks)


def gradients(
    x: Float[Tensor, "input in"],
    grad: Float[Tensor, "output out"],
    weight: Float[Tensor, "out entry in"],
    kernel_map: KernelMap,
    needs: Sequence[bool],
) -> tuple[Float[Tensor, "input in"] | None, Float[Tensor, "out entry in"] | None]:
    """Of features and weights, as far as they are needed. Rows of `grad` are gathered once for both."""
    blocks = _blocks(kernel_map, x.device, max(weight.shape[0], weight.shape[2]), mirrored=True)
    matrices = weight.unbind(1)
    if not needs[1]:
        return _convolve_in_threads(grad, matrices, blocks), None
    of_x = torch.empty_like(x) if needs[0] else None
    sum_type = torch.promote_types(x.dtype, torch.float32)
    parts, totals = [], []
    for mine in _split_among_threads(blocks, n_workers(x.device)):
        totals.append(torch.zeros(weight.shape, dtype=sum_type, device=x.device))
        scratch = _buffers(mine, x, x, grad)
        parts.append(partial(_add_gradients, x, grad, matrices, mine, of_x, totals[-1], scratch))
    run_in_threads(parts)
    of_weight = totals[0]
    for total in totals[1:]:
        of_weight += total
    return of_x, of_weight.to(x.dtype)


def _blocks(
    kernel_map: KernelMap, device: torch.device, n_channels: int, mirrored: bool = False
) -> tuple[Block, ...]:
    """As large as allowed and equally many for every worker."""
    n_rows, workers = kernel_map.n_in if mirrored else kernel_map.n_out, n_workers(device)
    n_blocks = workers * -(-n_rows // (workers * block_rows(device, n_channels)))
    size = max(-(-n_rows // max(n_blocks, 1)), 1)
    return kernel_map.mirrored_blocks(size) if mirrored else kernel_map.blocks(size)


def _split_among_threads(blocks: tuple[Block, ...], workers: int) -> list[tuple[Block, ...]]:
    return [blocks[first::workers] for first in range(max(min(workers, len(blocks)), 1))]


def _convolve_in_threads(x: Tensor, matrices: Sequence[Tensor], blocks: tuple[Block, ...]) -> Tensor:
    """One matrix [in, out] per entry."""
    y = x.new_empty(blocks[-1].rows.stop if blocks else 0, matrices[0].shape[1])
    run_in_threads(
        [
            partial(_convolve_blocks, x, matrices, mine, y, _buffers(mine, y, x))
            for mine in _split_among_threads(blocks, n_workers(x.device))
        ]
    )
    return y


def _convolve_blocks(
    x: Tensor,
    matrices: Sequence[Tensor],
    blocks: tuple[Block, ...],
    y: Tensor,
    scratch: Sequence[Tensor],
) -> None:
    near, far = scratch
    for block in blocks:
        for entry, inputs, _, product in block.pairs(near):
            gathered = far[: len(inputs)]
            torch.index_select(x, 0, inputs, out=gathered)
            torch.mm(gathered, matrices[entry], out=product)
        _write_sums(block, near, y)


def _add_gradients(
    x: Tensor,
    grad: Tensor,
    matrices: Sequence[Tensor],
    blocks: tuple[Block, ...],
    of_x: Tensor | None,
    total: Tensor,
    scratch: Sequence[Tensor],
) -> None:
    """The blocks are of rows of `x`; `total` is added to."""
    products, gathered_x, gathered_grad = scratch
    of_weights = total.unbind(1)
    for block in blocks:
        rows = x[block.rows]
        for entry, outputs, inputs, product in block.pairs(products):
            slopes = gathered_grad[: len(outputs)]
            torch.index_select(grad, 0, outputs, out=slopes)
            if of_x is not None:
                torch.mm(slopes, matrices[entry], out=product)
            met = rows
            if len(inputs) < len(rows):
                met = gathered_x[: len(inputs)]
                torch.index_select(rows, 0, inputs, out=met)
            add_product(of_weights[entry], slopes.t(), met)
        if of_x is not None:
            _write_sums(block, products, of_x)


def _buffers(blocks: tuple[Block, ...], products: Tensor, *gathered: Tensor) -> list[Tensor]:
    """Space for the products of any block, and for the gathered rows of any of its entries.

    Allocated by the calling thread: the allocator keeps what other threads free for those threads.
    """
    n_products = max((len(block.inputs) for block in blocks), default=0)
    n_gathered = max((max(block.counts) for block in blocks), default=0)
    return [
        products.new_empty(n_products, products.shape[1]),
        *(one.new_empty(n_gathered, one.shape[1]) for one in gathered),
    ]


def _write_sums(block: Block, products: Tensor, y: Tensor) -> None:
    if len(block.inputs) == 0:
        y[block.rows] = 0.0
        return
    y[block.rows] = F.embedding_bag(
        block.order, products[: len(block.inputs)], block.starts, mode="sum", include_last_offset=True
    )


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the precision of the total."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
