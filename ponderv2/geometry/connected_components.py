"""Connected components, of any graph and of the graph that joins near points.

Points are sorted into cells so small that all points of one cell are near each other. Cells, not points, are
then joined, so that a thousand points in one cell cost no more than one: time and memory grow almost
linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

REACH = 2
"""Cells of edge radius / sqrt(3) that a radius can span on one axis: ceil(sqrt(3))."""
PAIRS_AT_ONCE = 1 << 17
"""Pairs of points that are compared before cells are joined: more cost memory, and time where few decide."""
FARTHEST = 1.0e9
"""Points farther from the origin, in radii, are alone: cell numbers stay exact."""


def radius_components(
    position: Float[Tensor, "point 3"], group: Int[Tensor, " point"], radius: float
) -> Int[Tensor, " point"]:
    """Of each point, the lowest number of a point that it is linked to.

    Two points of one group are linked when they are nearer than `radius` to each other, or both to a linked
    point. The number of links of a point is not limited. Points that are not finite are alone.
    """
    alone = torch.arange(len(position), device=position.device)
    usable = torch.nonzero((position.double().abs() < FARTHEST * radius).all(dim=1))[:, 0]
    if len(usable) == 0:
        return alone
    cells = _Cells.of(position[usable].double(), group[usable], radius)
    component = _joined_cells(cells, radius)[cells.cell]
    lowest = torch.full_like(component, len(position))
    lowest.scatter_reduce_(0, component, usable[cells.order], reduce="amin")
    alone[usable[cells.order]] = lowest[component]
    return alone


def connected_components(
    first: Int[Tensor, " edge"], second: Int[Tensor, " edge"], n_nodes: int
) -> Int[Tensor, " node"]:
    """A number per node, from 0 without gaps, equal for nodes that edges join, directly or through others."""
    if first.device.type == "cpu":
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components as by_search

        ones = torch.ones(len(first), dtype=torch.bool).numpy()
        graph = coo_array((ones, (first.numpy(), second.numpy())), shape=(n_nodes, n_nodes))
        return torch.from_numpy(by_search(graph.tocsr(), directed=False)[1]).long()
    return components_by_hooking(first, second, n_nodes)


def components_by_hooking(
    first: Int[Tensor, " edge"], second: Int[Tensor, " edge"], n_nodes: int
) -> Int[Tensor, " node"]:
    """`connected_components` in operations that run on any device: hooking and pointer jumping.

    Every node points to one of a lower number in its component, or to itself. Roots of both ends of an edge
    are hooked, pointers are shortened, until no edge has two roots.
    """
    parent = torch.arange(n_nodes, device=first.device)
    while len(first):
        one, other = parent[first], parent[second]
        parent = parent.scatter_reduce(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while True:
            shorter = parent[parent]
            if torch.equal(shorter, parent):
                break
            parent = shorter
        apart = parent[first] != parent[second]
        first, second = first[apart], second[apart]
    return torch.unique(parent, return_inverse=True)[1]


@dataclass(frozen=True)
class _Cells:
    """Points sorted by cell. Points of one cell are of one group and nearer to each other than the radius."""

    position: Float[Tensor, "point 3"]
    order: Int[Tensor, " point"]
    """Number of each sorted point among the points as they were given."""
    cell: Int[Tensor, " point"]
    """Cell of each sorted point."""
    key: Int[Tensor, " cell"]
    """Ascending; the cell at (dx, dy, dz) from key k has key k + dx * stride[0] + dy * stride[1] + dz."""
    stride: tuple[int, int]
    count: Int[Tensor, " cell"]
    start: Int[Tensor, " cell"]
    lower: Float[Tensor, "cell 3"]
    """Least coordinates of the points of each cell."""
    upper: Float[Tensor, "cell 3"]

    @staticmethod
    def of(position: Float[Tensor, "point 3"], group: Int[Tensor, " point"], radius: float) -> _Cells:
        """Cells whose diagonal is a little shorter than the radius."""
        edge = radius / 3.0**0.5 * (1.0 - 1.0e-9)
        index = torch.floor(position / edge).long()
        axes = [_without_gaps(index[:, axis]) for axis in range(3)]
        sizes = [int(axis.max()) + 1 + REACH for axis in axes]
        stride = (sizes[1] * sizes[2], sizes[2])
        number = torch.unique(group, return_inverse=True)[1]
        if (int(number.max()) + 1) * sizes[0] * stride[0] >= 2**62:
            raise ValueError(f"the points are spread over too many cells: {sizes}")
        key = ((number * sizes[0] + axes[0]) * sizes[1] + axes[1]) * sizes[2] + axes[2]
        key, order = torch.sort(key, stable=True)
        position = position[order]
        key, cell, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
        where = cell[:, None].expand(-1, 3)
        lower = position.new_full((len(key), 3), torch.inf).scatter_reduce(0, where, position, "amin")
        upper = position.new_full((len(key), 3), -torch.inf).scatter_reduce(0, where, position, "amax")
        start = torch.cumsum(count, 0) - count
        return _Cells(position, order, cell, key, stride, count, start, lower, upper)


def _without_gaps(index: Int[Tensor, " point"]) -> Int[Tensor, " point"]:
    """Numbers from REACH on with the same differences up to REACH; greater ones become REACH + 1."""
    values, inverse = torch.unique(index, return_inverse=True)
    steps = torch.diff(values, prepend=values[:1]).clamp(max=REACH + 1)
    return (torch.cumsum(steps, 0) + REACH)[inverse]


def _joined_cells(cells: _Cells, radius: float) -> Int[Tensor, " cell"]:
    """A number for each cell, equal where points of the cells are linked."""
    sure_first, sure_second, first, second = _neighbours(cells, radius)
    component = connected_components(sure_first, sure_second, len(cells.key))
    cost = cells.count[first] * cells.count[second]
    cheap_first = torch.argsort(cost)
    first, second, cost = first[cheap_first], second[cheap_first], cost[cheap_first]
    while len(first):
        n_pairs = max(1, int(torch.searchsorted(torch.cumsum(cost, 0), PAIRS_AT_ONCE)))
        component = _tested(cells, (first[:n_pairs], second[:n_pairs]), component, radius)
        apart = component[first] != component[second]
        apart[:n_pairs] = False
        first, second, cost = first[apart], second[apart], cost[apart]
    return component


def _neighbours(cells: _Cells, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of cells all of whose points are near each other, and pairs of which nothing is known yet."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for dx in range(REACH + 1):
        for dy in range(-REACH if dx else 0, REACH + 1):
            ahead = cells.key + (dx * cells.stride[0] + dy * cells.stride[1])
            first_dz = -REACH if dx or dy else 1
            begin = torch.searchsorted(cells.key, ahead + first_dz)
            for step in range(REACH - first_dz + 1):
                other = (begin + step).clamp(max=len(cells.key) - 1)
                there = (begin + step < len(cells.key)) & (cells.key[other] <= ahead + REACH)
                one = torch.nonzero(there)[:, 0]
                found.append(_classified(cells, one, other[one], radius))
    first, second, sure = (torch.cat(parts) for parts in zip(*found, strict=True))
    return first[sure], second[sure], first[~sure], second[~sure]


def _classified(
    cells: _Cells, first: Int[Tensor, " pair"], second: Int[Tensor, " pair"], radius: float
) -> tuple[Tensor, Tensor, Bool[Tensor, " kept"]]:
    """Pairs whose bounding boxes are near enough, and whether even the farthest corners are."""
    gap = torch.maximum(cells.lower[first] - cells.upper[second], cells.lower[second] - cells.upper[first])
    possible = _length2(gap.clamp(min=0.0)) < radius * radius
    first, second = first[possible], second[possible]
    span = torch.maximum(cells.upper[first] - cells.lower[second], cells.upper[second] - cells.lower[first])
    return first, second, _length2(span) < radius * radius


def _tested(
    cells: _Cells, pairs: tuple[Tensor, Tensor], component: Int[Tensor, " cell"], radius: float
) -> Int[Tensor, " cell"]:
    """The components after all points of some pairs of cells were compared with each other."""
    point, cell = _rows(cells, *pairs, radius)
    while len(point):
        total = torch.cumsum(cells.count[cell], 0)
        n_rows = max(1, int(torch.searchsorted(total, PAIRS_AT_ONCE)))
        partner, row = _ranges(cells.start[cell[:n_rows]], cells.count[cell[:n_rows]])
        near = _length2(cells.position[point[row]] - cells.position[partner]) < radius * radius
        met = torch.unique(row[near])
        own, other = component[cells.cell[point[met]]], component[cell[met]]
        component = connected_components(own, other, int(component.max()) + 1)[component]
        point, cell = point[n_rows:], cell[n_rows:]
        apart = component[cells.cell[point]] != component[cell]
        point, cell = point[apart], cell[apart]
    return component


def _rows(
    cells: _Cells, first: Int[Tensor, " pair"], second: Int[Tensor, " pair"], radius: float
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    """Points (sorted) of the smaller cells, and the larger cell that each is to be compared with.

    Only points within the radius of the box around the larger cell.
    """
    swap = cells.count[first] > cells.count[second]
    smaller, larger = torch.where(swap, second, first), torch.where(swap, first, second)
    point, pair = _ranges(cells.start[smaller], cells.count[smaller])
    cell = larger[pair]
    gap = torch.maximum(cells.lower[cell] - cells.position[point], cells.position[point] - cells.upper[cell])
    near = _length2(gap.clamp(min=0.0)) < radius * radius
    return point[near], cell[near]


def _ranges(
    start: Int[Tensor, " item"], count: Int[Tensor, " item"]
) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
    """start, start + 1, ..., start + count - 1 of one item after the other, and the item of each entry."""
    item = torch.repeat_interleave(torch.arange(len(start), device=start.device), count)
    before = torch.cumsum(count, 0) - count
    return torch.arange(len(item), device=start.device) - before[item] + start[item], item


def _length2(vector: Float[Tensor, "row 3"]) -> Float[Tensor, " row"]:
    """Squared length."""
    return vector.square().sum(dim=1)
