"""Which scene of which dataset is seen when, and with which others: a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from ponderv2.randomness import derive_dataset_seed, make_generator


@dataclass(frozen=True)
class SampleIndex:
    """One scene of one step."""

    index: int
    """Number of the scene in the dataset."""
    draw: int
    """Number of the pass (epoch) over the dataset; each pass has other augmentations."""
    dataset: int = 0
    """Number of the dataset, where there are several."""
    slot: int = 0
    """Position in the batch of the step, all processes together."""
    is_merged: bool = False
    """Whether it is merged with the scene in the slot before (Mix3D)."""


@dataclass(frozen=True)
class Step:
    """Dataset of one step."""

    dataset: int
    earlier: int
    """Steps before this one that were of the same dataset."""


@dataclass(frozen=True)
class Schedule:
    """Datasets alternate: with ratios 4, 2, 1 four steps of the first, two of the second, one of the third.

    As published (Pointcept's multi-dataset loader): every batch comes from one dataset, the same in all
    processes. Steps are absolute and every dataset is an endless stream of permutations; the published loader
    counts passes that end with the first dataset (`steps_of_pass`), which changes the order at their ends.
    """

    sizes: tuple[int, ...]
    """Scenes of each dataset."""
    ratios: tuple[int, ...] = (1,)
    """Consecutive steps of each dataset."""

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.ratios) or min(self.sizes + self.ratios) < 1:
            raise ValueError(f"expected a positive ratio for each of {self.sizes} scenes, got {self.ratios}")

    def at(self, step: int) -> Step:
        """The dataset of a step."""
        rounds, within = divmod(step, sum(self.ratios))
        for dataset, ratio in enumerate(self.ratios):
            if within < ratio:
                return Step(dataset, rounds * ratio + within)
            within -= ratio
        raise AssertionError("a step lies within its round")


def steps_of_pass(n_batches: int, ratios: tuple[int, ...]) -> int:
    """Steps of a published pass, which ends when the `n_batches` of the first dataset are used up."""
    rounds, rest = divmod(n_batches, ratios[0])
    return rounds * sum(ratios) + rest


def sample_index_at(position: int, n_scenes: int, seed: int) -> SampleIndex:
    """The scene at a position of the endless stream: every pass is another permutation of all scenes."""
    draw, within = divmod(position, n_scenes)
    return SampleIndex(_permutation(seed, draw, n_scenes)[within], draw)


@lru_cache(maxsize=16)
def _permutation(seed: int, draw: int, n_scenes: int) -> tuple[int, ...]:
    return tuple(torch.randperm(n_scenes, generator=make_generator("order", seed, draw)).tolist())


@dataclass(frozen=True)
class RankShare:
    """The part of every batch that one process trains on, in equal micro-batches."""

    batch_size: int
    world_size: int
    rank: int
    n_parts: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % (self.world_size * self.n_parts):
            raise ValueError(
                f"batch size {self.batch_size} is not a multiple of "
                f"{self.world_size} processes x {self.n_parts} parts"
            )

    @property
    def part_size(self) -> int:
        """Scenes in one micro-batch."""
        return self.batch_size // (self.world_size * self.n_parts)

    def first_slot(self, part: int) -> int:
        """Slot of the first scene of a micro-batch in the batch of all processes."""
        return (self.rank * self.n_parts + part) * self.part_size

    def slots(self, part: int, merged: frozenset[int]) -> list[int]:
        """Slots of the scenes of a micro-batch, each with the one that is merged with it."""
        first = self.first_slot(part)
        own = range(first, first + self.part_size)
        return [slot for slot in (*own, own.stop) if (slot - 1 if slot in merged else slot) in own]


def merged_slots(seed: int, step: int, batch_size: int, probability: float) -> frozenset[int]:
    """Slots whose scenes are merged with those before them (Mix3D): the second of a pair, by chance.

    Pairs are (0, 1), (2, 3), ... of the whole batch, so that neither the number of processes nor that of
    parts has an influence. An odd last scene stays alone.
    """
    if probability == 0.0:
        return frozenset()
    draws = torch.rand(batch_size // 2, generator=make_generator("mix", seed, step)).tolist()
    return frozenset(2 * pair + 1 for pair, draw in enumerate(draws) if draw < probability)


@dataclass(frozen=True)
class Sampler:
    """The micro-batches of consecutive steps, for a torch DataLoader's `batch_sampler`.

    A merged scene goes to the micro-batch of the scene that it is merged with. A micro-batch without scenes
    holds one merged scene, of which nothing is used; it is left out where no process has scenes for it.
    """

    schedule: Schedule
    seed: int
    share: RankShare
    first_step: int
    last_step: int
    mix_probability: float = 0.0
    """Of merging two neighbouring scenes."""

    def __len__(self) -> int:
        return sum(len(self.weights(step)) for step in range(self.first_step, self.last_step))

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for step in range(self.first_step, self.last_step):
            yield from self.parts(step)

    def parts(self, step: int) -> list[list[SampleIndex]]:
        """Samples of each micro-batch of a step, of this process."""
        at, merged = self.schedule.at(step), self._merged(step)
        seed, n_scenes = derive_dataset_seed(self.seed, at.dataset), self.schedule.sizes[at.dataset]

        def sample(slot: int) -> SampleIndex:
            one = sample_index_at(at.earlier * self.share.batch_size + slot, n_scenes, seed)
            return replace(one, dataset=at.dataset, slot=slot, is_merged=slot in merged)

        shares = self._used(merged)
        own = [(self.share.first_slot(part), slots[self.share.rank]) for part, slots in shares]
        return [[sample(slot) for slot in slots or [first]] for first, slots in own]

    def weights(self, step: int) -> list[float]:
        """Fraction of the scenes of a step in each micro-batch, all processes together."""
        shares = self._used(self._merged(step))
        return [sum(map(len, slots)) / self.share.batch_size for _, slots in shares]

    def _merged(self, step: int) -> frozenset[int]:
        return merged_slots(self.seed, step, self.share.batch_size, self.mix_probability)

    def _used(self, merged: frozenset[int]) -> list[tuple[int, list[list[int]]]]:
        """Micro-batches in which any process has scenes: their numbers, and the slots of every process."""
        ranks = [replace(self.share, rank=rank) for rank in range(self.share.world_size)]
        found = [(part, [rank.slots(part, merged) for rank in ranks]) for part in range(self.share.n_parts)]
        return [(part, slots) for part, slots in found if any(slots)]
