"""Validation during training: scene by scene, divided among the processes, with one exchange at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ponderv2.collectives import process_rank, world_size
from ponderv2.training.interruption import Interruption
from ponderv2.training.ranks import run_in_all
from ponderv2.training.run_logger import RunLogger


@runtime_checkable
class Validation(Protocol):
    """Scenes on which a model is evaluated."""

    def __len__(self) -> int:
        """Number of scenes, the same in every process."""
        ...

    def measure(self, number: int, step: int, logger: RunLogger | None) -> Any:
        """Measurements of one scene, as a picklable value; runs in one process, as if that were alone.

        `step`: steps that the model was trained for.
        """
        ...

    def metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """From the measurements of all scenes, in their order; the same in every process."""
        ...


@dataclass(frozen=True)
class Validated:
    """The outcome of a validation, the same in every process."""

    metrics: dict[str, float] | None
    """None where a signal interrupted it."""
    signal: int
    """Received meanwhile; 0 = none."""


def validate(
    validation: Validation, step: int, logger: RunLogger | None, interruption: Interruption
) -> Validated:
    """Measures every scene in one of the processes; their numbers of scenes may differ.

    Raises what the scene of the first process that failed raised, in every process.
    """
    own = range(process_rank(), len(validation), world_size())

    def measure() -> tuple[int, list[tuple[int, Any]]]:
        measured = []
        for number in own:
            if interruption.signal:
                break
            measured.append((number, validation.measure(number, step, logger)))
        return interruption.signal, measured

    parts = run_in_all(measure)
    results = dict(sorted((pair for _, measured in parts for pair in measured), key=lambda pair: pair[0]))
    is_whole = len(results) == len(validation)
    metrics = validation.metrics(list(results.values())) if is_whole else None
    return Validated(metrics, max(signal for signal, _ in parts))


class History:
    """Metrics of the validations of a run, and which of them is the best."""

    def __init__(self, entries: Sequence[dict[str, float]], metric: str, higher_is_better: bool) -> None:
        self.entries = list(entries)
        self._metric, self._sign = metric, 1.0 if higher_is_better else -1.0

    def has(self, step: int) -> bool:
        """Whether the step was validated."""
        return any(entry["step"] == step for entry in self.entries)

    def add(self, step: int, metrics: dict[str, float]) -> bool:
        """Whether these metrics are the best so far; earlier NaN (nothing to measure) does not count."""
        name, sign = self._metric, self._sign
        earlier = [sign * entry[name] for entry in self.entries if not math.isnan(entry.get(name, math.nan))]
        self.entries.append({"step": float(step), **metrics})
        return name in metrics and all(sign * metrics[name] > value for value in earlier)
