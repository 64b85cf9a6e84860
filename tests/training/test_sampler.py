"""Several datasets in turn, against a loop that counts, and against a loader as it was published."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest

from ponderv2.training.sampler import (
    RankShare,
    SampleIndex,
    Sampler,
    Schedule,
    merged_slots,
    sample_index_at,
    steps_of_pass,
)

SIZES, RATIOS = (11, 5, 3), (4, 2, 1)


def counted(n_steps: int) -> list[tuple[int, int]]:
    """(dataset, earlier steps of it) by going through the cycle."""
    used, found = [0, 0, 0], []
    while True:
        for dataset, ratio in enumerate(RATIOS):
            for _ in range(ratio):
                found.append((dataset, used[dataset]))
                used[dataset] += 1
                if len(found) == n_steps:
                    return found


def steps_of(sampler: Sampler) -> list[list[SampleIndex]]:
    """The parts of one process."""
    return list(sampler)


def test_turns_over_three_passes_equal_counting() -> None:
    schedule = Schedule(SIZES, RATIOS)
    n_steps = 3 * steps_of_pass(11, RATIOS)
    turns = [schedule.at(step) for step in range(n_steps)]
    assert [(at.dataset, at.earlier) for at in turns] == counted(n_steps)
    assert [at.dataset for at in turns[:14]] == [0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1, 1, 2]


def test_every_batch_is_of_one_dataset_and_every_pass_shows_each_scene_once() -> None:
    batches = steps_of(Sampler(Schedule(SIZES, RATIOS), 0, RankShare(2, 1, 0), 0, 7 * 11))
    seen: dict[int, list[SampleIndex]] = {0: [], 1: [], 2: []}
    for batch in batches:
        assert len({place.dataset for place in batch}) == 1
        seen[batch[0].dataset] += batch
    for dataset, size in enumerate(SIZES):
        passes = len(seen[dataset]) // size
        for number in range(passes):
            places = seen[dataset][number * size : (number + 1) * size]
            assert sorted(place.index for place in places) == list(range(size))
            assert {place.draw for place in places} == {number}


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_each_batch_and_agree_on_its_dataset(world_size: int) -> None:
    schedule = Schedule(SIZES, RATIOS)
    alone = steps_of(Sampler(schedule, 5, RankShare(4, 1, 0), 0, 21))
    shares = [RankShare(4, world_size, rank) for rank in range(world_size)]
    ranks = [steps_of(Sampler(schedule, 5, share, 0, 21)) for share in shares]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone
    for parts in zip(*ranks, strict=True):
        assert len({place.dataset for part in parts for place in part}) == 1


def test_the_stream_continues_after_any_step_as_if_it_had_not_stopped() -> None:
    schedule = Schedule(SIZES, RATIOS)
    whole = steps_of(Sampler(schedule, 1, RankShare(2, 1, 0), 0, 40))
    for step in range(40):
        assert steps_of(Sampler(schedule, 1, RankShare(2, 1, 0), step, 40)) == whole[step:]


def test_one_dataset_is_the_plain_stream() -> None:
    batches = steps_of(Sampler(Schedule((7,)), 9, RankShare(3, 1, 0), 0, 10))
    truth = [replace(sample_index_at(position, 7, 9), slot=position % 3) for position in range(30)]
    assert list(chain(*batches)) == truth


def test_datasets_of_one_size_have_orders_of_their_own() -> None:
    places = list(chain(*steps_of(Sampler(Schedule((50, 50), (1, 1)), 0, RankShare(50, 1, 0), 0, 2))))
    first, second = ([p.index for p in places if p.dataset == number] for number in (0, 1))
    assert sorted(first) == sorted(second) and first != second


@pytest.mark.parametrize(("n_batches", "ratios"), [(11, (4, 2, 1)), (3, (4, 2, 1)), (8, (2, 1)), (5, (1,))])
def test_steps_of_a_pass_equal_a_loader_that_stops_with_its_first_dataset(
    n_batches: int, ratios: tuple[int, ...]
) -> None:
    steps, left = 0, n_batches
    while left:
        for dataset, ratio in enumerate(ratios):
            taken = min(ratio, left) if dataset == 0 else ratio
            left -= taken if dataset == 0 else 0
            steps += taken
            if dataset == 0 and taken < ratio:
                break
        if dataset == 0 and taken < ratio:
            break
    assert steps_of_pass(n_batches, ratios) == steps


@pytest.mark.parametrize(("sizes", "ratios"), [((3, 0), (1, 1)), ((3, 4), (1,)), ((3,), (0,))])
def test_datasets_without_scenes_or_turns_are_refused(
    sizes: tuple[int, ...], ratios: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="positive ratio"):
        Schedule(sizes, ratios)


SHARES = [(n, parts) for n in (1, 2, 3, 4, 6, 12) for parts in (1, 2, 3, 4, 12) if 12 % (n * parts) == 0]


def _mixed(share: RankShare, probability: float) -> Sampler:
    return Sampler(Schedule((50,)), 4, share, 0, 6, probability)


@pytest.mark.parametrize(("n", "n_parts"), SHARES)
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_which_scenes_are_merged_does_not_depend_on_how_they_are_shared(
    n: int, n_parts: int, probability: float
) -> None:
    """Every scene is used once, with the one it is merged with before it in the same part."""
    whole = _mixed(RankShare(12, 1, 0), probability)
    samplers = [_mixed(RankShare(12, n, rank, n_parts), probability) for rank in range(n)]
    for step in range(6):
        (alone,) = whole.parts(step)
        used: list[SampleIndex] = []
        parts = [sampler.parts(step) for sampler in samplers]
        assert {len(each) for each in parts} == {len(samplers[0].weights(step))}
        for places in chain(*parts):
            kept = places if len(places) > 1 or not places[0].is_merged else []
            slots = [place.slot for place in kept]
            assert all(place.slot - 1 in slots for place in kept if place.is_merged)
            assert slots == sorted(slots)
            used += kept
        assert sorted(used, key=lambda place: place.slot) == alone
        counts = [sum(len(each[i]) for each in parts) for i in range(len(parts[0]))]
        weights = samplers[-1].weights(step)
        assert sum(weights) == pytest.approx(1.0) and all(one.weights(step) == weights for one in samplers)
        assert all(weight * 12 <= count for weight, count in zip(weights, counts, strict=True))


def test_parts_without_merged_scenes_have_equal_weights() -> None:
    assert _mixed(RankShare(12, 2, 1, 3), 0.0).weights(0) == [1 / 3] * 3


def test_pairs_are_merged_as_often_as_is_said_and_anew_in_each_step() -> None:
    found = [merged_slots(1, step, 9, 0.3) for step in range(500)]
    assert all(slot % 2 == 1 and slot < 8 for one in found for slot in one)
    assert sum(map(len, found)) / (500 * 4) == pytest.approx(0.3, abs=0.04)
    assert len(set(found)) > 4 and found != [merged_slots(2, step, 9, 0.3) for step in range(500)]
    assert merged_slots(1, 0, 9, 0.0) == frozenset() and merged_slots(1, 0, 9, 1.0) == {1, 3, 5, 7}
