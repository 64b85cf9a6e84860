"""A dense 3x3x3 convolution whose input is zero but for some cells: what it reaches, and from where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.sparse.kernel_maps import KernelMap


@dataclass(frozen=True)
class Dilation:
    """Cells that see an occupied one under a kernel of 3 with padding 1, and which."""

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
