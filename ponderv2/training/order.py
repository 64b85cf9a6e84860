"""Which scene is seen when, and with which random numbers: a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from ponderv2.randomness import generator_of


@dataclass(frozen=True)
class Place:
    """One scene of one step."""

    index: int
    """Number of the scene in the dataset."""
    draw: int
    """How often the dataset was gone through before: another draw, another augmentation."""


def place_of(position: int, n_scenes: int, seed: int) -> Place:
    """The scene at a position of the endless stream: every pass is another permutation of all scenes."""
    draw, within = divmod(position, n_scenes)
    return Place(_permutation(seed, draw, n_scenes)[within], draw)


@lru_cache(maxsize=4)
def _permutation(seed: int, draw: int, n_scenes: int) -> tuple[int, ...]:
    return tuple(torch.randperm(n_scenes, generator=generator_of("order", seed, draw)).tolist())


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process works on, cut into equal pieces."""

    batch_size: int
    n_processes: int
    rank: int
    n_parts: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % (self.n_processes * self.n_parts):
            raise ValueError(
                f"batch size {self.batch_size} is not a multiple of "
                f"{self.n_processes} processes x {self.n_parts} parts"
            )

    @property
    def part_size(self) -> int:
        """Scenes in one part."""
        return self.batch_size // (self.n_processes * self.n_parts)

    def first_slot(self, part: int) -> int:
        """Place of the part's first scene in the batch of all processes."""
        return (self.rank * self.n_parts + part) * self.part_size


@dataclass(frozen=True)
class Order:
    """The stream of parts from one step to another, for a torch DataLoader's `batch_sampler`."""

    n_scenes: int
    seed: int
    share: Share
    first_step: int
    last_step: int

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.share.n_parts

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.first_step, self.last_step):
            for part in range(self.share.n_parts):
                first = step * self.share.batch_size + self.share.first_slot(part)
                yield [
                    place_of(first + slot, self.n_scenes, self.seed) for slot in range(self.share.part_size)
                ]
