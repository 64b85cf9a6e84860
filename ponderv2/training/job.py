"""What is trained, on what, and the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ponderv2.training.config import TrainingConfig
from ponderv2.training.data_loader import Collate, Datasets, SceneSource
from ponderv2.training.report import Reporter
from ponderv2.training.validation import Validation


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and how it is validated."""

    kind: str
    """Of the settings of the model."""
    model: nn.Module
    """`model(batch, generator)` gives a step with `.losses`: named scalars with `.total()`."""
    scenes: SceneSource | Datasets
    """Training scenes; of several datasets each batch comes from one."""
    collate: Collate
    training: TrainingConfig
    seed: int
    folder: Path
    resolved: Mapping[str, Any]
    """All settings of the run, as plain values."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprint of the data."""
    classes: Mapping[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    """None where there are no scenes for it."""
    best_metric: str = ""
    higher_is_better: bool = True
    encoder_stages: tuple[tuple[str, ...], ...] = ()
    """What the names of the encoder's parameters begin with, stage by stage."""
    fit_start: Callable[[torch.device, Reporter], None] | None = None
    """Fits what the model starts from to the data, before the first step of a new run; in all processes,
    which exchange what they found."""


@dataclass(frozen=True)
class TrainingOutcome:
    """Outcome of a run."""

    folder: Path
    last: Path
    best: Path | None
    step: int
    history: tuple[dict[str, float], ...]
    losses: dict[str, float]
    """Of the last step of this call; empty when no step was left."""
    skipped_steps: int
    """Steps with a non-finite number, or out of memory even with single scenes."""
    split_steps: int = 0
    """Steps with smaller micro-batches than planned, because memory ran out."""
    bad_scenes: tuple[str, ...] = ()
    """Unreadable scenes that were replaced."""
    precision: str = "32"
    """Of the computation; may differ from the settings."""
