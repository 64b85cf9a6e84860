"""Kernel maps (rulebooks): which input rows and weights an output row needs; built once per level.

Voxels of a `Level` are in lexicographic order of (scene, x, y, z), so neighbours lie close in memory.
Kernel entries are numbered with the last axis fastest, as the weights `[out, kx, ky, kz, in]` are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

Triple = tuple[int, int, int]
CELLS_PER_VOXEL, FEW_CELLS = 128, 2**16
"""Largest grid for which a CPU finds neighbours in a table (4 bytes a cell) instead of by search."""


def triple(value: int | Sequence[int]) -> Triple:
    """One number for each axis."""
    if isinstance(value, int):
        return (value, value, value)
    if len(value) != 3:
        raise ValueError(f"expected one number or three, got {tuple(value)}")
    return (int(value[0]), int(value[1]), int(value[2]))


@dataclass(frozen=True)
class Block:
    """The pairs of some consecutive output rows."""

    rows: slice
    counts: tuple[int, ...]
    """Pairs of each kernel entry."""
    inputs: Int[Tensor, " pair"]
    """Input rows, entry after entry."""
    outputs: Int[Tensor, " pair"]
    """Output rows counted from the start of the block; ascending within an entry."""
    order: Int[Tensor, " pair"]
    """The pairs sorted by output row, those of one row by entry."""
    starts: Int[Tensor, " bound"]
    """Where each output row begins in `order`, and the end of the last."""
    reversed: bool = False
    """The first count is that of the last kernel entry."""

    def pairs(self, along: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Every kernel entry that has pairs: its number, inputs, outputs and its rows of `along`."""
        entries = range(len(self.counts))
        if self.reversed:
            entries = entries[::-1]
        parts = (part.split(self.counts) for part in (self.inputs, self.outputs, along[: len(self.inputs)]))
        for entry, inputs, outputs, rows in zip(entries, *parts, strict=True):
            if len(inputs):
                yield entry, inputs, outputs, rows


class KernelMap:
    """The pairs of input and output rows of a convolution. Row `n_in` (`n_out` in `mirrored`) is "none".

    What is derived from the table is computed when it is first needed, and cached.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        table: Int[Tensor, "output entry"],
        mirrored_table: Int[Tensor, "input entry"] | None = None,
    ) -> None:
        """`table`: input row that an output row meets under each kernel entry.

        `mirrored_table`: as `mirrored`; None where it is the table with its entries in reverse, as it is on
        the same voxels.
        """
        self.n_in, self.n_out, self.table, self.mirrored_table = n_in, n_out, table, mirrored_table
        self._blocks: dict[int, tuple[Block, ...]] = {}
        self._blocks_of_transposed: dict[int, tuple[Block, ...]] = {}
        self._origin: ref[KernelMap] | None = None

    @property
    def n_entries(self) -> int:
        return self.table.shape[1]

    @cached_property
    def mirrored(self) -> Int[Tensor, "input entry"]:
        """Output row that an input row contributes to under each kernel entry."""
        return self.table.flip(1) if self.mirrored_table is None else self.mirrored_table

    @property
    def transposed(self) -> KernelMap:
        """The map with inputs and outputs exchanged: that of the gradient and of the inverse convolution."""
        origin = None if self._origin is None else self._origin()
        if origin is not None:
            return origin
        swapped = KernelMap(self.n_out, self.n_in, self.mirrored, self.table)
        swapped._blocks, swapped._blocks_of_transposed = self._blocks_of_transposed, self._blocks
        # No cycle: it would keep the tables of several steps until garbage is looked for.
        swapped._origin = ref(self)
        return swapped

    def blocks(self, n_rows: int) -> tuple[Block, ...]:
        """The pairs in blocks of `n_rows` output rows; found once per block size."""
        if n_rows not in self._blocks:
            stops = [(start, min(start + n_rows, self.n_out)) for start in range(0, self.n_out, n_rows)]
            self._blocks[n_rows] = tuple(self._block(start, stop) for start, stop in stops)
        return self._blocks[n_rows]

    def mirrored_blocks(self, n_rows: int) -> tuple[Block, ...]:
        """The pairs in blocks of `n_rows` input rows, which are the outputs of the blocks."""
        if self.mirrored_table is not None:
            return self.transposed.blocks(n_rows)
        return tuple(replace(block, reversed=True) for block in self.blocks(n_rows))

    def _block(self, start: int, stop: int) -> Block:
        table = self.table[start:stop].t().contiguous()
        met = table < self.n_in
        place = met.view(-1).nonzero()[:, 0]
        ranks = met.int()  # of a pair among those of its output row; counted from 1
        for before, here in pairwise(ranks.unbind()):
            here += before
        starts = F.pad(ranks[-1].cumsum(0, dtype=torch.int32), (1, 0))
        position = (ranks + (starts[:-1] - 1)).view(-1).index_select(0, place)
        number = torch.arange(len(place), dtype=torch.int32, device=table.device)
        output = torch.arange(stop - start, dtype=torch.int32, device=table.device)
        return Block(
            rows=slice(start, stop),
            counts=tuple(met.sum(1).tolist()),
            inputs=table.view(-1).index_select(0, place),
            outputs=output.expand_as(table).reshape(-1).index_select(0, place),
            order=torch.empty_like(number).scatter_(0, position.long(), number),
            starts=starts,
        )


@dataclass(frozen=True, eq=False)
class Level:
    """The occupied voxels of one resolution, and the kernel maps that layers have asked for so far."""

    indices: Int[Tensor, "voxel 4"]
    """(scene, x, y, z), lexicographically ascending, no two equal."""
    extent: Triple
    """Size of the grid; a strided convolution drops what lies beyond its last whole step."""
    n_scenes: int
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def submanifold(self, kernel: int | Sequence[int]) -> KernelMap:
        """The map of a convolution whose output voxels are its input voxels. Kernel sizes are odd."""
        size = triple(kernel)
        if any(k < 1 or k % 2 == 0 for k in size):
            raise ValueError(f"a submanifold convolution needs odd kernel sizes, got {size}")
        if ("submanifold", size) not in self.cache:
            table = self._neighbours(size)
            self.cache["submanifold", size] = KernelMap(len(self), len(self), table)
        return self.cache["submanifold", size]

    def strided(self, kernel: int | Sequence[int], stride: int | Sequence[int]) -> tuple[KernelMap, Level]:
        """The map of a strided convolution without padding, and the level of its output.

        Output voxel q meets input voxel `stride * q + entry`; it exists where it meets any, up to
        `(extent - kernel) // stride`, as in spconv.
        """
        key = ("strided", triple(kernel), triple(stride))
        if key not in self.cache:
            self.cache[key] = _strided_map(self, triple(kernel), triple(stride))
        return self.cache[key]

    def _neighbours(self, size: Triple) -> Int[Tensor, "voxel entry"]:
        larger = self._larger_table(size)
        if larger is not None:
            return larger
        if self.indices.device.type == "cpu" and len(self):
            looked_up = self._neighbours_by_table(size)
            if looked_up is not None:
                return looked_up
        return self._neighbours_by_search(size)

    def _neighbours_by_table(self, size: Triple) -> Int[Tensor, "voxel entry"] | None:
        """With a number for every cell of the grid; None where the grid is too large for that."""
        radius = triple([k // 2 for k in size])
        used = triple([int(h) + 1 for h in self.indices[:, 1:].amax(0).tolist()])
        n_cells = self.n_scenes * prod(u + 2 * r for u, r in zip(used, radius, strict=True))
        if n_cells > max(CELLS_PER_VOXEL * len(self), FEW_CELLS) or n_cells >= 2**31:
            return None
        keys, (_, *steps) = _keys(self.indices, used, self.n_scenes, margin=radius)
        row = torch.full((n_cells,), len(self), dtype=torch.int32)
        row.scatter_(0, keys, torch.arange(len(self), dtype=torch.int32))
        keys = keys.int()
        table = torch.empty((prod(size), len(self)), dtype=torch.int32)
        offsets = product(*(range(-r, r + 1) for r in radius))
        for found, offset in zip(table, offsets, strict=True):
            shift = sum(o * s for o, s in zip(offset, steps, strict=True))
            torch.index_select(row, 0, keys + shift, out=found)
        return table.t()

    def _neighbours_by_search(self, size: Triple) -> Int[Tensor, "voxel entry"]:
        radius = triple([k // 2 for k in size])
        keys, (_, step_x, step_y, _) = _keys(self.indices, self.extent, self.n_scenes, margin=radius)
        n, depth = len(keys), size[2]
        padded = torch.cat([keys, keys.new_full((depth,), torch.iinfo(torch.int64).max)])
        table = torch.empty((*size, n), dtype=torch.int32, device=keys.device)
        # Voxels of one column are consecutive, so one search finds all neighbours along z.
        for x in range(size[0]):
            for y in range(size[1]):
                shift = (x - radius[0]) * step_x + (y - radius[1]) * step_y - radius[2]
                wanted = keys + shift
                position = torch.searchsorted(keys, wanted)
                for z in range(depth):
                    hit = padded[position] == wanted + z
                    table[x, y, z] = torch.where(hit, position, n)
                    position = position + hit
        return table.flatten(0, 2).t()

    def _larger_table(self, size: Triple) -> Int[Tensor, "voxel entry"] | None:
        """The middle of the table of a larger kernel, if one has been made."""
        for kind, other, *_ in list(self.cache):
            if kind == "submanifold" and all(o >= k for o, k in zip(other, size, strict=True)):
                table = self.cache[kind, other].table.t().view(*other, len(self))
                middle = tuple(slice((o - k) // 2, (o + k) // 2) for o, k in zip(other, size, strict=True))
                return table[middle].flatten(0, 2).t()
        return None


def _keys(
    indices: Int[Tensor, "voxel 4"], extent: Triple, n_scenes: int, margin: Triple = (0, 0, 0)
) -> tuple[Int[Tensor, " voxel"], tuple[int, int, int, int]]:
    """One integer per voxel that sorts lexicographically, and what a step of scene, x, y, z adds to it."""
    wide = [max(e + 2 * m, 1) for e, m in zip(extent, margin, strict=True)]
    steps = (wide[0] * wide[1] * wide[2], wide[1] * wide[2], wide[2], 1)
    if max(n_scenes, 1) * steps[0] >= 2**62:
        raise ValueError(f"{n_scenes} scenes of {extent} voxels cannot be numbered with 62 bits")
    start = sum(m * s for m, s in zip(margin, steps[1:], strict=True))
    scene, *position = indices.long().unbind(1)
    number = scene * steps[0] + start
    for axis, step in zip(position, steps[1:], strict=True):
        number.add_(axis, alpha=step)
    return number, steps


def voxel_keys(indices: Int[Tensor, "voxel 4"], extent: Triple, n_scenes: int) -> Int[Tensor, " voxel"]:
    """One integer per voxel of a grid, ascending in (scene, x, y, z). Raises ValueError for a grid of more
    than 2^62 voxels."""
    return _keys(indices, extent, n_scenes)[0]


def _strided_map(level: Level, kernel: Triple, stride: Triple) -> tuple[KernelMap, Level]:
    extent = triple([(e - k) // s + 1 for e, k, s in zip(level.extent, kernel, stride, strict=True)])
    row, entry, coarse = _strided_pairs(level, kernel, stride, extent)
    keys, steps = _keys(coarse, extent, level.n_scenes)
    unique, output = torch.unique(keys, return_inverse=True)
    n_in, n_out, n_entries = len(level), len(unique), kernel[0] * kernel[1] * kernel[2]
    table = torch.full((n_out, n_entries), n_in, dtype=torch.int32, device=keys.device)
    mirrored = torch.full((n_in, n_entries), n_out, dtype=torch.int32, device=keys.device)
    table[output, entry] = row.int()
    mirrored[row, entry] = output.int()
    kernel_map = KernelMap(n_in, n_out, table, mirrored)
    indices = torch.stack(
        [unique // steps[0], unique % steps[0] // steps[1], unique % steps[1] // steps[2], unique % steps[2]],
        1,
    )
    return kernel_map, Level(indices, extent, level.n_scenes)


def _strided_pairs(
    level: Level, kernel: Triple, stride: Triple, extent: Triple
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"], Int[Tensor, "pair 4"]]:
    """Input row, kernel entry and output voxel of every pair."""
    device = level.indices.device
    position, scene = level.indices[:, 1:].long(), level.indices[:, :1].long()
    step, limit = torch.tensor(stride, device=device), torch.tensor(extent, device=device)
    rows, entries, outputs = [], [], []
    # Along each axis a voxel meets the outputs floor(p / stride) - j for a few j.
    reach = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    for back in torch.cartesian_prod(*[torch.arange(r) for r in reach]).view(-1, 3).to(device):
        output = position.div(step, rounding_mode="floor") - back
        offset = position - output * step
        met = _inside(output, limit) & _inside(offset, torch.tensor(kernel, device=device))
        row = met.nonzero()[:, 0]
        at = offset[row]
        rows.append(row)
        entries.append((at[:, 0] * kernel[1] + at[:, 1]) * kernel[2] + at[:, 2])
        outputs.append(torch.cat([scene[row], output[row]], 1))
    return torch.cat(rows), torch.cat(entries), torch.cat(outputs)


def _inside(index: Int[Tensor, "voxel 3"], limit: Int[Tensor, "3"]) -> Bool[Tensor, " voxel"]:
    return ((index >= 0) & (index < limit)).all(1)


def sorted_level(
    grid_coord: Int[Tensor, "voxel 3"], scene: Int[Tensor, " voxel"], n_scenes: int, pad: int = 0
) -> tuple[Level, Int[Tensor, " voxel"]]:
    """The finest level, and `order` such that its rows are `grid_coord[order]`.

    The grid is as large as the largest index of the whole batch plus `pad`, per axis.
    Raises ValueError for negative indices, scenes out of range and voxels that occur twice.
    """
    if len(grid_coord) == 0:
        empty = torch.empty(0, 4, dtype=torch.int64, device=grid_coord.device)
        return Level(empty, triple(max(pad, 1)), n_scenes), empty[:, 0]
    low, high = grid_coord.min(), grid_coord.amax(0)
    if int(low) < 0:
        raise ValueError(f"voxel indices must not be negative, got {int(low)}")
    if int(scene.min()) < 0 or int(scene.max()) >= n_scenes:
        raise ValueError(f"scene numbers must lie in 0..{n_scenes - 1}")
    extent = triple([int(h) + max(pad, 1) for h in high.tolist()])
    indices = torch.cat([scene[:, None].long(), grid_coord.long()], 1)
    keys, _ = _keys(indices, extent, n_scenes)
    keys, order = keys.sort(stable=True)
    if len(keys) > 1 and bool((keys[1:] == keys[:-1]).any()):
        twice = indices[order[1:]][keys[1:] == keys[:-1]][0].tolist()
        raise ValueError(
            f"voxel {twice[1:]} of scene {twice[0]} occurs more than once; voxelise the points first"
        )
    return Level(indices[order], extent, n_scenes), order
