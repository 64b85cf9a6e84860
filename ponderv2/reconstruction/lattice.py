"""Values at some points of a regular lattice, and their trilinear mixture anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Mixture:
    """The 8 lattice points around each point. Corner-major, which is several times faster on a CPU."""

    rows: Int[Tensor, "8 point"]
    """x fastest. One beyond the last row for lattice points that hold no value: they count as zero."""
    fraction: Float[Tensor, "3 point"]
    """x, y, z within the cell, 0..1."""
    cell: float


class SparseLattice(nn.Module):
    """Which points of a lattice hold values. Only their positions are stored with the scene."""

    def __init__(
        self,
        lower: Float[Tensor, "3"],
        cell: float,
        size: tuple[int, int, int],
        position: Int[Tensor, " row"],
    ) -> None:
        """`size`: lattice points along x, y, z; `position`: (z * size_y + y) * size_x + x, ascending."""
        super().__init__()
        self.cell, self.size = cell, size
        self.lower: Tensor
        self.position: Tensor
        self.index: Tensor
        self.register_buffer("lower", lower.float().clone())
        self.register_buffer("position", position.long())
        index = torch.full((size[0] * size[1] * size[2],), len(position), dtype=torch.int32)
        index[position.long()] = torch.arange(len(position), dtype=torch.int32)
        self.register_buffer("index", index, persistent=False)
        offset = [x + size[0] * (y + size[1] * z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self.offset: Tensor
        self.register_buffer("offset", torch.tensor(offset)[:, None], persistent=False)

    @property
    def n_rows(self) -> int:
        """Lattice points that hold a value."""
        return len(self.position)

    def points(self) -> Float[Tensor, "row 3"]:
        """Where the values are, scene units."""
        x = self.position % self.size[0]
        y = torch.div(self.position, self.size[0], rounding_mode="floor") % self.size[1]
        z = torch.div(self.position, self.size[0] * self.size[1], rounding_mode="floor")
        return self.lower + self.cell * torch.stack([x, y, z], dim=-1).float()

    def at(self, points: Float[Tensor, "point 3"]) -> Mixture:
        """The mixture at points; outside, that of the nearest place inside."""
        place = (points.T - self.lower[:, None]) / self.cell
        largest = torch.tensor(self.size, device=points.device)[:, None] - 1.001
        place = place.clamp(min=0.0).minimum(largest)
        x, y, z = place.long()
        corner = x + self.size[0] * (y + self.size[1] * z)
        rows = self.index.index_select(0, (corner + self.offset).view(-1)).view(8, -1)
        return Mixture(rows, place - place.floor(), self.cell)


def mixed(table: Float[Tensor, "row channel"], mixture: Mixture) -> Float[Tensor, "point channel"]:
    """The values at the points."""
    x, y, z = (torch.stack([1.0 - part, part]) for part in mixture.fraction)
    weight = (z[:, None, None] * y[:, None] * x).view(8, -1) * (mixture.rows < len(table))
    rows = mixture.rows.clamp(max=len(table) - 1).T.contiguous()
    return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weight.T.contiguous())


def mixed_scalar(table: Float[Tensor, " row"], mixture: Mixture) -> Float[Tensor, " point"]:
    """The value at the points."""
    value = _corners(table, mixture)
    for part in mixture.fraction:
        value = torch.lerp(value[0::2], value[1::2], part)
    return value[0]


def mixed_slope(table: Float[Tensor, " row"], mixture: Mixture) -> Float[Tensor, "point 3"]:
    """Its derivative with respect to the points."""
    slopes = []
    for axis in range(3):
        value = _corners(table, mixture)
        for other, part in enumerate(mixture.fraction):
            low, high = value[0::2], value[1::2]
            value = (high - low) / mixture.cell if other == axis else torch.lerp(low, high, part)
        slopes.append(value[0])
    return torch.stack(slopes, dim=-1)


def _corners(table: Tensor, mixture: Mixture) -> Float[Tensor, "8 point"]:
    return F.pad(table, (0, 1)).index_select(0, mixture.rows.view(-1)).view(8, -1)


def lattice_size(lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], cell: float) -> tuple[int, int, int]:
    """Lattice points along x, y, z that cover a box, with one to spare."""
    x, y, z = (torch.ceil((upper - lower) / cell).long() + 2).tolist()
    return x, y, z


def dense_lattice(lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], cell: float) -> SparseLattice:
    """Every lattice point of a box."""
    size = lattice_size(lower, upper, cell)
    return SparseLattice(lower, cell, size, torch.arange(size[0] * size[1] * size[2]))


def lattice_around(
    points: Float[Tensor, "point 3"],
    lower: Float[Tensor, "3"],
    upper: Float[Tensor, "3"],
    cell: float,
    n_rings: int,
) -> SparseLattice:
    """The corners of the cells that hold a point and of `n_rings` rings of cells around them."""
    size = lattice_size(lower, upper, cell)
    place = ((points - lower) / cell).floor().long()
    inside = ((place >= 0) & (place < torch.tensor(size) - 1)).all(dim=-1)
    x, y, z = place[inside].unbind(dim=-1)
    used = torch.zeros(size[2], size[1], size[0], dtype=torch.bool)
    used.view(-1)[(z * size[1] + y) * size[0] + x] = True
    return SparseLattice(lower, cell, size, torch.nonzero(_grown(used, n_rings).view(-1))[:, 0])


def _grown(used: Bool[Tensor, "z y x"], n_rings: int) -> Bool[Tensor, "z y x"]:
    """Grown by `n_rings` downwards and `n_rings` + 1 upwards along each axis: cells become their corners."""
    for axis in range(3):
        grown = used.clone()
        length = used.shape[axis]
        for step in range(-n_rings, n_rings + 2):
            source = used.narrow(axis, max(-step, 0), length - abs(step))
            target = grown.narrow(axis, max(step, 0), length - abs(step))
            target |= source
        used = grown
    return used
