"""Checkpoint -> metrics: semantic segmentation, instances, or views that a pre-trained model renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponderv2.data.fragments import TestSet
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.models.encoder_model import EncoderOnlyModel
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.instances import evaluation as evaluate_instances
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.loaded_model import loaded_model, with_options
from ponderv2.tasks.published import PointChoice
from ponderv2.tasks.rendering import views as evaluate_views
from ponderv2.tasks.segmentation import evaluation as evaluate_semantic
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult, part_of
from ponderv2.training.devices import chosen_device
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes


def run(  # noqa: PLR0913 - one argument per option of the command
    checkpoint: Path,
    *,
    scenes: Path | None = None,
    split: str | None = None,
    out: Path | None = None,
    tta: TestSet = "none",
    submission: Path | None = None,
    export: Path | None = None,
    reuse: bool = True,
    width: int = 96,
    device: str = "auto",
    points: PointChoice = PointChoice(),
    report: Reporter | None = None,
) -> EvaluationResult:
    """Measures a checkpoint on the scenes of a split; `scenes` replaces the folder it was trained on.

    Without `split` it is the one that was used for validation in training. Tables and pictures go into `out`
    (by default beside the checkpoints of the run): a confusion matrix, or rendered views of at most `width`
    pixels beside the images. Predicted classes are kept there too, so that an evaluation that was
    interrupted continues; `reuse` off computes everything again. With `export` every scene is also written as
    coloured point clouds (PLY): predictions, truth and objects. `points`: how points are prepared, for
    published files that do not say it.

    Raises:
        CheckpointError: it cannot be read, holds an encoder alone, or nothing says how its data is prepared.
        SceneError: no scenes in the split, none with labels, or classes that the model does not know.
        OutputError: something cannot be written.
        ResourceError: there is no such device, or too little memory.
    """
    report = report or SilentReporter()
    opened = OpenCheckpoint(Path(checkpoint))
    if opened.kind == "encoder":
        raise CheckpointError(
            f"{opened.path} holds an encoder alone, which gives features and no results to measure",
            fix=f"ponder finetune --from {opened.path}, then ponder eval",
        )
    stored = loaded_model(opened, chosen_device(device), points)
    for note in stored.notes:
        report.warn(with_options(note))
    store = open_scenes(SceneChoice(None if scenes is None else Path(scenes)), opened)
    split = split or validated_split(stored.config, store.root)
    if not store.names(split):
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    for remark in store.warnings(split, labels=not isinstance(stored.model, PretextModel)):
        report.note(remark)
    folder = out or _run_folder(stored.path) / f"evaluation-{split}"
    request = EvaluationRequest(stored, store, split, folder, tta, width, submission, export, reuse)
    match stored.model:
        case SegmentationModel() as model:
            result = evaluate_semantic.run(request, model, report)
        case PretextModel() as model:
            result = evaluate_views.run(request, model, report)
        case InstancesModel() as model:
            result = evaluate_instances.run(request, model, report)
        case EncoderOnlyModel():
            raise ValueError("expected a model with results to measure, got an encoder alone")
    return replace(result, notes=list(stored.notes))


def validated_split(config: Mapping[str, Any], root: Path) -> str:
    """The split that training validated on; of several datasets that whose folder has the same name."""
    return str(part_of(config, root).get("val_split") or config.get("val_split", "val"))


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
