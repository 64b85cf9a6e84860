"""Classes made without labels, by what surrounds each point: targets that can be rendered beside colours.

Statistics of colour, orientation and occupancy in boxes of several sizes around every voxel of the fused
cloud. They are invariant under turns about the vertical by right angles and under mirror images.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from experiments.gain_rooms import Room
from ponderv2.data.voxelise import voxelise

CELL = 0.15
SIZES = (3, 7, 15)
"""Edges of the boxes, in cells."""


def surroundings(room: Room) -> tuple[Float[Tensor, "voxel statistic"], Int[Tensor, " point"]]:
    """Statistics around each occupied cell, and the cell of every point."""
    voxels = voxelise(room.coord, CELL)
    cells = voxels.grid_coord
    coord, color = _means(room.coord, voxels.inverse), _means(room.color, voxels.inverse)
    normal = F.normalize(_means(room.normal, voxels.inverse), dim=1)
    up, steep = normal[:, 2:], normal[:, 2:].abs()
    own = [coord[:, 2:], up, steep, color, _border_distance(coord)]
    one = torch.ones_like(up)
    summed = torch.cat([one, color, color.square(), up, steep, coord, normal], 1)
    grid = _grid(summed, cells)
    parts = [_around(grid, size, cells, coord, normal) for size in SIZES]
    return torch.cat(own + parts, 1), voxels.inverse


def _means(values: Float[Tensor, "point n"], cell: Int[Tensor, " point"]) -> Float[Tensor, "cell n"]:
    counts = torch.bincount(cell)[:, None]
    return values.new_zeros(len(counts), values.shape[1]).index_add_(0, cell, values) / counts


def _border_distance(coord: Float[Tensor, "voxel 3"]) -> Float[Tensor, "voxel 1"]:
    """Horizontal distance to the bounding box of the room, at most a metre."""
    inward = torch.minimum(coord - coord.amin(0), coord.amax(0) - coord)[:, :2]
    return inward.amin(1, keepdim=True).clamp(max=1.0)


def _grid(values: Float[Tensor, "voxel n"], cells: Int[Tensor, "voxel 3"]) -> Float[Tensor, "1 n x y z"]:
    shape = (cells.amax(0) + 1).tolist()
    grid = values.new_zeros(*shape, values.shape[1])
    grid[tuple(cells.unbind(1))] = values
    return grid.permute(3, 0, 1, 2)[None]


def _around(
    grid: Tensor, size: int, cells: Int[Tensor, "voxel 3"], coord: Tensor, normal: Tensor
) -> Float[Tensor, "voxel statistic"]:
    half = size // 2
    volume = float(size**3)
    box = _pooled(grid, size)[0]
    x, y, z = cells.unbind(1)
    sums = box[:, x, y, z].T * volume
    count = sums[:, :1]
    means = sums / count
    color, square, up, steep, middle, mean_normal = means[:, 1:].split([3, 3, 1, 1, 3, 3], 1)
    spread = (square - color.square()).clamp(min=0).sqrt()
    shift = middle - coord
    # Occupancy of the boxes above and below: pooled once, read half a box away.
    tall = F.pad(box[:1], (half, half))[0] * volume
    above, below = tall[x, y, z + 2 * half], tall[x, y, z]
    return torch.cat(
        [
            count.log(),
            color,
            spread,
            up,
            steep,
            shift[:, 2:],
            (shift * normal).sum(1, keepdim=True),
            (mean_normal * normal).sum(1, keepdim=True),
            shift[:, :2].norm(dim=1, keepdim=True),
            (above[:, None] + 1).log(),
            (below[:, None] + 1).log(),
        ],
        1,
    )


def _pooled(grid: Float[Tensor, "1 n x y z"], size: int) -> Float[Tensor, "1 n x y z"]:
    """Mean over boxes, cells outside counting as zero; one axis after the other."""
    half = size // 2
    for axis in range(3):
        kernel = tuple(size if a == axis else 1 for a in range(3))
        padding = tuple(half if a == axis else 0 for a in range(3))
        grid = F.avg_pool3d(grid, kernel, 1, padding)
    return grid


def found_classes(rooms: list[Room], n_classes: int, iterations: int = 15) -> list[Int[Tensor, " pixel"]]:
    """Group the points of all rooms by their surroundings (k-means); the group that each pixel shows."""
    found = [surroundings(room) for room in rooms]
    every = torch.cat([statistic for statistic, _ in found])
    mean, deviation = every.mean(0), every.std(0) + 1e-6
    scaled = [((statistic - mean) / deviation).clamp(-4, 4) for statistic, _ in found]
    centres = _k_means(torch.cat(scaled), n_classes, iterations)
    groups = []
    for room, values, (_, cell) in zip(rooms, scaled, found, strict=True):
        at_points = torch.cdist(values, centres).argmin(1)[cell]
        groups.append(at_points[nearest(room.coord, room.hit)])
    return groups


def _k_means(values: Float[Tensor, "point n"], n_groups: int, iterations: int) -> Float[Tensor, "group n"]:
    generator = torch.Generator().manual_seed(0)
    sample = values[torch.randperm(len(values), generator=generator)[:20000]]
    centres = sample[:n_groups].clone()
    for _ in range(iterations):
        group = torch.cdist(sample, centres).argmin(1)
        counts = torch.bincount(group, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, group, sample)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def nearest(points: Float[Tensor, "point 3"], queries: Float[Tensor, "query 3"]) -> Int[Tensor, " query"]:
    """The nearest point of each query."""
    from scipy.spatial import cKDTree

    return torch.from_numpy(cKDTree(points.numpy()).query(queries.numpy())[1]).long()
