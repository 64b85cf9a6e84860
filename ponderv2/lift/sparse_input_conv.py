"""3x3x3 convolutions of a volume that is mostly empty, without touching the empty cells.

After the norm an empty cell holds one value per channel, so the convolution is that of the occupied cells
alone plus that of a constant volume, which only knows inner cells and borders. Equal to the dense way up to
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ponderv2.collectives import sum_over_processes, world_size
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.sparse.kernel_maps import KernelMap
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.sparse.torch_backend import convolve

DENSE_OCCUPANCY_THRESHOLD = 0.25
"""Share of occupied cells from which the dense convolution is faster."""


def is_mostly_empty(cells: SparseVolume, together: bool = False) -> bool:
    """Whether leaving out the empty cells pays.

    The two ways exchange different sums in training. With `together` the processes of a run therefore decide
    alike, by the cells of all of them, which is also what one process with all scenes does.
    """
    n_occupied, n_cells = len(cells.rows), cells.n_cells
    if together and world_size() > 1:
        counts = torch.tensor([n_occupied, n_cells], device=cells.rows.device)
        n_occupied, n_cells = sum_over_processes(counts).tolist()
    return n_occupied < DENSE_OCCUPANCY_THRESHOLD * n_cells


def sparse_input_conv(
    cells: SparseVolume, norm: BatchNorm, weight: Float[Tensor, "out in 3 3 3"]
) -> Float[Tensor, "scene out z y x"]:
    """relu(conv(norm(volume))) with padding 1; the channel is last in memory."""
    scale, shift = norm.scale_and_shift(cells.rows, cells.n_cells)
    reach = dilation(cells.number, cells.shape)
    occupied = convolve(cells.rows * scale, weight.permute(0, 2, 3, 4, 1), reach.kernel_map)
    constant, kind = _constant_volume(shift, weight, cells.shape[1:])
    inner = cells.n_cells // cells.shape[0]
    rows = occupied + constant.index_select(0, kind.index_select(0, reach.number % inner))
    result = _FilledVolume.apply(torch.relu(rows), torch.relu(constant), reach.number, kind, cells.shape)
    return result.permute(0, 4, 1, 2, 3)


def sparse_conv(
    cells: SparseVolume, weight: Float[Tensor, "out in 3 3 3"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "scene out z y x"]:
    """conv(volume) + bias with padding 1; the channel is last in memory. No volume of the input is made."""
    reach = dilation(cells.number, cells.shape)
    rows = convolve(cells.rows, weight.permute(0, 2, 3, 4, 1), reach.kernel_map)
    empty = bias.expand(cells.n_cells, -1)
    return empty.index_copy(0, reach.number, rows + bias).view(*cells.shape, -1).permute(0, 4, 1, 2, 3)


def _constant_volume(
    value: Float[Tensor, " in"], weight: Float[Tensor, "out in 3 3 3"], size: tuple[int, int, int]
) -> tuple[Float[Tensor, "kind out"], Int[Tensor, " cell"]]:
    """The convolution of a volume that is `value` throughout: a row per kind of cell, each cell's kind."""
    short = [min(s, 3) for s in size]
    volume = value[:, None, None, None].expand(-1, *short)[None]
    found = F.conv3d(volume, weight, padding=1)[0].flatten(1).T
    z, y, x = (border_types(s, value.device) for s in size)
    return found, ((z[:, None, None] * short[1] + y[:, None]) * short[2] + x).reshape(-1)


class _FilledVolume(torch.autograd.Function):
    """The given rows in their cells, elsewhere the row of the border class: [scene, z, y, x, channel]."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: Tensor, constant: Tensor, number: Tensor, kind: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(number)
        result = rows.new_empty(shape[0], len(kind), rows.shape[1])
        torch.index_select(constant, 0, kind, out=result[0])
        result[1:] = result[:1]
        result.flatten(0, 1).index_copy_(0, number, rows)
        return result.view(*shape, -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        (number,) = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_rows = flat.index_select(0, number)
        empty = flat.index_fill(0, number, 0.0).view(gradient.shape)
        return of_rows, _sum_by_kind(empty), None, None, None


def _sum_by_kind(values: Float[Tensor, "scene z y x channel"]) -> Float[Tensor, "kind channel"]:
    """Sums over scenes and the cells of each kind."""
    for axis in (3, 2, 1):
        size = values.shape[axis]
        if size > 3:
            first, inner, last = values.split([1, size - 2, 1], dim=axis)
            values = torch.cat([first, inner.sum(axis, keepdim=True), last], dim=axis)
    return values.sum(0).flatten(0, 2)


@dataclass(frozen=True)
class Dilation:
    """Cells with an occupied one in their 3x3x3 neighbourhood, and the kernel map from those."""

    number: Int[Tensor, " reached"]
    """Of the cells that are reached, `((scene * size_z + z) * size_y + y) * size_x + x`, ascending."""
    kernel_map: KernelMap
    """From occupied to reached cells; entries along z, y, x with x fastest."""


def dilation(number: Int[Tensor, " cell"], shape: tuple[int, int, int, int]) -> Dilation:
    """`number`: the occupied cells of grids of `shape` (scenes, z, y, x), ascending.

    Tables over the whole grid stand in for searches: a dense volume is small enough for one integer a cell.
    """
    scenes, *size = shape
    wide = [s + 2 for s in size]
    steps = torch.arange(-1, 2, device=number.device)
    shift = (steps[:, None, None] * wide[1] + steps[:, None]) * wide[2] + steps
    shift = shift.reshape(-1)
    occupied = _padded_number(number, size)
    seen = number.new_zeros(scenes * wide[0] * wide[1] * wide[2], dtype=torch.bool)
    for step in shift:
        seen[occupied + step] = True
    inner = seen.view(scenes, *wide)[:, 1:-1, 1:-1, 1:-1]
    reached = inner.reshape(-1).nonzero()[:, 0]
    there = _padded_number(reached, size)
    table = _table(len(seen), occupied, there, shift)
    mirrored = _table(len(seen), there, occupied, -shift)
    return Dilation(reached, KernelMap(len(number), len(reached), table, mirrored))


def _padded_number(number: Int[Tensor, " cell"], size: list[int]) -> Int[Tensor, " cell"]:
    """The number of a cell in grids that are one cell larger on every side."""
    z, y, x = size
    row = number.div(x, rounding_mode="floor")
    plane = row.div(y, rounding_mode="floor")
    scene = plane.div(z, rounding_mode="floor")
    padded = scene * (z + 2) + plane - scene * z + 1
    return (padded * (y + 2) + row - plane * y + 1) * (x + 2) + number - row * x + 1


def _table(
    n_cells: int, wanted: Int[Tensor, " wanted"], start: Int[Tensor, " start"], shift: Int[Tensor, " entry"]
) -> Int[Tensor, "start entry"]:
    """Position in `wanted` of the cell at every shift from every start; `len(wanted)` for none."""
    position = torch.full((n_cells,), len(wanted), dtype=torch.int32, device=wanted.device)
    position[wanted] = torch.arange(len(wanted), dtype=torch.int32, device=wanted.device)
    return position[start[:, None] + shift]


def border_types(size: int, device: torch.device) -> Int[Tensor, " cell"]:
    """Which cell of the shortest axis with the same borders stands for each: first, inner, last."""
    index = torch.arange(size, device=device)
    return F.pad((index[1:] == size - 1).long() + 1, (1, 0)) if size > 2 else index
