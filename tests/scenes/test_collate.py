"""Batches and Mix3D."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ponderv2.scenes.batch import SceneBatch
from ponderv2.scenes.collate import MixingCollate, collate, merge_scenes

SIZE = 0.1


def scene(seed: int, n_points: int = 120, shift: float = 0.0, mix: float = 1.0) -> SceneBatch:
    """Points anywhere in their own voxels; feature = number of the point."""
    rng = torch.Generator().manual_seed(seed)
    cells = torch.unique(torch.randint(0, 12, (n_points, 3), generator=rng), dim=0)
    cells = cells - cells.amin(dim=0)
    inside = torch.rand(len(cells), 3, generator=rng)
    return SceneBatch(
        coord=(cells + inside) * SIZE + shift,
        grid_coord=cells,
        feature=torch.arange(len(cells), dtype=torch.float32)[:, None] + 1000.0 * seed,
        offset=torch.tensor([len(cells)]),
        segment=torch.randint(-1, 3, (len(cells),), generator=rng),
        units_per_metre=torch.ones(1),
        condition="toy",
        names=(f"scene{seed}",),
        mix=mix,
    )


def test_offsets_are_exclusive_ends() -> None:
    parts = [scene(i) for i in range(3)]
    batch = collate(parts)
    ends = [0, *batch.offset.tolist()]
    for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
        assert torch.equal(batch.feature[start:end], part.feature)
    assert batch.names == ("scene0", "scene1", "scene2")


def test_collating_batches_equals_collating_scenes() -> None:
    parts = [scene(i) for i in range(4)]
    at_once, in_two = collate(parts), collate([collate(parts[:3]), parts[3]])
    assert torch.equal(at_once.offset, in_two.offset) and torch.equal(at_once.coord, in_two.coord)


def test_merged_voxels_hold_their_points_once() -> None:
    """The lattice of the second scene is aligned to within one voxel, and no cell occurs twice."""
    first, second = scene(1), scene(2, shift=0.537)
    merged = merge_scenes(first, second, SIZE)
    assert len(torch.unique(merged.grid_coord, dim=0)) == len(merged.grid_coord) == int(merged.offset[-1])
    lattice = merged.coord / SIZE - merged.grid_coord
    assert (lattice.amax(dim=0) - lattice.amin(dim=0) < 2.2).all()
    assert int(merged.grid_coord.min()) == 0


def test_merged_points_keep_their_own_fields() -> None:
    first, second = scene(1), scene(2)
    both = collate([first, second])
    merged = merge_scenes(first, second, SIZE)
    row = {float(value): i for i, value in enumerate(both.feature[:, 0])}
    rows = torch.tensor([row[float(value)] for value in merged.feature[:, 0]])
    assert torch.equal(merged.coord, both.coord[rows]) and torch.equal(merged.segment, both.segment[rows])
    assert (torch.diff(rows) > 0).all()


def test_labelled_points_win_shared_voxels() -> None:
    first, second = scene(1), scene(1)
    nothing = torch.full_like(first.segment, -1)
    merged = merge_scenes(replace(first, segment=nothing), second, SIZE)
    assert int((merged.segment >= 0).sum()) == int((second.segment >= 0).sum())
    assert len(merged.coord) == len(first.coord)


@pytest.mark.parametrize(
    ("mixes", "names"),
    [
        ((0.1, 0.9, 0.9, 0.1, 0.1), ("scene0+scene1", "scene2", "scene3", "scene4")),
        ((0.9, 0.1, 0.3, 0.9, 0.9), ("scene0", "scene1", "scene2+scene3", "scene4")),
    ],
)
def test_first_of_a_pair_decides(mixes: tuple[float, ...], names: tuple[str, ...]) -> None:
    batch = MixingCollate(0.5, SIZE)([scene(i, mix=mix) for i, mix in enumerate(mixes)])
    assert batch.names == names and len(batch.offset) == len(names)


def test_nothing_is_mixed_with_probability_zero() -> None:
    assert len(MixingCollate(0.0, SIZE)([scene(0, mix=0.0), scene(1, mix=0.0)]).offset) == 2


def test_objects_of_different_scenes_keep_apart() -> None:
    """Equal pairs (scene, number) before are equal numbers after, also when scenes merge, and only those."""
    generator = torch.Generator().manual_seed(7)
    parts = [scene(i) for i in range(3)]
    parts = [
        replace(part, instance=torch.randint(-1, 4, part.segment.shape, generator=generator))
        for part in parts
    ]
    true = [(i, int(n)) if n >= 0 else None for i, part in enumerate(parts) for n in part.instance]
    numbers = collate(parts).instance.tolist()
    assert all((number < 0) == (pair is None) for number, pair in zip(numbers, true, strict=True))
    assert len(set(zip(numbers, true, strict=True))) == len(set(true)) == len(set(numbers))
    both, merged = collate(parts[:2]), merge_scenes(parts[0], parts[1], SIZE)
    row = {float(value): i for i, value in enumerate(both.feature[:, 0])}
    rows = torch.tensor([row[float(value)] for value in merged.feature[:, 0]])
    assert torch.equal(merged.instance, both.instance[rows])


def test_scenes_without_objects_have_none() -> None:
    assert (collate([scene(0), scene(1)]).instance == -1).all()


def test_datasets_do_not_meet_in_a_batch() -> None:
    with pytest.raises(ValueError, match="one dataset"):
        collate([scene(0), replace(scene(1), condition="other")])


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([])
