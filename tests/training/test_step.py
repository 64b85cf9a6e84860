"""Parts of a step in which scenes are merged: cut before they are prepared, or when memory runs out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ponderv2.scenes.batch import Batch, MixingCollate
from ponderv2.training.sampler import RankShare, Sampler, Schedule
from ponderv2.training.step import split_in_half, to_micro_batches

N = 8


def scene(number: int) -> Batch:
    """One point in a place of its own."""
    return Batch(
        coord=torch.full((1, 3), float(number)),
        grid_coord=torch.zeros(1, 3, dtype=torch.long),
        feature=torch.ones(1, 1),
        offset=torch.tensor([1]),
        segment=torch.zeros(1, dtype=torch.long),
        units_per_metre=torch.ones(1),
        condition="toy",
        names=(f"{number}",),
        origin=torch.full((1, 3), float(number), dtype=torch.float64),
    )


def parts(step: int, n_parts: int) -> tuple[list[Batch], list[float]]:
    """What one process is given for a step."""
    sampler = Sampler(Schedule((N,)), 2, RankShare(N, 1, 0, n_parts), 0, 9, mix_probability=0.6)
    found = []
    for places in sampler.parts(step):
        scenes = [(scene(place.index), place) for place in places]
        ready = [replace(one, slots=((p.slot,),), is_merged=p.is_merged) for one, p in scenes]
        found.append(MixingCollate(1.0)(ready))
    return found, sampler.weights(step)


@pytest.mark.parametrize("step", range(9))
def test_halves_of_merged_scenes_are_the_parts_of_a_larger_accumulate(step: int) -> None:
    whole = parts(step, 1)
    portions = to_micro_batches(*whole)
    for n_parts in (2, 4, 8):
        batches, weights = parts(step, n_parts)
        portions = split_in_half(portions) or portions
        assert [one.batch.names for one in portions] == [one.names for one in batches]
        assert [one.batch.slots for one in portions] == [one.slots for one in batches]
        assert [one.weight for one in portions] == weights
    assert any("+" in name for name in whole[0][0].names)


def test_draws_of_a_scene_follow_its_place_in_the_whole_batch() -> None:
    batches, _ = parts(0, 2)
    assert [slots[0] for batch in batches for slots in batch.slots or ()] == [
        slots[0] for slots in parts(0, 1)[0][0].slots or ()
    ]
