"""Pre-trained encoder -> model of a task, or from scratch to compare with."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from torch import nn

from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.initial_weights import load_encoder
from ponderv2.tasks.instances import task as finetune_instances
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.segmentation import task as finetune_semantic
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import calibrate_normalisation
from ponderv2.tasks.task import Task
from ponderv2.training.data_loader import Datasets
from ponderv2.training.job import Job
from ponderv2.training.open_checkpoint import OpenCheckpoint, Origin
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import FinetuneConfig
from ponderv2.workflows.dataset_parts import (
    JointValidation,
    distinct_names,
    fingerprints,
    singles,
    with_scenes,
)
from ponderv2.workflows.finetune_settings import completed, n_classes_of
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes
from ponderv2.workflows.training_runs import (
    RunRequest,
    fingerprint,
    run_folder,
    run_training,
    seeded_weights,
)

CALIBRATION_SCENES = 16
"""Scenes from which a frozen random encoder gets the statistics of its normalisations."""


def task_of(config: FinetuneConfig) -> Task:
    """What is trained, by the kind of the model."""
    match config.model:
        case SegmentationModelConfig():
            return finetune_semantic.TASK
        case InstancesModelConfig():
            return finetune_instances.TASK
        case _:
            assert_never(config.model)


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run left behind."""

    checkpoint: Path
    """The best by the metric of the task, or the last where nothing could be validated."""
    folder: Path
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation, 0..1. Segmentation: miou, macc, allacc. Instances: ap, ap50, ap25."""
    best: dict[str, float] = field(default_factory=dict)
    """Of the best validation, with its step."""
    losses: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    split_steps: int = 0
    """Steps that were done in smaller parts, as memory ran out."""
    bad_scenes: tuple[str, ...] = ()
    """Scenes that could not be read, and that others stood in for."""
    precision: str = "32"
    """In which the run computed: where the device is no good at that of the settings, another one."""
    seconds: float = 0.0


def run(  # noqa: PLR0913 - one argument per option of the command
    config: FinetuneConfig,
    *,
    checkpoint: Path | None = None,
    scenes: Path | None = None,
    out: Path = Path("runs"),
    name: str = "finetune",
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    report: Reporter | None = None,
) -> FinetuneResult:
    """Trains a model of a task (semantic or instance segmentation), into `out/name`.

    The encoder starts from `checkpoint` (ours or published, or the folder of a run); None: from random
    weights. With `config.model.freeze_encoder` the head alone is trained.

    Raises:
        SceneError: there is nothing to train on, or it has no labels. Without `scenes` the folder is that of
            the settings where they name one, else the one that the checkpoint was trained on.
        CheckpointError: the checkpoint cannot be read or its encoder is another one (MismatchError, with a
            table of what does not fit).
        PresetError: the number of classes is not that of the data, or the encoder knows other datasets.
        OutputError, Interrupted, TrainingError: as for pre-training.
    """
    started = time.perf_counter()
    report = report or SilentReporter()
    opened = None if checkpoint is None else OpenCheckpoint(Path(checkpoint))
    if opened is not None and opened.origin is Origin.REFINED:
        opened.require_model()
    asked, config = config, _completed(config, scenes, opened, report)
    folder = run_folder(Path(out), name)
    request = RunRequest(config, folder, opened, resume, devices, nodes)
    task = task_of(config)
    if opened is not None:
        _describe_points(asked, config, opened, report)
    _describe(config, task, report)
    if opened is not None and not resume:
        seeded_weights(config.seed)
        matched = load_encoder(task.build(config.model), opened)
        report.note(f"encoder from {checkpoint}: {matched.summary()}")
    outcome = run_training(request, make_job, report)
    history = [dict(entry) for entry in outcome.history]
    return FinetuneResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics={name: value for name, value in (history[-1] if history else {}).items() if name != "step"},
        best=_best(history, task.best_metric),
        losses=outcome.losses,
        skipped_steps=outcome.skipped_steps,
        split_steps=outcome.split_steps,
        bad_scenes=outcome.bad_scenes,
        precision=outcome.precision,
        seconds=time.perf_counter() - started,
    )


def _best(history: Sequence[dict[str, float]], metric: str) -> dict[str, float]:
    """The first validation with the highest metric; one without a number only where all are."""
    numbers = [entry for entry in history if not math.isnan(entry[metric])]
    return max(numbers or history[:1], key=lambda entry: entry[metric], default={})


def _completed(
    config: FinetuneConfig, scenes: Path | None, checkpoint: OpenCheckpoint | None, report: Reporter
) -> FinetuneConfig:
    """The settings with everything that checkpoint and scenes say; of several datasets, of all of them."""
    if not config.datasets:
        store = open_scenes(SceneChoice.of(scenes, config), checkpoint, report)
        return completed(config, store, checkpoint)
    config = with_scenes(config, scenes)
    first, label_field = config.scenes, config.data.label_field
    for part in config.parts:
        data = config.data.model_copy(update={"label_field": part.data.label_field})
        alone = config.model_copy(update={"data": data})
        done = completed(alone, open_folder(part.scenes), checkpoint)
        data = done.data.model_copy(update={"label_field": label_field})
        config = done.model_copy(update={"data": data, "scenes": first})
    return config


def _describe_points(
    asked: FinetuneConfig, config: FinetuneConfig, checkpoint: OpenCheckpoint, report: Reporter
) -> None:
    """Reports what the encoder was trained on where that is assumed, and where the settings say otherwise."""
    data = checkpoint.config.get("data")
    known = data if isinstance(data, Mapping) else {}
    own = asked.data.model_fields_set
    if not {"voxel", "features"} <= own:
        for note in checkpoint.notes:
            report.warn(f"{note} (--set data.features=[...] --set data.voxel.size=METRES say otherwise)")
    features, size = known.get("features"), (known.get("voxel") or {}).get("size")
    if features and list(features) != list(config.data.features):
        report.warn(
            f"the encoder was trained on {', '.join(features)}; the settings give it "
            f"{', '.join(config.data.features)}"
        )
    here = config.data.voxel.size
    if size and size != here:
        report.note(f"the encoder was trained on voxels of {size} m, the settings have {here}")


def _describe(config: FinetuneConfig, task: Task, report: Reporter) -> None:
    """Says what will be trained on. Raises what `task.datasets` raises, before the work."""
    for single in singles(config):
        training, validation = task.datasets(single)
        store = training.store
        if validation is None:
            report.warn(f"{store.root} has no scenes in '{single.val_split}': nothing is validated")
        for remark in store.warnings(single.train_split, labels=True):
            report.note(remark)
        n_classes = n_classes_of(config.model, store.info.name)
        report.note(f"{len(training)} training scenes of {store.root}, {n_classes} classes")


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a fine-tuning run; with `resumed` the start weights are not read."""
    config = request.config
    assert isinstance(config, FinetuneConfig)
    task = task_of(config)
    pairs = [task.datasets(single) for single in singles(config)]
    trainings = tuple(training for training, _ in pairs)
    seeded_weights(config.seed)
    model = task.build(config.model)
    if not resumed:
        if request.start is not None:
            load_encoder(model, request.start)
        elif config.model.freeze_encoder:
            calibrate_normalisation(model, _first_scenes(trainings))
    return Job(
        kind=task.kind,
        model=model,
        scenes=Datasets(trainings, tuple(part.ratio for part in config.parts), config.data.mix_probability),
        collate=trainings[0].collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprints([fingerprint(one.store, one.split, one.names) for one in trainings]),
        classes=_classes(trainings),
        validation=_validation(
            task, model, [validation for _, validation in pairs if validation is not None]
        ),
        best_metric=task.best_metric,
    )


def _first_scenes(trainings: Sequence[LabelledDataset]) -> Iterator[Batch]:
    for training in trainings:
        for index in range(min(CALIBRATION_SCENES, len(training))):
            yield training.sample(index, 0)


def _classes(trainings: Sequence[LabelledDataset]) -> dict[str, Any]:
    """Names and colours of the first dataset; of several, under `datasets` those of each by its name."""
    each: dict[str, dict[str, Any]] = {}
    for training in trainings:
        labels = training.store.info.label_set(training.label_field)
        each[training.condition] = {
            "names": list(labels.class_names),
            "colors": [list(color) for color in labels.class_colors],
            "label_field": training.label_field,
            "condition": training.condition,
        }
    first = each[trainings[0].condition]
    return first if len(each) == 1 else {**first, "datasets": each}


def _validation(task: Task, model: nn.Module, data: Sequence[LabelledDataset]) -> JointValidation | None:
    """Every dataset that has scenes to validate; None where none has."""
    names = distinct_names([one.condition for one in data])
    each = {name: task.validation(model, one) for name, one in zip(names, data, strict=True)}
    return JointValidation(each) if each else None
