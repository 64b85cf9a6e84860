"""Judging a model in training: scene by scene, shared by the processes, with one exchange at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ponderv2.collectives import n_processes, process_number
from ponderv2.training.interruption import Interruption
from ponderv2.training.ranks import run_in_all
from ponderv2.training.run_logger import RunLogger


@runtime_checkable
class Validation(Protocol):
    """Scenes that a model is judged by."""

    def __len__(self) -> int:
        """Number of scenes, the same in every process."""
        ...

    def measure(self, number: int, step: int, logger: RunLogger | None) -> Any:
        """What one scene shows, as a picklable value; runs in one process, as if that were alone.

        `step`: steps that the model was trained for.
        """
        ...

    def metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """From what was measured in all scenes, in their order; the same in every process."""
        ...


@dataclass(frozen=True)
class Validated:
    """The outcome of a validation, the same in every process."""

    metrics: dict[str, float] | None
    """None where a signal stopped it before its last scene."""
    signal: int
    """That asked the run to stop meanwhile; 0 = none."""


def validate(
    validation: Validation, step: int, logger: RunLogger | None, interruption: Interruption
) -> Validated:
    """Measures every scene in one of the processes, which need not have equally many.

    Raises what the scene of the first process that failed raised, in every process.
    """
    own = range(process_number(), len(validation), n_processes())

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
