"""The parts of a step, which get smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponderv2.scenes.batch import Batch, halves

MOST_HALVINGS = 4


@dataclass(frozen=True)
class Portion:
    """Scenes that go through the model together."""

    batch: Batch
    weight: float
    """Share of the loss of the step; the shares add up to 1."""


def portions_of(batches: Sequence[Batch], weights: Sequence[float]) -> list[Portion]:
    """Every part as it came."""
    return [Portion(batch, weight) for batch, weight in zip(batches, weights, strict=True)]


def halved(portions: Sequence[Portion]) -> list[Portion] | None:
    """Each with more than one scene in two, in the order of the scenes; None where every one has a single.

    Halves of equal size make exactly the parts of a run with twice the `training.accumulate`.
    """
    found: list[Portion] = []
    for portion in portions:
        parts = halves(portion.batch) if len(portion.batch.offset) > 1 else (portion.batch,)
        n_scenes = n_slots(portion.batch)
        found += [Portion(part, portion.weight * n_slots(part) / n_scenes) for part in parts]
    return found if len(found) > len(portions) else None


def n_slots(batch: Batch) -> int:
    """Its scenes, those that were merged counted each."""
    return len(batch.offset) if batch.slots is None else sum(map(len, batch.slots))
