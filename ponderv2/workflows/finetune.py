"""Pre-trained encoder -> model of a task, or from scratch to compare with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from torch import nn

from ponderv2.errors import CheckpointError
from ponderv2.models.finetuned import calibrate_normalisation
from ponderv2.models.instances_config import InstancesModelConfig
from ponderv2.models.segmentation_config import SegmentationModelConfig
from ponderv2.training.loop import Job
from ponderv2.training.stored_models import encoder_weights
from ponderv2.training.weights import MatchReport, load_weights
from ponderv2.workflows import finetune_instances, finetune_semantic
from ponderv2.workflows.configs import FinetuneConfig
from ponderv2.workflows.finetune_settings import completed, n_classes_of
from ponderv2.workflows.finetune_task import Task
from ponderv2.workflows.report import Reporter, SilentReporter
from ponderv2.workflows.scene_folders import open_scenes
from ponderv2.workflows.training_runs import (
    RunRequest,
    fingerprint,
    run_folder,
    run_training,
    seeded_weights,
)

CALIBRATION_SCENES = 16
"""Scenes from which a frozen random encoder gets the statistics of its normalisations."""

LANGUAGE_PARTS = ("class_embedding", "logit_scale", "proj_head.")
"""What a pre-trained model has in common with a language head."""


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
    """Trains a model of a task (a class for every point, or single objects), into `out/name`.

    The encoder starts from `checkpoint` (ours or published, or the folder of a run); None: from random
    weights. With `config.model.freeze_encoder` the head alone is trained.

    Raises:
        SceneError: there is nothing to train on, or it has no labels. Without `scenes` the folder is the one
            that the checkpoint was trained on, else that of the settings.
        CheckpointError: the checkpoint cannot be read or its encoder is another one.
        PresetError: the number of classes is not that of the data, or the encoder knows other datasets.
        OutputError, Interrupted, TrainingError: as for pre-training.
    """
    started = time.perf_counter()
    report = report or SilentReporter()
    store = open_scenes(scenes, checkpoint, config.scenes)
    config = completed(config, store, checkpoint)
    folder = run_folder(Path(out), name)
    request = RunRequest(config, folder, checkpoint, resume, devices, nodes)
    task = task_of(config)
    training, validation = task.datasets(config)
    if validation is None:
        report.warn(f"{store.root} has no scenes in '{config.val_split}': nothing is validated")
    if checkpoint is not None and not resume:
        seeded_weights(config.seed)
        matched = load_encoder(task.build(config.model), Path(checkpoint))
        report.note(f"encoder from {checkpoint}: {matched.summary()}")
    n_classes = n_classes_of(config.model, store.info.name)
    report.note(f"{len(training)} training scenes of {store.root}, {n_classes} classes")
    outcome = run_training(request, make_job, report)
    history = [dict(entry) for entry in outcome.history]
    return FinetuneResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics={name: value for name, value in (history[-1] if history else {}).items() if name != "step"},
        best=max(history, key=lambda entry: entry[task.best_metric]) if history else {},
        losses=outcome.losses,
        skipped_steps=outcome.skipped_steps,
        seconds=time.perf_counter() - started,
    )


def load_encoder(model: nn.Module, path: Path) -> MatchReport:
    """Copies encoder and, where the model has them, prompts and text embeddings with their projection.

    Raises CheckpointError if a part of the encoder is missing.
    """
    stored = encoder_weights(path)
    kept = {
        name: value for name, value in stored.items() if name.startswith(("backbone.", "embedding_table."))
    }
    shared = {f"head.{name}": value for name, value in stored.items() if name.startswith(LANGUAGE_PARTS)}
    own = model.state_dict()
    kept |= {name: value for name, value in shared.items() if name in own and own[name].shape == value.shape}
    try:
        return load_weights(model, kept, source=str(path), required_prefixes=("backbone.",), least_share=1.0)
    except CheckpointError as error:
        fix = "--set model.encoder=null takes the encoder of the checkpoint"
        raise CheckpointError(error.message, fix=fix) from error


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a fine-tuning run; with `resumed` the start weights are not read."""
    config = request.config
    assert isinstance(config, FinetuneConfig)
    task = task_of(config)
    training, validation = task.datasets(config)
    seeded_weights(config.seed)
    model = task.build(config.model)
    if not resumed:
        if request.start is not None:
            load_encoder(model, request.start)
        elif config.model.freeze_encoder:
            n_scenes = min(CALIBRATION_SCENES, len(training))
            calibrate_normalisation(model, (training.sample(index, 0) for index in range(n_scenes)))
    info = training.store.info
    classes = info.label_set(training.label_field)
    return Job(
        kind=task.kind,
        model=model,
        scenes=training,
        collate=training.collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprint(training.store, config.train_split, training.names),
        classes={
            "names": list(classes.class_names),
            "colors": [list(color) for color in classes.class_colors],
            "label_field": training.label_field,
            "condition": info.name,
        },
        evaluate=task.validation(model, validation) if validation is not None else None,
        best_metric=task.best_metric,
    )
