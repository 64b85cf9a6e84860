"""Prepared scenes -> pre-trained encoder: train by rendering, validate on held-out images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import nn

from ponderv2.data.scene_folder import open_folder
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.renderer.losses import RenderLosses
from ponderv2.tasks.branches import load_parts
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.task import TaskDataset
from ponderv2.training.job import Job
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.image_features import with_features
from ponderv2.workflows.training_job import make_training_job, open_datasets, with_scenes
from ponderv2.workflows.training_runs import (
    RunRequest,
    run_folder,
    run_training,
)


@dataclass(frozen=True)
class PretrainResult:
    """Outcome of a pre-training run."""

    checkpoint: Path
    """The best by PSNR of held-out views (by depth_l1 where they have no colour), or the last where nothing
    could be validated."""
    folder: Path
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation: psnr (decibel), ssim, depth_l1 and depth_median (metres)."""
    losses: dict[str, float] = field(default_factory=dict)
    """Total and weighted terms of the last step, without the terms that the settings leave out."""
    training_psnr: float | None = None
    """Of the pixels of the last step, decibel."""
    skipped_steps: int = 0
    split_steps: int = 0
    """Steps with smaller micro-batches than planned, because memory ran out."""
    bad_scenes: tuple[str, ...] = ()
    """Unreadable scenes that were replaced."""
    precision: str = "32"
    """Of the computation itself; differs from the settings where the device does not support that."""
    seconds: float = 0.0


def run(  # noqa: PLR0913 - one argument per option of the command
    config: PretrainConfig,
    *,
    scenes: Path | None = None,
    start: Sequence[Path] = (),
    out: Path = Path("runs"),
    name: str = "pretrain",
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    report: Reporter | None = None,
) -> PretrainResult:
    """Trains an encoder and a renderer on the images of the scenes, into `out/name`.

    `scenes` replaces the folder that the settings name; of several datasets, the one that holds theirs.
    `start`: runs or checkpoints whose encoders the model starts from, one for each branch of a fusion.
    `devices`: processes on this machine. No file with labels is opened unless the model renders classes.

    Raises:
        SceneError: there is nothing to train on, or it has no labels and the model renders classes.
        PresetError: the scenes are of another dataset or have other classes than the model.
        OutputError: the folder holds another run, or cannot be written.
        CheckpointError: `resume` found nothing readable, or another model.
        Interrupted: after Ctrl-C, SIGTERM or SIGUSR1, once everything is saved.
        TrainingError: values remained non-finite.
        ResourceError: memory stayed too small, or a process of the run ended or does not answer.
    """
    started = time.perf_counter()
    folder = run_folder(Path(out), name)
    config = _with_class_names(with_scenes(config, scenes))
    report = report or SilentReporter()
    config = with_features(config, report)
    parts = tuple(open_checkpoint(one) for one in start)
    request = RunRequest(config, folder, parts=parts, resume=resume, devices=devices, nodes=nodes)
    task = task_of(config.model)
    if parts and not resume:
        model = task.build()
        assert isinstance(model, EncoderModel)
        for text in load_parts(model, parts):
            report.note(text)
    for one in open_datasets(task, config):
        for text in task.training_warnings(one.part):
            report.note(text)
    outcome = run_training(request, make_job, report)
    metrics = dict(outcome.history[-1]) if outcome.history else {}
    metrics.pop("step", None)
    training_psnr = outcome.losses.get("psnr", math.nan)
    return PretrainResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics={name: value for name, value in metrics.items() if not math.isnan(value)},
        losses=_used_terms(outcome.losses),
        training_psnr=None if math.isnan(training_psnr) else training_psnr,
        skipped_steps=outcome.skipped_steps,
        split_steps=outcome.split_steps,
        bad_scenes=outcome.bad_scenes,
        precision=outcome.precision,
        seconds=time.perf_counter() - started,
    )


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a pre-training run. Weights of a resumed one are replaced.

    Raises PresetError and ResourceError where an encoder starts from weights that are not there.
    """
    config = request.config
    assert isinstance(config, PretrainConfig)

    def started(model: nn.Module, trainings: Sequence[TaskDataset]) -> None:
        assert isinstance(model, EncoderModel)
        model.load_start_weights()
        load_parts(model, request.parts)

    return make_training_job(task_of(config.model), request, None if resumed else started)


def _used_terms(measured: dict[str, float]) -> dict[str, float]:
    """The loss terms among what a step measured. A term that is not used is exactly zero."""
    names = ("loss", *(term.name for term in fields(RenderLosses)))
    return {name: measured[name] for name in names if measured.get(name, 0.0) != 0.0}


def _with_class_names(config: PretrainConfig) -> PretrainConfig:
    """The settings with what the model takes from the data and, of one data set, its scenes."""
    task = task_of(config.model)
    if len(config.parts) > 1:
        return config.model_copy(update={"model": task.with_data(config.data)})
    model = task.with_scenes(open_folder(config.scenes), config.data)
    return config.model_copy(update={"model": model})
