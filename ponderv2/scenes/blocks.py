"""A cloud that is too large for memory, cut into blocks that see something of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.scenes.batch import SceneBatch


@dataclass(frozen=True)
class Block:
    """A part of the voxels. Every voxel is in the core of exactly one block."""

    core: Int[Tensor, " core"]
    """Voxels whose result this block gives."""
    seen: Int[Tensor, " voxel"]
    """The core and what lies around it; the core is a part of it."""


def overlapping_blocks(grid_coord: Int[Tensor, "voxel 3"], limit: int, margin: int) -> list[Block]:
    """Boxes of voxels, halved across their longest side until each sees at most `limit` voxels.

    A block sees everything within `margin` voxels of its core's box. A box that is narrower than the margin
    is not cut further, even where it sees more than `limit`.
    """
    everything = torch.arange(len(grid_coord))
    waiting, done = [Block(everything, everything)], []
    while waiting:
        block = waiting.pop()
        cells = grid_coord[block.core]
        lower, upper = cells.amin(dim=0), cells.amax(dim=0)
        axis = int((upper - lower).argmax())
        if len(block.seen) <= limit or int(upper[axis] - lower[axis]) < max(margin, 1):
            done.append(block)
            continue
        along = cells[:, axis]
        middle = min(int(along.median()), int(upper[axis]) - 1)  # both halves keep something
        for half in (block.core[along <= middle], block.core[along > middle]):
            waiting.append(Block(half, _around(grid_coord, half, block.seen, margin)))
    return done


def _around(grid_coord: Tensor, core: Tensor, candidates: Tensor, margin: int) -> Tensor:
    lower = grid_coord[core].amin(dim=0) - margin
    upper = grid_coord[core].amax(dim=0) + margin
    cells = grid_coord[candidates]
    return candidates[((cells >= lower) & (cells <= upper)).all(dim=1)]


def batch_of_block(batch: SceneBatch, block: Block, alignment: int) -> SceneBatch:
    """The seen voxels of a batch of one scene. Their indices move by a multiple of `alignment` only, so that
    a network that halves the resolution groups them as it would in the whole cloud."""
    cells = batch.grid_coord[block.seen]
    origin = cells.amin(dim=0).div(alignment, rounding_mode="floor") * alignment
    return replace(
        batch,
        coord=batch.coord[block.seen],
        grid_coord=cells - origin,
        feature=batch.feature[block.seen],
        segment=batch.segment[block.seen],
        instance=batch.instance[block.seen],
        offset=torch.tensor([len(block.seen)]),
    )
