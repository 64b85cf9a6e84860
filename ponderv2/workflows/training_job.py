"""Builds the job of a training run, pre-training or fine-tuning: the task, its data sets, its validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ponderv2.models.encoder_model import EncoderModel
from ponderv2.tasks.task import OpenPart, Task, TaskDataset, ValidationRequest
from ponderv2.training.data_loader import Datasets
from ponderv2.training.job import Job
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger
from ponderv2.training.validation import Validation
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from ponderv2.workflows.open_parts import open_parts
from ponderv2.workflows.training_runs import RunRequest, fingerprint, seeded_weights

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

Initialise = Callable[[nn.Module, Sequence[TaskDataset]], None]
"""Gives a new model the weights that it starts from."""
FitStart = Callable[[nn.Module, Sequence[TaskDataset], Reporter], None]
"""Fits what a new model starts from to the training scenes; the model is on its device."""


@dataclass(frozen=True)
class PartDatasets:
    """One data set of a run, as the task reads it."""

    part: OpenPart[Any]
    training: TaskDataset
    validation: TaskDataset | None


def with_scenes(config: Config, scenes: Path | None) -> Config:
    """The settings with the folders that `--data` means.

    One dataset: that folder. Several: the folders in it that are called like those of the preset. `scenes`
    then becomes the first of them, which is where other commands look when they are given the checkpoint.
    """
    if not config.datasets:
        return config.model_copy(update={"scenes": Path(scenes or config.scenes)})
    datasets = config.datasets
    if scenes is not None:
        moved = {part.scenes: Path(scenes) / part.scenes.name for part in datasets}
        datasets = tuple(part.model_copy(update={"scenes": moved[part.scenes]}) for part in datasets)
    return config.model_copy(update={"datasets": datasets, "scenes": datasets[0].scenes})


def open_datasets(
    task: Task[Any], config: PretrainConfig | FinetuneConfig, folder: Path | None = None
) -> tuple[PartDatasets, ...]:
    """The data sets of a run with the checks of the task. Raises what `Task.datasets` raises, SceneError."""
    return tuple(PartDatasets(part, *task.datasets(part)) for part in open_parts(config, folder))


def make_training_job(
    task: Task[Any], request: RunRequest, initialise: Initialise | None, fit: FitStart | None = None
) -> Job:
    """Model, data and validation of a run. `initialise`: None where weights are replaced by the run's own."""
    config = request.config
    data = open_datasets(task, config, request.folder)
    trainings = tuple(one.training for one in data)
    seeded_weights(config.seed)
    model = task.build()
    if initialise is not None:
        initialise(model, trainings)
    validation = _validation(task, model, request, data)

    def fit_start(device: torch.device, report: Reporter) -> None:
        assert fit is not None
        fit(model.to(device), trainings, report)

    best = task.best_of([] if validation is None else list(validation.each.values()))
    return Job(
        kind=config.model.kind,
        model=model,
        scenes=Datasets(
            trainings, tuple(one.part.part.ratio for one in data), task.mix_probability(config.data)
        ),
        collate=trainings[0].collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprints(
            [fingerprint(one.part.store, one.training.split, one.training.names) for one in data]
        ),
        classes=task.classes(trainings),
        validation=validation,
        best_metric=best.name,
        higher_is_better=best.higher_is_better,
        encoder_stages=model.stages if isinstance(model, EncoderModel) else (),
        fit_start=fit_start if fit is not None else None,
    )


def _validation(
    task: Task[Any], model: nn.Module, request: RunRequest, data: Sequence[PartDatasets]
) -> JointValidation | None:
    """Every data set that has scenes to validate; None where none has."""
    each = [one.validation for one in data if one.validation is not None]
    conditions = [one.condition for one in each]
    validations = [
        task.validation(
            model,
            one,
            ValidationRequest(
                request.folder, f"{one.condition}-" if len(data) > 1 else "", request.config.training
            ),
        )
        for one in each
    ]
    joint = JointValidation(dict(zip(distinct_names(conditions), validations, strict=True)))
    return joint if len(joint) else None


def fingerprints(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Equal for two runs on the same scenes; from the fingerprint of each dataset."""
    return each[0] if len(each) == 1 else {"name": "+".join(one["name"] for one in each), "datasets": each}


def distinct_names(names: Sequence[str]) -> list[str]:
    """The same names, made unique by a number."""
    return [
        name if names.index(name) == place else f"{name}-{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


@dataclass(frozen=True)
class JointValidation:
    """The scenes of several datasets, one after the other; metrics as `joint_metrics`."""

    each: dict[str, Validation]

    def __len__(self) -> int:
        return sum(map(len, self.each.values()))

    def measure(self, number: int, step: int, logger: RunLogger | None) -> Any:
        """What the dataset of the scene measures."""
        for one in self.each.values():
            if number < len(one):
                return one.measure(number, step, logger)
            number -= len(one)
        raise IndexError(f"only {len(self)} scenes")

    def metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Those of one dataset as they are; of several the means, then each as `metric/dataset`."""
        left, found = list(results), {}
        for name, one in self.each.items():
            found[name], left = one.metrics(left[: len(one)]), left[len(one) :]
        return joint_metrics(found)


def joint_metrics(per_dataset: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics of one dataset as they are; of several the means, then each as `metric/dataset`.

    A mean is over the datasets that have a number: of psnr not over those without colour.
    """
    every = list(per_dataset.values())
    if len(every) == 1:
        return every[0]
    shared = [name for name in every[0] if all(name in one for one in every)]
    known = {name: [one[name] for one in every if not math.isnan(one[name])] for name in shared}
    means = {name: sum(values) / len(values) if values else math.nan for name, values in known.items()}
    return means | {f"{name}/{key}": one[name] for key, one in per_dataset.items() for name in one}
