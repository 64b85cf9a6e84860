"""What fine-tuning asks of a task; each task is one value of `Task` in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ponderv2.data.datasets import LabelledDataset
from ponderv2.training.validation import Validation
from ponderv2.workflows.configs import FinetuneConfig


@dataclass(frozen=True)
class Task:
    """How the models of one `kind` are built, fed and judged."""

    kind: str
    """That of the model settings, and of the checkpoints."""
    build: Callable[[Any], Any]
    """From settings to a model with `backbone` and, where its encoder is prompted, `embedding_table`.

    `model(batch, generator)` gives a step with `.losses`."""
    datasets: Callable[[FinetuneConfig], tuple[LabelledDataset, LabelledDataset | None]]
    """Scenes to train on and, where the other split has any, to validate.

    Raises PresetError and SceneError for labels and datasets that the model does not know."""
    validation: Callable[[Any, LabelledDataset], Validation]
    """How a model is judged by the scenes of a dataset; metrics are 0..1."""
    best_metric: str
    """The metric by which the best checkpoint is kept."""
