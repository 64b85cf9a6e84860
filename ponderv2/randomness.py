"""Random numbers that follow from a seed, a step and a scene, and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from ponderv2.collectives import process_rank


def derive_seed(*parts: int | str) -> int:
    """A seed (63 bits) that differs when any part differs."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_dataset_seed(seed: int, number: int) -> int:
    """The seed of the n-th of several datasets; the first one has the seed of the run."""
    return seed if number == 0 else derive_seed("dataset", seed, number)


def make_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that starts at `derive_seed(parts)`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


def scene_generators(
    generator: torch.Generator, n_scenes: int, slots: Sequence[Sequence[int]] | None = None
) -> list[torch.Generator]:
    """One generator for each scene of this process's part of the batch.

    They depend on where `generator` (the same in all processes) started and on the position of the scene
    in the batch of all processes: two processes with one scene each draw what one process with both draws.
    `slots` are these positions, the first of each scene counts; without them every process must hold equally
    many scenes.
    """
    first = process_rank() * n_scenes
    positions = range(first, first + n_scenes) if slots is None else [each[0] for each in slots]
    start = generator.initial_seed()
    return [make_generator("scene", start, slot, device=generator.device) for slot in positions]
