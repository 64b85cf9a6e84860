"""Pre-trained encoder -> model of a task, or from scratch to compare with."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ponderv2.data.config import LabelledDataConfig, PointDataConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.encoder.kinds import EncoderConfig
from ponderv2.errors import CheckpointError, PresetError
from ponderv2.models.encoder_model import EncoderModel, calibrate_normalisation
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.checkpoints import open_checkpoint, task_of_checkpoint
from ponderv2.tasks.initial_weights import load_encoder
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.task import BestMetric, Task, TaskDataset
from ponderv2.training.job import Job
from ponderv2.training.open_checkpoint import OpenCheckpoint, Origin
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import FinetuneConfig
from ponderv2.workflows.finetune_protocols import fit_of_start, with_protocol
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes
from ponderv2.workflows.training_job import make_training_job, open_datasets, with_scenes
from ponderv2.workflows.training_runs import RunRequest, run_folder, run_training, seeded_weights

ENCODER_INPUTS = ("voxel", "features", "fields", "scales", "centred", "sweeps", "images")
"""Settings of `data` that follow from the encoder of a checkpoint, unless the settings name their own."""
CALIBRATION_SCENES = 16
"""Scenes from which an encoder gets the statistics of its normalisations, where its own do not apply."""


@dataclass(frozen=True)
class FinetuneResult:
    """Outcome of a fine-tuning run."""

    checkpoint: Path
    """The best by the metric of the task, or the last where nothing could be validated."""
    folder: Path
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation, as the task names them."""
    best: dict[str, float] = field(default_factory=dict)
    """Of the best validation, with its step."""
    losses: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    split_steps: int = 0
    """Steps with smaller micro-batches than planned, because memory ran out."""
    bad_scenes: tuple[str, ...] = ()
    """Unreadable scenes that were replaced."""
    precision: str = "32"
    """Of the computation; differs from the settings where the device does not support that."""
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
    """Trains a model of a task, into `out/name`.

    The encoder starts from `checkpoint` (ours or published, or the folder of a run); None: from random
    weights. What is trained is the affair of `config.protocol`, what the head starts from that of
    `config.model.head_init`.

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
    opened = None if checkpoint is None else open_checkpoint(checkpoint)
    if opened is not None and opened.origin is Origin.REFINED:
        task_of_checkpoint(opened)
    asked, config = config, _completed(config, scenes, opened, report)
    folder = run_folder(Path(out), name)
    request = RunRequest(config, folder, opened, resume, devices, nodes)
    task = task_of(config.model)
    if opened is not None:
        _describe_points(asked, config, opened, report)
    _describe(config, task, report)
    if opened is not None and not resume:
        seeded_weights(config.seed)
        matched = load_encoder(task, task.build(), opened)
        report.note(f"encoder from {checkpoint}: {matched.summary()}")
    outcome = run_training(request, make_job, report)
    history = [dict(entry) for entry in outcome.history]
    return FinetuneResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics={name: value for name, value in (history[-1] if history else {}).items() if name != "step"},
        best=_best(history, task.best),
        losses=outcome.losses,
        skipped_steps=outcome.skipped_steps,
        split_steps=outcome.split_steps,
        bad_scenes=outcome.bad_scenes,
        precision=outcome.precision,
        seconds=time.perf_counter() - started,
    )


def _best(history: Sequence[dict[str, float]], metric: BestMetric) -> dict[str, float]:
    """The validation with the best metric, the first of equals; one without a number only where all are."""
    numbers = [entry for entry in history if not math.isnan(entry[metric.name])]
    sign = 1.0 if metric.higher_is_better else -1.0
    return max(numbers or history[:1], key=lambda entry: sign * entry[metric.name], default={})


def _completed(
    config: FinetuneConfig, scenes: Path | None, checkpoint: OpenCheckpoint | None, report: Reporter
) -> FinetuneConfig:
    """The settings with what checkpoint and scenes determine; of several datasets, all of them."""
    if not config.datasets:
        store = open_scenes(SceneChoice.of(scenes, config), checkpoint, report)
        done = completed(config, store, checkpoint)
        return with_protocol(done, task_of(done.model))
    config = with_scenes(config, scenes)
    first, label_field = config.scenes, config.data.label_field
    for part in config.parts:
        data = config.data.model_copy(update={"label_field": part.data.label_field})
        alone = config.model_copy(update={"data": data})
        done = completed(alone, open_folder(part.scenes), checkpoint)
        data = done.data.model_copy(update={"label_field": label_field})
        config = done.model_copy(update={"data": data, "scenes": first})
    return with_protocol(config, task_of(config.model))


def completed(
    config: FinetuneConfig, store: SceneFolders, checkpoint: OpenCheckpoint | None
) -> FinetuneConfig:
    """The settings with an encoder, its voxels and features, and a number of classes.

    Where `model.encoder` is not set, the encoder is that of the checkpoint; voxels and features then are too,
    unless the settings name their own.

    Raises:
        PresetError: no encoder and no checkpoint; features that the encoder does not take; another number of
            classes than the scenes have, or none known.
        CheckpointError: it cannot be read or does not describe its encoder.
    """
    data, encoder = config.data, config.model.encoder
    if encoder is None:
        if checkpoint is None:
            raise PresetError(
                "there is no encoder: the preset leaves it to the checkpoint, and there is none",
                fix="--from CKPT, or --set model.encoder.kind=sparse_unet",
            )
        encoder, data = _encoder_of(checkpoint, data)
    update: dict[str, Any] = {"encoder": encoder}
    if checkpoint is not None and not config.model.conditions:
        update["conditions"] = checkpoint.conditions
    model = config.model.model_copy(update=update)
    model = task_of(model).with_scenes(store, data)
    if checkpoint is not None and config.model.encoder is None:
        _check_data(encoder, data, checkpoint)
    return config.model_copy(update={"data": data, "model": model, "scenes": store.root})


def _check_data(encoder: EncoderConfig, data: LabelledDataConfig, checkpoint: OpenCheckpoint) -> None:
    """What `FinetuneConfig` checks of an encoder that the settings name."""
    if data.images is not None and data.mix_probability > 0:
        raise PresetError(
            f"scenes with images cannot be merged, and the encoder of {checkpoint.path} sees images",
            fix="--set data.mix_probability=0",
        )
    if encoder.needs != "images" and encoder.in_channels != data.n_channels:
        raise PresetError(
            f"data.features give {data.n_channels} channels, "
            f"but the encoder of {checkpoint.path} takes {encoder.in_channels}",
            fix="leave data.features out: they follow from the checkpoint",
        )


def _encoder_of(
    checkpoint: OpenCheckpoint, data: LabelledDataConfig
) -> tuple[EncoderConfig, LabelledDataConfig]:
    """The encoder that a file holds, and how its points are to be prepared."""
    encoder = _encoder(checkpoint.path, checkpoint.encoder_settings)
    stored = checkpoint.config.get("data")
    known = {name: stored.get(name) for name in ENCODER_INPUTS} if isinstance(stored, Mapping) else {}
    wanted = {
        name: value
        for name, value in known.items()
        if value is not None and name not in data.model_fields_set
    }
    try:
        points = PointDataConfig.model_validate(wanted)
    except ValidationError as error:
        raise CheckpointError(
            f"{checkpoint.path} has point settings that this program does not know"
        ) from error
    if points.images is not None:  # what is held out from pre-training is not from labels
        points = points.model_copy(update={"images": points.images.model_copy(update={"held_out": False})})
    return encoder, data.model_copy(update={name: getattr(points, name) for name in wanted})


def _encoder(path: Path, values: Any) -> EncoderConfig:
    try:
        return TypeAdapter(EncoderConfig).validate_python(values)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} does not say what its encoder looks like",
            fix="--set model.encoder.kind=sparse_unet",
        ) from error


def _describe_points(
    asked: FinetuneConfig, config: FinetuneConfig, checkpoint: OpenCheckpoint, report: Reporter
) -> None:
    """Reports on which points an encoder was trained, where that is assumed or the settings say otherwise."""
    encoder = config.model.encoder
    if encoder is not None and encoder.needs == "images":
        return
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


def _describe(config: FinetuneConfig, task: Task[Any], report: Reporter) -> None:
    """Reports what will be trained on. Raises what `Task.datasets` raises, before the work."""
    for one in open_datasets(task, config):
        store, training = one.part.store, one.training
        if one.validation is None:
            report.warn(f"{store.root} has no scenes in '{one.part.part.val_split}': nothing is validated")
        for text in task.training_warnings(one.part):
            report.note(text)
        report.note(f"{len(training)} training scenes of {store.root}, {task.targets(training)}")


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a fine-tuning run; with `resumed` the start weights are not read."""
    config = request.config
    assert isinstance(config, FinetuneConfig)
    task = task_of(config.model)
    fit_head = fit_of_start(config, task, request.start)

    def initialise(model: nn.Module, trainings: Sequence[TaskDataset]) -> None:
        assert isinstance(model, EncoderModel)
        is_used_at_once = config.model.freeze_encoder or fit_head is not None
        started: tuple[nn.Module, ...] = ()
        if request.start is not None:
            load_encoder(task, model, request.start)
        else:
            started = model.load_start_weights()
        if config.model.recalibrate_norms:
            calibrate_normalisation(model, _first_scenes(trainings))
        elif request.start is None and is_used_at_once:  # statistics of new weights apply to no data
            calibrate_normalisation(model, _first_scenes(trainings), leaving=started)

    def fit(model: nn.Module, trainings: Sequence[TaskDataset], report: Reporter) -> None:
        assert fit_head is not None
        fit_head(model, trainings, config.seed, report)

    fit_start = None if fit_head is None else fit
    return make_training_job(task, request, None if resumed else initialise, fit_start)


def _first_scenes(trainings: Sequence[TaskDataset]) -> Iterator[Batch]:
    """Scenes of each dataset, as they are trained on."""
    for training in trainings:
        for index in range(min(CALIBRATION_SCENES, len(training))):
            yield training.sample(index, 0)
