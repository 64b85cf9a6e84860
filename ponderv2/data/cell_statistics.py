"""What surrounds each occupied cell of a cloud: statistics of occupancy, colour and orientation in boxes.

They need no labels, and do not change when a scene is shifted horizontally, turned about the vertical by a
right angle or mirrored along an axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.data.config import ClustersConfig
from ponderv2.data.voxelise import voxelise
from ponderv2.scenes.scene import PointCloud

Group = str
"""Statistics that a cloud has together or not at all."""
GROUPS: tuple[Group, ...] = ("shape", "color", "normal")
TILE = 64
"""Edge of the columns of cells whose sums are computed at once: the memory does not grow with the scene."""
BORDER = 1.0
"""Metres. Farther from the sides of the bounding box the distance to them does not count."""
FLOOR = 0.01
"""Share of the cells that may lie below the floor, from which heights are measured."""


@dataclass(frozen=True)
class CellStatistics:
    """Statistics of the occupied cells of one cloud, in metres."""

    parts: Mapping[Group, Float[Tensor, "cell _"]]
    """Those that the cloud has; `shape` always. A cloud of one colour has none."""
    inverse: Int[Tensor, " point"]
    """Cell of every point."""

    def __len__(self) -> int:
        return len(self.parts["shape"])


def cell_statistics(
    cloud: PointCloud, config: ClustersConfig, units_per_metre: float = 1.0
) -> CellStatistics:
    """Statistics around each occupied cell. Needs points: ValueError for a cloud without any."""
    voxels = voxelise(cloud.coord, config.cell * units_per_metre)
    cells, inverse = voxels.grid_coord, voxels.inverse
    coord = _means(cloud.coord.double() / units_per_metre, inverse)
    color = None
    if cloud.color is not None and _varies(cloud.color):
        color = _means(cloud.color.double() / 255.0, inverse)
    normal = None
    if cloud.normal is not None and _varies(cloud.normal):
        normal = F.normalize(_means(cloud.normal.double(), inverse), dim=1)
    columns = _Columns.of(coord, color, normal)
    own = {"shape": [_height(coord), _border_distance(coord)], "color": [], "normal": []}
    if color is not None:
        own["color"].append(color)
    if normal is not None:
        own["normal"] += [normal[:, 2:], normal[:, 2:].abs()]
    for box in _box_sums(columns.values, cells, config.sizes):
        for group, found in columns.around(box, coord, normal).items():
            own[group] += found
    parts: dict[Group, Tensor] = {
        group: torch.cat(own[group], dim=1).float() for group in GROUPS if own[group]
    }
    return CellStatistics(parts, inverse)


def _varies(values: Float[Tensor, "point 3"]) -> bool:
    """Whether anything is known: readers give clouds without colours one grey."""
    return bool((values != values[:1]).any())


def _means(values: Float[Tensor, "point n"], cell: Int[Tensor, " point"]) -> Float[Tensor, "cell n"]:
    counts = torch.bincount(cell)[:, None]
    return values.new_zeros(len(counts), values.shape[1]).index_add_(0, cell, values) / counts


def _height(coord: Float[Tensor, "cell 3"]) -> Float[Tensor, "cell 1"]:
    """Above the floor, of which single points may lie below."""
    z = coord[:, 2]
    lowest = torch.kthvalue(z, 1 + int(FLOOR * (len(z) - 1))).values
    return (z - lowest)[:, None]


def _border_distance(coord: Float[Tensor, "cell 3"]) -> Float[Tensor, "cell 1"]:
    """Horizontal distance to the sides of the bounding box, at most `BORDER`."""
    inward = torch.minimum(coord - coord.amin(0), coord.amax(0) - coord)[:, :2]
    return inward.amin(1, keepdim=True).clamp(max=BORDER)


@dataclass(frozen=True)
class _BoxSums:
    """Sums over the cells of a box around each cell, and cells in the halves above and below."""

    sums: Float[Tensor, "cell n"]
    above: Float[Tensor, " cell"]
    below: Float[Tensor, " cell"]


@dataclass(frozen=True)
class _Columns:
    """What is summed over boxes: 1, the place and, where known, colour, its square and the normal."""

    values: Float[Tensor, "cell n"]
    has_color: bool
    has_normal: bool

    @staticmethod
    def of(coord: Tensor, color: Tensor | None, normal: Tensor | None) -> _Columns:
        columns = [torch.ones_like(coord[:, :1]), coord - coord.mean(0)]
        columns += [] if color is None else [color, color.square()]
        columns += [] if normal is None else [normal, normal[:, 2:].abs()]
        return _Columns(torch.cat(columns, dim=1), color is not None, normal is not None)

    def around(self, box: _BoxSums, coord: Tensor, normal: Tensor | None) -> dict[Group, list[Tensor]]:
        """The statistics of one size of boxes, by group."""
        count = box.sums[:, :1]
        means = box.sums / count
        shift = means[:, 1:4] - (coord - coord.mean(0))
        at, found = 4, dict[Group, list[Tensor]]()
        halves = torch.stack([box.above, box.below], dim=1)
        sideways = shift[:, :2].norm(dim=1, keepdim=True)
        found["shape"] = [count.log(), shift[:, 2:], sideways, (halves + 1).log()]
        if self.has_color:
            color, square = means[:, at : at + 3], means[:, at + 3 : at + 6]
            found["color"] = [color, (square - color.square()).clamp(min=0).sqrt()]
            at += 6
        if normal is not None:
            mean, steep = means[:, at : at + 3], means[:, at + 3 : at + 4]
            along = [(one * normal).sum(1, keepdim=True) for one in (shift, mean)]
            found["normal"] = [mean[:, 2:], steep, *along]
        return found


def _box_sums(
    values: Float[Tensor, "cell n"], cells: Int[Tensor, "cell 3"], sizes: Sequence[int]
) -> list[_BoxSums]:
    """Over boxes of each size, `size // 2` cells to each side; empty cells count as zero.

    Above and below: the number of cells in boxes of the same size, moved up and down by half a box.
    """
    found = [_BoxSums(torch.empty_like(values), *torch.empty_like(values[:, :2]).unbind(1)) for _ in sizes]
    margin = max(sizes) // 2
    tile = torch.div(cells[:, :2], TILE, rounding_mode="floor")
    number = tile[:, 0] * (int(tile[:, 1].max()) + 1) + tile[:, 1]
    for one in torch.unique(number).tolist():
        inner = torch.nonzero(number == one)[:, 0]
        lower = tile[inner[0]] * TILE - margin
        near = ((cells[:, :2] >= lower) & (cells[:, :2] < lower + TILE + 2 * margin)).all(dim=1)
        outer = torch.nonzero(near)[:, 0]
        shift = torch.cat([lower, lower.new_tensor([-2 * margin])]) - 1
        sums = _RunningSums.of(values[outer], cells[outer] - shift, margin)
        own = cells[inner] - shift
        for size, box in zip(sizes, found, strict=True):
            half = size // 2
            box.sums[inner] = sums.in_boxes(own, half)
            box.above[inner], box.below[inner] = (
                sums.in_boxes(own + own.new_tensor([0, 0, up]), half, slice(0, 1))[:, 0]
                for up in (half, -half)
            )
    return found


@dataclass(frozen=True)
class _RunningSums:
    """Sums over all cells of a grid up to each one (a summed-area table in three dimensions)."""

    grid: Float[Tensor, "x y z n"]

    @staticmethod
    def of(values: Float[Tensor, "cell n"], cells: Int[Tensor, "cell 3"], margin: int) -> _RunningSums:
        """Cells have room below them; `margin`: most cells that a box reaches to each side."""
        x, y, z = (cells.amax(0) + 1).tolist()
        grid = values.new_zeros(x + margin, y + margin, z + 2 * margin, values.shape[1])
        grid[cells[:, 0], cells[:, 1], cells[:, 2]] = values
        for axis in range(3):
            torch.cumsum(grid, axis, out=grid)
        return _RunningSums(grid)

    def in_boxes(
        self, middle: Int[Tensor, "cell 3"], half: int, columns: slice = slice(None)
    ) -> Float[Tensor, "cell _"]:
        """Sums over the boxes that reach `half` cells to each side of their middle."""
        ends = ((middle + half).unbind(1), (middle - half - 1).unbind(1))
        total = torch.zeros_like(self.grid[0, 0, 0, columns])[None]
        for i, j, k in itertools.product(range(2), repeat=3):
            corner = self.grid[ends[i][0], ends[j][1], ends[k][2], columns]
            total = total + corner if (i + j + k) % 2 == 0 else total - corner
        return total


def statistics_of(
    found: CellStatistics, groups: Sequence[Group], widths: Mapping[Group, int]
) -> tuple[Float[Tensor, "cell statistic"], Float[Tensor, " statistic"]]:
    """The groups side by side, zeros where the cloud lacks one, and 1 for each statistic that it has."""
    parts, there = [], []
    for group in groups:
        part = found.parts.get(group)
        there.append(torch.full((widths[group],), float(part is not None)))
        parts.append(torch.zeros(len(found), widths[group]) if part is None else part)
    return torch.cat(parts, dim=1), torch.cat(there)
