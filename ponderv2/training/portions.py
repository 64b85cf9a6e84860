"""The parts of a step, which get smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponderv2.scenes.batch import SceneBatch
from ponderv2.scenes.split import halves

MOST_HALVINGS = 4


@dataclass(frozen=True)
class Portion:
    """Scenes that go through the model together."""

    batch: SceneBatch
    weight: float
    """Share of the loss of the step; the shares add up to 1."""


def portions_of(batches: Sequence[SceneBatch]) -> list[Portion]:
    """Every part as it came, with equal shares."""
    return [Portion(batch, 1.0 / len(batches)) for batch in batches]


def halved(portions: Sequence[Portion]) -> list[Portion] | None:
    """Each with more than one scene in two, in the order of the scenes; None where every one has a single.

    Halves of equal size make exactly the parts of a run with twice the `training.accumulate`.
    """
    found: list[Portion] = []
    for portion in portions:
        n_scenes = len(portion.batch.offset)
        parts = halves(portion.batch) if n_scenes > 1 else (portion.batch,)
        found += [Portion(part, portion.weight * len(part.offset) / n_scenes) for part in parts]
    return found if len(found) > len(portions) else None
