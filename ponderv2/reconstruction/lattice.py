"""Values at some points of a regular lattice, and their trilinear mixture anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Mixture:
    """Rows of the 8 lattice points around each point, and how they are mixed there."""

    rows: Int[Tensor, "point 8"]
    weight: Float[Tensor, "point 8"]
    """0 for lattice points that hold no value."""
    slope: Float[Tensor, "point 3 8"] | None = None
    """Derivative of `weight` with respect to x, y, z, where it was asked for."""


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
        index = torch.full((size[0] * size[1] * size[2],), -1, dtype=torch.int32)
        index[position.long()] = torch.arange(len(position), dtype=torch.int32)
        self.register_buffer("index", index, persistent=False)
        offset = [x + size[0] * (y + size[1] * z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self.offset: Tensor
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

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

    def at(self, points: Float[Tensor, "point 3"], slopes: bool = False) -> Mixture:
        """The mixture at points; outside, that of the nearest place inside."""
        largest = torch.tensor(self.size, device=points.device).float() - 1.001
        place = ((points - self.lower) / self.cell).clamp(min=0.0).minimum(largest)
        first = place.floor()
        x, y, z = (torch.stack([1.0 - f, f], dim=-1) for f in (place - first).unbind(dim=-1))
        cell = first.long()
        corner = cell[:, 0] + self.size[0] * (cell[:, 1] + self.size[1] * cell[:, 2])
        rows = self.index[corner[:, None] + self.offset].long()
        holds = rows >= 0
        slope = None
        if slopes:
            ends = points.new_tensor([-1.0 / self.cell, 1.0 / self.cell]).expand(len(points), 2)
            slope = torch.stack([_product(ends, y, z), _product(x, ends, z), _product(x, y, ends)], dim=1)
            slope = slope * holds[:, None]
        return Mixture(rows.clamp(min=0), _product(x, y, z) * holds, slope)


def _product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).reshape(-1, 8)


def mixed(table: Float[Tensor, "row channel"], mixture: Mixture) -> Float[Tensor, "point channel"]:
    """The values at the points."""
    return F.embedding_bag(mixture.rows, table, mode="sum", per_sample_weights=mixture.weight)


def mixed_scalar(table: Float[Tensor, " row"], mixture: Mixture) -> Float[Tensor, " point"]:
    """The value at the points."""
    return (table[mixture.rows] * mixture.weight).sum(-1)


def mixed_slope(table: Float[Tensor, " row"], mixture: Mixture) -> Float[Tensor, "point 3"]:
    """Its derivative with respect to the points; the mixture was asked for with slopes."""
    if mixture.slope is None:
        raise ValueError("the mixture was made without slopes")
    return (mixture.slope * table[mixture.rows][:, None]).sum(-1)


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
