"""What fine-tuning asks of a task; each task is one value of `Task` in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ponderv2.scenes.dataset import SegmentationDataset
from ponderv2.training.logbook import Logbook
from ponderv2.workflows.configs import FinetuneConfig

Validate = Callable[[int, Logbook | None], dict[str, float]]
"""Metrics of the model as it is now, 0..1, in every process."""


@dataclass(frozen=True)
class Task:
    """How the models of one `kind` are built, fed and judged."""

    kind: str
    """That of the model settings, and of the checkpoints."""
    build: Callable[[Any], Any]
    """From settings to a model with `backbone` and, where its encoder is prompted, `embedding_table`.

    `model(batch, generator)` gives a step with `.losses`."""
    datasets: Callable[[FinetuneConfig], tuple[SegmentationDataset, SegmentationDataset | None]]
    """Scenes to train on and, where the other split has any, to validate.

    Raises PresetError and SceneError for labels and datasets that the model does not know."""
    validation: Callable[[Any, SegmentationDataset], Validate]
    best_metric: str
    """The metric by which the best checkpoint is kept."""
