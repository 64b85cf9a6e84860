"""Checkpoint -> metrics on the scenes of a split, as the task of the model measures them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponderv2.data.fragments import TestSet
from ponderv2.errors import SceneError
from ponderv2.tasks.checkpoints import loaded_model, open_checkpoint, task_of_checkpoint
from ponderv2.tasks.loaded_model import with_options
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult, part_of
from ponderv2.training.devices import chosen_device
from ponderv2.training.published_checkpoints import PointChoice
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.weights import NAMES, weights_file
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

    Without `split` it is the one that was used for validation in training. Tables and images go into `out`
    (by default beside the checkpoints of the run), rendered views with at most `width` pixels in a row.
    Predictions are cached there, so that an interrupted evaluation continues; without `reuse` everything is
    computed again. With `export` the predictions of every scene are also written as coloured point clouds
    (PLY). `points`: how points are prepared, for published files that do not say it.

    Raises:
        CheckpointError: it cannot be read, holds an encoder alone, or nothing says how its data is prepared.
        SceneError: no scenes in the split, none with labels, or classes that the model does not know.
        OutputError: something cannot be written.
        ResourceError: there is no such device, or too little memory.
    """
    report = report or SilentReporter()
    opened = open_checkpoint(checkpoint)
    task = task_of_checkpoint(opened)
    task.check_results(opened.path)
    stored = loaded_model(opened, chosen_device(device), points)
    for note in stored.notes:
        report.warn(with_options(note))
    store = open_scenes(SceneChoice(None if scenes is None else Path(scenes)), opened)
    split = split or validated_split(stored.config, store.root)
    if not store.names(split):
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    for text in task.warnings(store, split):
        report.note(text)
    folder = out or _run_folder(stored.path) / f"evaluation-{split}"
    request = EvaluationRequest(stored, store, split, folder, tta, width, submission, export, reuse)
    result = task.evaluate(request, stored.model, report)
    return replace(result, notes=list(stored.notes))


def validated_split(config: Mapping[str, Any], root: Path) -> str:
    """The split that training validated on; of several datasets that whose folder has the same name."""
    return str(part_of(config, root).get("val_split") or config.get("val_split", "val"))


def _run_folder(checkpoint: Path) -> Path:
    """Of an encoder that ships: runs/NAME, as nothing is written into the installed package."""
    if checkpoint in [weights_file(name) for name in NAMES]:
        return Path("runs") / checkpoint.stem
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
