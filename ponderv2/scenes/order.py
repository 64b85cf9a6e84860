"""The order of training samples, and the randomness of each: pure functions of the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """Which scene, and which of its endless random variants."""

    scene: int
    """Number of the scene in its dataset."""
    draw: int
    """Position in the sequence of all samples of a run: seeds the randomness of the sample."""


def seeded_generator(*key: int | str) -> torch.Generator:
    """A generator that depends on the key alone: same key, same numbers, on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def sample_indices(step: int, global_batch_size: int, n_scenes: int, seed: int) -> tuple[SampleKey, ...]:
    """The samples of one training step, all processes together.

    Every pass over the scenes has its own random order; passes follow each other without a gap.
    """
    if n_scenes < 1 or global_batch_size < 1:
        raise ValueError(
            f"expected at least one scene and one sample a step, got {n_scenes} and {global_batch_size}"
        )
    orders: dict[int, list[int]] = {}
    keys = []
    for draw in range(step * global_batch_size, (step + 1) * global_batch_size):
        turn, position = divmod(draw, n_scenes)
        if turn not in orders:
            orders[turn] = torch.randperm(n_scenes, generator=seeded_generator("order", seed, turn)).tolist()
        keys.append(SampleKey(orders[turn][position], draw))
    return tuple(keys)


class StepSampler(Sampler[list[SampleKey]]):
    """The samples of this process, one list a step: the `batch_sampler` of a DataLoader.

    Each process takes its own neighbouring part of every global batch.
    """

    def __init__(
        self,
        n_scenes: int,
        global_batch_size: int,
        seed: int,
        steps: range,
        rank: int = 0,
        n_processes: int = 1,
    ) -> None:
        if global_batch_size % n_processes:
            raise ValueError(
                f"batch size {global_batch_size} cannot be shared evenly by {n_processes} processes"
            )
        self.n_scenes, self.global_batch_size, self.seed, self.steps = (
            n_scenes,
            global_batch_size,
            seed,
            steps,
        )
        self.share = global_batch_size // n_processes
        self.first = rank * self.share

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self.steps:
            keys = sample_indices(step, self.global_batch_size, self.n_scenes, self.seed)
            yield list(keys[self.first : self.first + self.share])

    def __len__(self) -> int:
        return len(self.steps)
