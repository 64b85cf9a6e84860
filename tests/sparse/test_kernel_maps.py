"""Kernel maps: sorted voxels, shared caches, and the edges."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import pytest
import torch

from ponderv2.sparse import torch_backend
from ponderv2.sparse.kernel_maps import Level, sorted_level
from tests.sparse import twins


def test_rows_are_sorted_and_order_leads_back(rng: torch.Generator) -> None:
    grid_coord, scene = twins.random_voxels(rng)
    level, order = sorted_level(grid_coord, scene, 2)
    assert torch.equal(level.indices[:, 1:], grid_coord[order])
    assert level.indices.tolist() == sorted(level.indices.tolist())


def test_maps_are_made_once_and_shared(rng: torch.Generator) -> None:
    level = twins.random_level(rng)
    assert level.submanifold(3) is level.submanifold((3, 3, 3))
    assert level.strided(2, 2)[1] is level.strided(2, 2)[1]
    assert level.strided(2, 2)[0].transposed.transposed is level.strided(2, 2)[0]


def test_table_cut_from_a_larger_kernel_equals_its_own(rng: torch.Generator) -> None:
    level = twins.random_level(rng)
    fresh = Level(level.indices, level.extent, level.n_scenes)
    level.submanifold(5)
    assert torch.equal(level.submanifold(3).table, fresh.submanifold(3).table)


@pytest.mark.parametrize("size", [(3, 3, 3), (5, 1, 3)])
def test_numbered_cells_find_the_neighbours_that_a_search_finds(
    rng: torch.Generator, size: tuple[int, int, int]
) -> None:
    level = twins.random_level(rng, n_scenes=3)
    looked_up = level._neighbours_by_table(size)
    assert looked_up is not None
    assert torch.equal(looked_up, level._neighbours_by_search(size))


def test_a_grid_with_few_voxels_is_searched() -> None:
    coord = torch.tensor([[0, 0, 0], [1, 0, 0], [999, 999, 999]])
    level, _ = sorted_level(coord, torch.zeros(3, dtype=torch.long), 1)
    assert level._neighbours_by_table((3, 3, 3)) is None
    assert (level.submanifold(3).table < 3).sum(1).tolist() == [2, 2, 1]


@pytest.mark.parametrize("n_rows", [1, 64, 1000])
def test_blocks_hold_every_meeting_once_in_the_order_of_their_sums(rng: torch.Generator, n_rows: int) -> None:
    level = twins.random_level(rng)
    for kernel_map in (level.submanifold(3), level.strided(3, 2)[0]):
        for block in kernel_map.blocks(n_rows):
            entries = torch.arange(kernel_map.n_entries).repeat_interleave(torch.tensor(block.counts))
            table = kernel_map.table[block.rows]
            for output, (start, stop) in enumerate(pairwise(block.starts.tolist())):
                members = block.order[start:stop].long()
                assert (block.outputs[members] == output).all()
                assert entries[members].tolist() == (table[output] < kernel_map.n_in).nonzero()[:, 0].tolist()
                assert torch.equal(block.inputs[members], table[output][entries[members]])


def test_mirrored_table_is_the_table_seen_from_the_other_side(rng: torch.Generator) -> None:
    level = twins.random_level(rng)
    for kernel_map in (level.submanifold(3), level.strided(2, 2)[0], level.strided(3, 2)[0]):
        output, entry = (kernel_map.table < kernel_map.n_in).nonzero(as_tuple=True)
        row = kernel_map.table[output, entry].long()
        assert torch.equal(kernel_map.mirrored[row, entry].long(), output)
        assert (kernel_map.mirrored < kernel_map.n_out).sum() == len(output)


def test_halving_drops_the_last_plane_of_an_odd_grid() -> None:
    coord = torch.tensor([[0, 0, 0], [5, 1, 1], [6, 1, 1]])
    level, _ = sorted_level(coord, torch.zeros(3, dtype=torch.long), 1, pad=1)
    _, coarse = level.strided(2, 2)
    assert coarse.indices.tolist() == [[0, 0, 0, 0], [0, 2, 0, 0]]
    padded, _ = sorted_level(coord, torch.zeros(3, dtype=torch.long), 1, pad=96)
    assert padded.strided(2, 2)[1].indices.tolist() == [[0, 0, 0, 0], [0, 2, 0, 0], [0, 3, 0, 0]]


def test_dropped_voxels_come_back_as_zeros(rng: torch.Generator) -> None:
    level = twins.random_level(rng)
    coarse = level.strided(2, 2)[1]
    assert coarse.extent == (3, 3, 3)
    x = torch.randn(len(coarse), 3, generator=rng)
    y = torch_backend.inverse(x, torch.randn(4, 2, 2, 2, 3, generator=rng), 2, level)
    last = (level.indices[:, 1:] == 6).any(1)
    assert last.any()
    assert torch.all(y[last] == 0)
    assert torch.all(y[~last].abs().sum(1) > 0)


def test_a_voxel_twice_is_refused() -> None:
    coord = torch.tensor([[1, 2, 3], [0, 0, 0], [1, 2, 3]])
    with pytest.raises(ValueError, match="voxelise"):
        sorted_level(coord, torch.zeros(3, dtype=torch.long), 1)
    level, _ = sorted_level(coord, torch.tensor([0, 0, 1]), 2)
    assert len(level) == 3


def test_negative_index_and_unknown_scene_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        sorted_level(torch.tensor([[0, -1, 0]]), torch.tensor([0]), 1)
    with pytest.raises(ValueError, match="scene"):
        sorted_level(torch.tensor([[0, 1, 0]]), torch.tensor([1]), 1)


def test_a_grid_too_large_to_number_is_refused() -> None:
    coord = torch.tensor([[2**21, 2**21, 2**21]])
    with pytest.raises(ValueError, match="62 bits"):
        sorted_level(coord, torch.tensor([0]), 1)


def test_even_submanifold_kernels_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match="odd"):
        twins.random_level(rng).submanifold(2)


@pytest.mark.parametrize("n", [0, 1])
def test_no_voxel_and_one_voxel_pass_through_every_convolution(n: int) -> None:
    level, _ = sorted_level(torch.ones(n, 3, dtype=torch.long), torch.zeros(n, dtype=torch.long), 1, pad=8)
    x, w = torch.ones(n, 2, requires_grad=True), torch.ones(3, 3, 3, 3, 2, requires_grad=True)
    y = torch_backend.submanifold(x, w, level)
    assert torch.equal(y, torch.full((n, 3), 2.0))
    down = torch_backend.strided(y, torch.ones(2, 2, 2, 2, 3), 2, level)
    up = torch_backend.inverse(down, torch.ones(2, 2, 2, 2, 2), 2, level)
    assert up.shape == (n, 2)
    up.sum().backward()
    assert x.grad is not None and w.grad is not None


def test_maps_are_freed_without_a_search_for_garbage(rng: torch.Generator) -> None:
    """A cycle would keep the tables of some training steps in memory."""
    level = twins.random_level(rng)
    kernel_map, _ = level.strided(2, 2)
    assert kernel_map.transposed.transposed.blocks(2) is kernel_map.blocks(2)
    assert kernel_map.transposed.blocks(2) is kernel_map.mirrored_blocks(2)
    freed = weakref.ref(kernel_map)
    gc.disable()
    try:
        del kernel_map
        level.cache.clear()
        assert freed() is None
    finally:
        gc.enable()
