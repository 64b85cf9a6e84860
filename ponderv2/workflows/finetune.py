"""Pre-trained encoder -> segmentation model, or from scratch to compare with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ponderv2.collectives import n_processes, process_number, sum_over_processes
from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.evaluation.semantic import segmentation_metrics
from ponderv2.models.finetuned import SegmentationModel, calibrate_normalisation
from ponderv2.scenes.dataset import SegmentationDataset
from ponderv2.scenes.storage import SceneStore
from ponderv2.training.logbook import Logbook
from ponderv2.training.loop import Job
from ponderv2.training.stored_models import encoder_weights
from ponderv2.training.weights import MatchReport, load_weights
from ponderv2.workflows.class_metrics import confusion_of_scenes
from ponderv2.workflows.configs import FinetuneConfig
from ponderv2.workflows.finetune_settings import completed
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


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run left behind."""

    checkpoint: Path
    """The best by mean IoU, or the last where nothing could be validated."""
    folder: Path
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation: miou, macc, allacc, 0..1."""
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
    """Trains a class for every point, into `out/name`.

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
    training, validation = _datasets(config)
    if validation is None:
        report.warn(f"{store.root} has no scenes in '{config.val_split}': nothing is validated")
    if checkpoint is not None and not resume:
        seeded_weights(config.seed)
        matched = load_encoder(SegmentationModel(config.model), Path(checkpoint))
        report.note(f"encoder from {checkpoint}: {matched.summary()}")
    n_classes = config.model.head.n_classes
    report.note(f"{len(training)} training scenes of {store.root}, {n_classes} classes")
    outcome = run_training(request, make_job, report)
    history = [dict(entry) for entry in outcome.history]
    return FinetuneResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics={name: value for name, value in (history[-1] if history else {}).items() if name != "step"},
        best=max(history, key=lambda entry: entry["miou"]) if history else {},
        losses=outcome.losses,
        skipped_steps=outcome.skipped_steps,
        seconds=time.perf_counter() - started,
    )


def load_encoder(model: SegmentationModel, path: Path) -> MatchReport:
    """Copies encoder and, where the model has them, prompts. Raises CheckpointError if one is missing."""
    stored = encoder_weights(path)
    kept = {
        name: value for name, value in stored.items() if name.startswith(("backbone.", "embedding_table."))
    }
    try:
        return load_weights(model, kept, source=str(path), required_prefixes=("backbone.",), least_share=1.0)
    except CheckpointError as error:
        fix = "--set model.encoder=null takes the encoder of the checkpoint"
        raise CheckpointError(error.message, fix=fix) from error


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a fine-tuning run; with `resumed` the start weights are not read."""
    config = request.config
    assert isinstance(config, FinetuneConfig)
    training, validation = _datasets(config)
    seeded_weights(config.seed)
    model = SegmentationModel(config.model)
    if not resumed:
        if request.start is not None:
            load_encoder(model, request.start)
        elif config.model.freeze_encoder:
            n_scenes = min(CALIBRATION_SCENES, len(training))
            calibrate_normalisation(model, (training.sample(index, 0) for index in range(n_scenes)))
    info = training.store.info
    return Job(
        kind="segmentation",
        model=model,
        scenes=training,
        collate=training.collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprint(training.store, config.train_split, training.names),
        classes={
            "names": list(info.class_names),
            "colors": [list(color) for color in info.class_colors],
            "label_field": training.label_field,
            "condition": info.name,
        },
        evaluate=_Validation(model, validation) if validation is not None else None,
        best_metric="miou",
    )


def _datasets(config: FinetuneConfig) -> tuple[SegmentationDataset, SegmentationDataset | None]:
    """Scenes to train on and, where the other split has any, to validate."""
    store = SceneStore.open(config.scenes)
    if not store.scene_names(config.train_split):
        raise SceneError(
            f"{config.scenes} has no scenes in '{config.train_split}'",
            fix=f"--set train_split={store.info.splits[0]}",
        )
    training = SegmentationDataset(store, config.train_split, config.data, config.seed)
    _check_classes(training, config)
    if not store.scene_names(config.val_split):
        return training, None
    # A budget of labels is for training; all scenes and labels of the other split are evaluated.
    everything = config.data.model_copy(update={"budget": type(config.data.budget)()})
    return training, SegmentationDataset(store, config.val_split, everything, config.seed)


def _check_classes(training: SegmentationDataset, config: FinetuneConfig) -> None:
    """Labels and datasets that the model does not know are said before the work, by the first scene."""
    segment = training.labelled_scene(0).cloud.labels[training.label_field]
    largest, n_classes = int(segment.max()), config.model.head.n_classes
    if n_classes is not None and largest >= n_classes:
        raise PresetError(
            f"scene '{training.names[0]}' has class {largest} in '{training.label_field}', "
            f"the model classes 0 to {n_classes - 1}",
            fix="--set model.head.n_classes=N or --set data.label_field=NAME",
        )
    known = getattr(config.model.encoder, "conditions", ())
    if known and (config.model.condition or training.condition) not in known:
        raise PresetError(
            f"the encoder knows the datasets {', '.join(known)}, not '{training.condition}'",
            fix=f"--set model.condition={known[0]}",
        )


class _Validation:
    """Classes of whole scenes without augmentation; the scenes are shared by the processes."""

    def __init__(self, model: SegmentationModel, data: SegmentationDataset) -> None:
        self._model, self._data = model, data

    def __call__(self, step: int, logbook: Logbook | None) -> dict[str, float]:
        """Mean IoU, mean accuracy and overall accuracy; classes that no scene has are left out."""
        indices = range(process_number(), len(self._data), n_processes())
        confusion = confusion_of_scenes(self._model, self._data, indices)
        metrics = segmentation_metrics(sum_over_processes(confusion), skip_absent=True)
        return {
            "miou": metrics.mean_iou,
            "macc": metrics.mean_accuracy,
            "allacc": metrics.overall_accuracy,
        }
