"""Prepared scenes -> pre-trained encoder: train by rendering, validate on held-out images."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ponderv2.collectives import process_number
from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.datasets import PretrainDataset, validation_frames
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import PresetError, SceneError
from ponderv2.models.config import SemanticTargetConfig, TextTargetConfig
from ponderv2.models.pretext import PretextLosses, PretextModel
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import Scene
from ponderv2.tasks.pictures import keep_newest, write_png
from ponderv2.tasks.rendering.views import compare_views, mean_metrics, preview
from ponderv2.training.config import TrainingConfig
from ponderv2.training.data_loader import Datasets
from ponderv2.training.job import Job
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.training.run_logger import RunLogger
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.dataset_parts import (
    JointValidation,
    OpenPart,
    check_known,
    distinct_names,
    fingerprints,
    open_parts,
    with_scenes,
)
from ponderv2.workflows.training_runs import (
    RunRequest,
    fingerprint,
    run_folder,
    run_training,
    seeded_weights,
)

SCENES_INSPECTED = 8
"""Scenes of a dataset that are read before training, to report views without colour."""


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
    """Of the computation; differs from the settings where the device does not support that."""
    seconds: float = 0.0


def run(
    config: PretrainConfig,
    *,
    scenes: Path | None = None,
    out: Path = Path("runs"),
    name: str = "pretrain",
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    report: Reporter | None = None,
) -> PretrainResult:
    """Trains an encoder and a renderer on the images of the scenes, into `out/name`.

    `scenes` replaces the folder that the settings name; of several datasets, the one that holds theirs.
    `devices`: processes on this machine. No file with labels is opened unless the model renders classes.

    Raises:
        SceneError: there is nothing to train on, or it has no labels and the model renders classes.
        PresetError: the scenes are of another dataset or have other classes than the model.
        OutputError: the folder holds another run, or cannot be written.
        CheckpointError: `resume` found nothing readable, or another model.
        Interrupted: after Ctrl-C, SIGTERM or SIGUSR1, once everything is saved.
        TrainingError: the numbers stayed not finite.
        ResourceError: memory stayed too small, or a process of the run ended or does not answer.
    """
    started = time.perf_counter()
    config = _with_class_names(with_scenes(config, scenes))
    folder = run_folder(Path(out), name)
    request = RunRequest(config, folder, resume=resume, devices=devices, nodes=nodes)
    report = report or SilentReporter()
    for part in _training_scenes(config):
        for remark in (*part.store.warnings(part.part.train_split), *_views_without_color(part)):
            report.note(remark)
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
    """Model, data and validation of a pre-training run. `resumed` changes nothing: weights are replaced."""
    config = request.config
    assert isinstance(config, PretrainConfig)
    parts = _training_scenes(config)
    seeded_weights(config.seed)
    model = PretextModel(config.model)
    with_labels = config.model.semantic is not None
    training = [
        PretrainDataset(one.store, one.part.train_split, one.part.data, one.seed, with_labels)
        for one in parts
    ]
    validation = _validation(config, parts, model, request.folder)
    has_color = any(isinstance(one, _Validation) and one.has_color for one in validation.each.values())
    return Job(
        kind="pretext",
        model=model,
        scenes=Datasets(tuple(training), tuple(one.part.ratio for one in parts)),
        collate=Batch.collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprints([fingerprint(one.store, one.part.train_split, one.names) for one in parts]),
        validation=validation if len(validation) else None,
        best_metric="psnr" if has_color else "depth_l1",
        higher_is_better=has_color,
    )


def _views_without_color(part: OpenPart[PretrainDataConfig]) -> tuple[str, ...]:
    """A warning about views with depth alone, from a few scenes spread over a dataset.

    A scene that cannot be read is none of them: training replaces it, and reports it.
    """
    names = part.names[:: max(len(part.names) // SCENES_INSPECTED, 1)][:SCENES_INSPECTED]
    scenes: list[Scene] = []
    for name in names:
        with contextlib.suppress(SceneError):
            scenes.append(part.store.read(name, part.part.train_split, labels=False))
    frames = [frame for scene in scenes for frame in scene.frames]
    without = sum(not frame.has_color for frame in frames)
    if not without:
        return ()
    rest = "there is no colour loss" if without == len(frames) else "the colour loss is that of the others"
    return (
        f"{part.store.root}: {without} of {len(frames)} views in {len(scenes)} scenes have depth alone: they "
        f"have a depth loss only, and {rest}",
    )


def _used_terms(measured: dict[str, float]) -> dict[str, float]:
    """The loss terms among what a step measured. A term that is not used is exactly zero."""
    names = ("loss", *(term.name for term in fields(PretextLosses)))
    return {name: measured[name] for name in names if measured.get(name, 0.0) != 0.0}


def _training_scenes(config: PretrainConfig) -> tuple[OpenPart[PretrainDataConfig], ...]:
    parts = open_parts(config.parts, config.seed)
    for one in parts:
        check_known(one.store.info.name, one.store.root, config.model.conditions)
        if config.model.semantic is not None:
            _check_targets(config.model.semantic, one)
    return parts


def _check_targets(semantic: SemanticTargetConfig, one: OpenPart[PretrainDataConfig]) -> None:
    """The classes to be rendered have to be in the scenes. Raises PresetError and SceneError."""
    store, name = one.store, one.store.info.name
    first = store.read(one.names[0], one.part.train_split)
    if first.frames and all(frame.semantic_path is None for frame in first.frames):
        raise SceneError(
            f"the images of scene '{first.name}' have no labels, and the model renders classes",
            fix="--preset indoor, which needs no labels",
        )
    rows = None
    if isinstance(semantic, TextTargetConfig):
        if isinstance(semantic.valid_index, dict) and name not in semantic.valid_index:
            known = ", ".join(semantic.valid_index)
            raise PresetError(
                f"{store.root} holds scenes of '{name}', the model knows the classes of {known}",
                fix=f"--set model.semantic.valid_index.{name}=[...]",
            )
        rows = semantic.rows_of(name)
    wanted = semantic.n_classes if rows is None else len(rows)
    there = len(store.info.label_set(one.part.data.label_field or store.info.label_field).class_names)
    if there and wanted != there:
        raise PresetError(
            f"the model renders {wanted} classes and {store.root} has {there}",
            fix=f"--set model.semantic.n_classes={there}",
        )


def _with_class_names(config: PretrainConfig) -> PretrainConfig:
    """Names that a text encoder needs and the settings leave out are those of the only dataset."""
    semantic = config.model.semantic
    if not isinstance(semantic, TextTargetConfig) or semantic.names or len(config.parts) > 1:
        return config
    store, data = open_folder(config.scenes), config.data
    names = store.info.label_set(data.label_field or store.info.label_field).class_names
    if len(names) != semantic.n_classes:
        return config
    semantic = semantic.model_copy(update={"class_names": names})
    return config.model_copy(update={"model": config.model.model_copy(update={"semantic": semantic})})


def _validation(
    config: PretrainConfig, parts: tuple[OpenPart[PretrainDataConfig], ...], model: PretextModel, folder: Path
) -> JointValidation:
    """Held-out views of a few scenes of each dataset."""
    # Captures of one place have no scenes to spare: their held-out images are validated.
    data = [
        PretrainDataset(one.store, one.val_split or one.part.train_split, one.part.data, one.seed)
        for one in parts
    ]
    conditions = [one.condition for one in data]
    prefixes = [f"{condition}-" if len(data) > 1 else "" for condition in conditions]
    each = [
        _Validation(model, one, prefix, folder / "previews", config.training)
        for one, prefix in zip(data, prefixes, strict=True)
    ]
    return JointValidation(dict(zip(distinct_names(conditions), each, strict=True)))


@dataclass(frozen=True)
class _Validation:
    """Renders held-out views of a few scenes of one dataset."""

    model: PretextModel
    data: PretrainDataset
    prefix: str
    """Of the names of the pictures."""
    folder: Path
    """Of the pictures."""
    settings: TrainingConfig

    def __len__(self) -> int:
        return min(self.settings.evaluate_scenes, len(self.data))

    @property
    def has_color(self) -> bool:
        """Whether any view that is validated has a colour; else the error of depth decides what is best."""
        scenes = (self.data.scene(number) for number in range(len(self)))
        return any(frame.has_color for scene in scenes for frame in validation_frames(scene))

    def measure(self, number: int, step: int, logger: RunLogger | None) -> list[dict[str, float]]:
        """Metrics of each view. The first view is kept as an image."""
        scene = self.data.validation(number)
        rows: list[dict[str, float]] = []
        for view, pair in enumerate(compare_views(self.model, scene, self.settings.evaluate_width)):
            rows.append(pair.metrics())
            if view == 0:
                name = self.prefix + scene.batch.names[0].replace("/", "_")
                picture = preview(pair)
                write_png(self.folder / f"step-{step:06d}-{name}.png", picture)
                if logger:
                    logger.picture(f"previews/{name}", picture, step)
        return rows

    def metrics(self, results: Sequence[list[dict[str, float]]]) -> dict[str, float]:
        """Means over all views. All processes have written their pictures: the oldest may go."""
        if process_number() == 0:
            keep_newest(self.folder, self.settings.keep_newest)
        return mean_metrics([row for rows in results for row in rows])
