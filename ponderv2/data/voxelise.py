"""From points to voxels: one point represents each occupied cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FNV_OFFSET = 14695981039346656037 - 2**64
FNV_PRIME = 1099511628211
LOWEST = -(2**63)


@dataclass(frozen=True)
class VoxelGroups:
    """The points of each voxel, voxels in the order of their hash."""

    order: Int[Tensor, " point"]
    """Points, those of one voxel next to each other."""
    start: Int[Tensor, " voxel"]
    """Where the points of each voxel begin in `order`."""
    count: Int[Tensor, " voxel"]
    inverse: Int[Tensor, " point"]
    """Voxel of each point."""

    def pick(self, draw: Int[Tensor, "*#voxel"]) -> Int[Tensor, " voxel"]:
        """The (draw mod count)-th point of every voxel; draws are not negative."""
        return self.order.index_select(0, self.start + torch.fmod(draw, self.count))

    def fragments(self) -> list[Int[Tensor, " voxel"]]:
        """Selections of one point a voxel that together contain every point."""
        at, end = self.start, self.start + self.count
        found = []
        for _ in range(int(self.count.max())):
            found.append(self.order.index_select(0, at))
            at = torch.where(at + 1 == end, self.start, at + 1)
        return found


@dataclass(frozen=True)
class Voxelisation:
    """One point per voxel, and the way back."""

    index: Int[Tensor, " voxel"]
    """The point that represents each voxel."""
    grid_coord: Int[Tensor, "voxel 3"]
    """Voxel index (x, y, z), minimum 0."""
    inverse: Int[Tensor, " point"]
    """Voxel of every point."""
    lower: Float[Tensor, "3"]
    """Corner of voxel (0, 0, 0), in the units of the points."""

    @staticmethod
    def empty() -> Voxelisation:
        """Of no points."""
        none = torch.zeros(0, dtype=torch.long)
        return Voxelisation(none, none.reshape(0, 3), none, torch.zeros(3))


def grid_cells(
    coord: Float[Tensor, "point 3"], size: float
) -> tuple[Int[Tensor, "point 3"], Int[Tensor, "3"]]:
    """Cell of every point, shifted to minimum 0, and that minimum."""
    # Column by column: reductions along long rows of three are several times slower.
    columns = torch.empty(3, len(coord), dtype=torch.double).copy_(coord.T).div_(size).floor_()
    minimum = columns.amin(dim=1)
    cells = torch.empty(len(coord), 3, dtype=torch.long).copy_(columns.sub_(minimum[:, None]).T)
    return cells, minimum.long()


def offset_in_voxel(coord: Float[Tensor, "point 3"], size: float) -> Float[Tensor, "point 3"]:
    """Position within the own cell, -0.5..0.5 cells from its centre."""
    scaled = coord.double() / size
    return (scaled - torch.floor(scaled) - 0.5).to(coord.dtype)


def fnv_hash(cells: Int[Tensor, "point 3"]) -> Int[Tensor, " point"]:
    """64-bit FNV over x, y, z, each taken as one octet. The bits are those of an unsigned number."""
    key = torch.full_like(cells[:, 0], FNV_OFFSET)
    for axis in range(3):
        key = torch.bitwise_xor(key * FNV_PRIME, cells[:, axis])
    return key


def ravel_hash(cells: Int[Tensor, "point 3"]) -> Int[Tensor, " point"]:
    """Number of the cell in x-major order. Cells must not be negative."""
    size = cells.amax(dim=0) + 1
    return (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]


def hash_cells(cells: Int[Tensor, "point 3"], order: Literal["fnv", "ravel"]) -> Int[Tensor, " point"]:
    """The key by which voxels are ordered."""
    return fnv_hash(cells) if order == "fnv" else ravel_hash(cells)


def group_by_voxel(key: Int[Tensor, " point"], order: Int[Tensor, " point"] | None = None) -> VoxelGroups:
    """Points of equal key together, keys in unsigned order; ties keep the order of the points.

    `order` replaces the sorting where the order of ties is prescribed.
    """
    if order is None:
        order = torch.argsort(torch.bitwise_xor(key, torch.tensor(LOWEST)), stable=True)
    _, of_sorted, count = torch.unique_consecutive(key[order], return_inverse=True, return_counts=True)
    inverse = torch.empty_like(of_sorted)
    inverse[order] = of_sorted
    return VoxelGroups(order, torch.cumsum(count, 0) - count, count, inverse)


def group_cells(cells: Int[Tensor, "point 3"], order: Literal["fnv", "ravel"]) -> VoxelGroups:
    """What `group_by_voxel(hash_cells(cells, order))` gives, without sorting long keys of all points.

    Number of the cell and number of the point in one integer: plain numbers are sorted much faster than an
    order is found, and their order is stable by itself. Cells are hashed once each. Not negative.
    """
    n_bits = max(len(cells) - 1, 1).bit_length()
    size = (cells.amax(dim=0) + 1).tolist()
    if math.prod(size) >= 2 ** (63 - n_bits):
        return group_by_voxel(hash_cells(cells, order))
    packed = ravel_hash(cells).bitwise_left_shift_(n_bits).bitwise_or_(torch.arange(len(cells)))
    packed = torch.from_numpy(np.sort(packed.numpy()))
    point = packed & ((1 << n_bits) - 1)
    number, of_sorted, count = torch.unique_consecutive(
        packed.bitwise_right_shift_(n_bits), return_inverse=True, return_counts=True
    )
    start = torch.cumsum(count, 0) - count
    if order == "fnv":
        key = fnv_hash(torch.stack(torch.unravel_index(number, size), dim=1)).numpy().view(np.uint64)
        by_hash = np.argsort(key)
        if (np.diff(key[by_hash]) == 0).any():  # two cells of one hash count as one
            return group_by_voxel(hash_cells(cells, order))
        chosen = torch.from_numpy(by_hash)
        rank = torch.empty_like(chosen)
        rank[chosen] = torch.arange(len(chosen))
        of_sorted, start, count = rank[of_sorted], start[chosen], count[chosen]
    inverse = torch.empty_like(of_sorted)
    inverse[point] = of_sorted
    return VoxelGroups(point, start, count, inverse)


def voxelise(
    coord: Float[Tensor, "point 3"],
    size: float,
    order: Literal["fnv", "ravel"] = "fnv",
    generator: torch.Generator | None = None,
    preferred: Bool[Tensor, " point"] | None = None,
) -> Voxelisation:
    """One point for each occupied cell of side `size`, in hash order.

    Without a generator the first point of each voxel is taken. Where a voxel holds preferred points, one of
    them represents it.
    """
    if len(coord) == 0:
        raise ValueError("there are no points to voxelise")
    cells, minimum = grid_cells(coord, size)
    groups = group_cells(cells, order)
    if generator is None:
        draw = torch.zeros_like(groups.count)
    else:
        draw = torch.randint(int(groups.count.max()), groups.count.shape, generator=generator)
    index = groups.pick(draw)
    if preferred is not None and bool(preferred.any()):
        index = _prefer(index, groups, preferred, generator)
    lower = (minimum.double() * size).to(coord.dtype)
    return Voxelisation(index, cells.index_select(0, index), groups.inverse, lower)


def _prefer(
    index: Int[Tensor, " voxel"],
    groups: VoxelGroups,
    preferred: Bool[Tensor, " point"],
    generator: torch.Generator | None,
) -> Int[Tensor, " voxel"]:
    """Replace the representative of voxels that hold preferred points by a random one of these."""
    chosen = torch.nonzero(preferred)[:, 0]
    if generator is not None:
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
    first = torch.full((len(index),), len(chosen), dtype=torch.long)
    first.scatter_reduce_(0, groups.inverse[chosen], torch.arange(len(chosen)), reduce="amin")
    found = first < len(chosen)
    return torch.where(found, chosen[first.clamp(max=len(chosen) - 1)], index)
