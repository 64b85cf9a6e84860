"""Voxels against dictionaries of cells."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderv2.data.voxelise import (
    fnv_hash,
    grid_cells,
    group_by_voxel,
    offset_in_voxel,
    ravel_hash,
    voxelise,
)


def cells_of(coord: torch.Tensor, size: float) -> list[tuple[int, ...]]:
    cells = torch.floor(coord.double() / size).long()
    return [tuple(row) for row in (cells - cells.amin(dim=0)).tolist()]


@pytest.fixture
def coord(rng: torch.Generator) -> torch.Tensor:
    return torch.rand(500, 3, generator=rng) * 2.0 - 1.0


@pytest.mark.parametrize("order", ["fnv", "ravel"])
def test_each_occupied_cell_has_one_of_its_points(coord: torch.Tensor, order, rng: torch.Generator) -> None:
    voxels = voxelise(coord, 0.3, order, rng)
    cells = cells_of(coord, 0.3)
    assert sorted(map(tuple, voxels.grid_coord.tolist())) == sorted(set(cells))
    for point, cell in zip(voxels.index.tolist(), voxels.grid_coord.tolist(), strict=True):
        assert cells[point] == tuple(cell)
    for point, voxel in enumerate(voxels.inverse.tolist()):
        assert cells[point] == tuple(voxels.grid_coord[voxel].tolist())


def test_points_lie_in_their_cells(coord: torch.Tensor) -> None:
    voxels = voxelise(coord, 0.25)
    corner = voxels.lower + voxels.grid_coord * 0.25
    inside = coord[voxels.index] - corner
    assert (inside >= -1e-6).all() and (inside <= 0.25 + 1e-6).all()
    offset = offset_in_voxel(coord[voxels.index], 0.25)
    torch.testing.assert_close(inside / 0.25 - 0.5, offset, atol=1e-5, rtol=0)


def test_fnv_matches_unlimited_integers() -> None:
    cells = torch.tensor([[0, 0, 0], [1, 2, 3], [70000, 5, 2**31]])
    for own, cell in zip(fnv_hash(cells).tolist(), cells.tolist(), strict=True):
        key = 14695981039346656037
        for number in cell:
            key = key * 1099511628211 % 2**64 ^ number
        assert own % 2**64 == key


def test_voxels_come_in_unsigned_order_of_their_hash(coord: torch.Tensor) -> None:
    voxels = voxelise(coord, 0.3)
    keys = [key % 2**64 for key in fnv_hash(voxels.grid_coord).tolist()]
    assert keys == sorted(keys)


def test_ravel_is_lexicographic(coord: torch.Tensor) -> None:
    voxels = voxelise(coord, 0.3, "ravel")
    rows = voxels.grid_coord.tolist()
    assert rows == sorted(rows)
    assert ravel_hash(torch.tensor([[0, 0, 0], [0, 0, 2], [0, 1, 0], [3, 0, 0]])).tolist() == [0, 2, 3, 18]


def test_every_point_of_a_voxel_is_drawn_as_often(rng: torch.Generator) -> None:
    coord = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [1.5, 0, 0]])
    drawn = Counter(int(voxelise(coord, 1.0, "ravel", rng).index[0]) for _ in range(900))
    assert set(drawn) == {0, 1, 2}
    assert all(250 < count < 350 for count in drawn.values())


def test_preferred_points_represent_their_voxels(coord: torch.Tensor, rng: torch.Generator) -> None:
    preferred = torch.rand(500, generator=rng) < 0.05
    cells = cells_of(coord, 0.4)
    wanted = defaultdict(set)
    for point in torch.nonzero(preferred)[:, 0].tolist():
        wanted[cells[point]].add(point)
    seen = defaultdict(set)
    for _ in range(20):
        index = voxelise(coord, 0.4, "fnv", rng, preferred).index.tolist()
        assert sorted(cells[point] for point in index) == sorted(set(cells))
        for point in index:
            seen[cells[point]].add(point)
    for cell, points in wanted.items():
        assert seen[cell] <= points
    # Others are still drawn from all their points.
    assert any(len(points) > 1 for cell, points in seen.items() if cell not in wanted)
    assert any(len(seen[cell]) > 1 for cell, points in wanted.items() if len(points) > 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60))
def test_fragments_are_few_and_hold_everything(rows: list[tuple[int, int, int]]) -> None:
    groups = group_by_voxel(fnv_hash(torch.tensor(rows)))
    fragments = groups.fragments()
    counts = Counter(rows)
    assert len(fragments) == max(counts.values())
    assert set(torch.cat(fragments).tolist()) == set(range(len(rows)))
    for fragment in fragments:
        assert len({rows[point] for point in fragment.tolist()}) == len(counts) == len(fragment)


def test_minimum_is_told(coord: torch.Tensor) -> None:
    cells, minimum = grid_cells(coord, 0.3)
    assert (cells.amin(dim=0) == 0).all()
    assert torch.equal(cells + minimum, torch.floor(coord.double() / 0.3).long())


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        voxelise(torch.zeros(0, 3), 0.1)
