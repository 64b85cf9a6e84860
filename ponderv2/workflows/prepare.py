"""Recordings, data sets or generated rooms -> prepared scenes: find, skip what is done, prepare, check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.checks.check import CheckResult, check_or_reason
from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kinds import DrivesConfig, drives_in, generator_of, reader_of
from ponderv2.datasets.reader import DatasetReader, RawScene
from ponderv2.datasets.recognise import recognise
from ponderv2.errors import SceneError
from ponderv2.io.files import exclusively
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import INFO_FILE, DatasetInfo
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore, is_store
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.image_features import prepare_features
from ponderv2.workflows.prepare_drives import check_drives
from ponderv2.workflows.prepare_generated import generate
from ponderv2.workflows.prepare_report import (
    DriveOutcome,
    PrepareResult,
    ReportFile,
    SceneOutcome,
    check_result,
    report_outcome,
)
from ponderv2.workflows.prepare_space import estimate_space, refuse_if_too_large
from ponderv2.workflows.prepare_surface import with_surface
from ponderv2.workflows.prepare_workers import check_scheduler, in_threads, run_all


def run(config: PrepareConfig, report: Reporter | None = None, strict: bool = False) -> PrepareResult:
    """Prepare all scenes of a source; those already prepared with the same settings are skipped.

    A scene that cannot be prepared does not stop the others. Raises SceneError when no scene could be
    prepared or, with `strict`, when one could not.
    """
    report = report or SilentReporter()
    if config.scheduler is not None:
        check_scheduler(config.scheduler)
    generator = generator_of(config.source)
    if generator is not None:
        return _with_features(generate(generator, config, report), config, report)
    reader = reader_of(config.source, report.track)
    for note in reader.notes:
        report.note(note)
    for warning in reader.warnings:
        report.warn(warning)
    _refuse_double_names(reader)
    store = SceneStore(config.out, _joined_info(config.out, reader.info))
    written = ReportFile(config.out, config.check)
    outcomes, pending = _divide(store, reader, written.before, config, report)
    _refuse_full_disk(pending, config, report)
    with exclusively(config.out / INFO_FILE):  # another `prepare` may have added a split meanwhile
        SceneStore.create(config.out, _joined_info(config.out, reader.info))
    jobs = _prepared(pending, config, reader.info.box_classes)
    try:
        for outcome in report.track(jobs, "scenes", total=len(pending)):
            outcomes[outcome.key] = outcome
            if outcome.status != "failed" or len(reader.scenes) > 1:  # else it is what is raised below
                report_outcome(outcome, report)
            written.update(outcomes)
    finally:
        written.update(outcomes, now=True)
    drives = _drives(store, config, outcomes, report)
    result = replace(PrepareResult.of(config.out, outcomes, drives), warnings=reader.warnings)
    if result.scenes and (result.n_failed == len(result.scenes) or (strict and result.n_failed)):
        first = next(one for one in result.scenes if one.status == "failed")
        raise SceneError(f"{first.key}: {first.why[0]}", fix=first.fix)
    return _with_features(result, config, report)


def _with_features(result: PrepareResult, config: PrepareConfig, report: Reporter) -> PrepareResult:
    if config.image_features is None:
        return result
    features = prepare_features(config.out, config.image_features, report, config.check_space)
    return replace(result, image_features=features)


def _divide(
    store: SceneStore, reader: DatasetReader, before: dict[str, Any], config: PrepareConfig, report: Reporter
) -> tuple[dict[str, SceneOutcome], list[RawScene]]:
    """Scenes already prepared with the same settings, and the jobs that remain."""
    there = [
        (job, before.get(f"{job.split}/{job.name}", {})) for job in reader.scenes if _is_there(store, job)
    ]
    root = config.out if config.scheduler is None else config.out.absolute()
    compare = partial(_unchanged, store=SceneStore(root, store.info), settings=config.check)
    if config.scheduler is None:
        found = in_threads(there, compare, config.workers)
    else:
        found = run_all(there, compare, _not_compared, config.workers, config.scheduler)
    if there:
        found = report.track(found, "compare with what is prepared", total=len(there))
    outcomes = {known.key: known for known in found if known is not None}
    pending = [job for job in reader.scenes if f"{job.split}/{job.name}" not in outcomes]
    if outcomes:
        report.note(f"{len(outcomes)} scenes are prepared already and were skipped")
    return outcomes, pending


def _refuse_full_disk(pending: list[RawScene], config: PrepareConfig, report: Reporter) -> None:
    if not pending:
        return
    estimate = estimate_space(pending, config.out)
    if estimate.needed:
        report.note(f"{estimate}")
    if config.check_space:
        refuse_if_too_large(estimate, config.out)


def _prepared(
    pending: list[RawScene], config: PrepareConfig, box_classes: tuple[str, ...]
) -> Iterator[SceneOutcome]:
    n_workers = config.workers
    if config.scheduler is None:
        n_workers = min(n_workers or os.cpu_count() or 1, max(len(pending), 1))
    return _prepare_all(pending, config.out, config.check, n_workers, config.scheduler, box_classes)


def check(config: PrepareConfig, report: Reporter | None = None) -> PrepareResult:
    """Check the scenes that are already prepared, or else drives where they are.

    Raises SceneError when there are none.
    """
    report = report or SilentReporter()
    unprepared = None if is_store(config.out) else drives_in(config.source)
    if unprepared is None and not config.out.exists() and isinstance(config.source, DrivesConfig):
        raise SceneError(
            f"neither a folder {config.source.path} nor prepared scenes in {config.out}",
            fix="give the folder of the drives, or with --out that of prepared scenes",
        )
    store = open_folder(config.out) if unprepared is None else SceneFolders(*unprepared)
    names = [(split, name) for split in store.info.splits for name in store.names(split)]
    outcomes: dict[str, SceneOutcome] = {}
    for split, name in report.track(names, "checks", total=len(names)):
        outcome = _check_one(store, split, name, config.check)
        outcomes[outcome.key] = outcome
        report_outcome(outcome, report)
    drives = _drives(store, config, outcomes, report)
    result = PrepareResult.of(config.out, outcomes, drives)
    if unprepared is not None:
        result = replace(result, scenes_in=str(unprepared[0]))
    return _with_features(result, config, report)


def _drives(
    folder: SceneFolders, config: PrepareConfig, outcomes: dict[str, SceneOutcome], report: Reporter
) -> tuple[DriveOutcome, ...]:
    workers, scheduler = config.workers, config.scheduler
    return check_drives(folder, outcomes.values(), config.check, config.out, report, workers, scheduler)


def prepare_one(
    job: RawScene, root: Path, check: CheckConfig, box_classes: tuple[str, ...] = ()
) -> SceneOutcome:
    """Read one scene, fuse a surface where it has no points, store and check it.

    What is wrong with the input becomes the outcome.
    """
    store = SceneStore(root, DatasetInfo(root.name, splits=(job.split,), box_classes=box_classes))
    try:
        fingerprint = job.fingerprint()  # first: what changes while it is read is noticed the next time
        found = job.read()
        stream = SceneStream.of_scene(found) if isinstance(found, Scene) else found
        store.write(job.split, job.name, with_surface(stream), fingerprint)
        checked = _check_one(store, job.split, job.name, check)
    except SceneError as error:
        return SceneOutcome(job.split, job.name, "failed", (error.message,), fix=error.fix)
    except MemoryError:
        return SceneOutcome(job.split, job.name, "failed", ("out of memory",), fix="use fewer --workers")
    repairs = tuple(store.record(job.name, job.split).get("repairs", ()))
    return replace(checked, status="repaired" if repairs else "done", why=repairs)


def _check_one(store: SceneFolders, split: str, name: str, settings: CheckConfig) -> SceneOutcome:
    try:
        scene = store.read(name, split)
    except SceneError as error:
        return SceneOutcome(split, name, "failed", (error.message,))
    record = store.record(name, split)
    notes = tuple(record.get("notes", ()))
    result = check_or_reason(scene, settings, _recording_to_scene(record, scene))
    return SceneOutcome(split, name, "checked", (), notes, len(scene.frames), len(scene.cloud), result)


def _recording_to_scene(record: dict[str, Any], scene: Scene) -> Float64[ndarray, "4 4"]:
    """Transform of the recording's world: rotated upright when prepared, then moved."""
    moved = np.eye(4)
    try:
        turned = np.array(record.get("recording_to_scene", np.eye(4)), np.float64)
        known = np.array(record.get("origin", (0.0, 0.0, 0.0)), np.float64)
        moved[:3, 3] = known - np.array(scene.cloud.origin)
        usable = turned.shape == (4, 4) and np.isfinite(turned).all() and abs(np.linalg.det(turned)) > 1e-9
    except (TypeError, ValueError):
        return np.eye(4)
    if "recording_to_scene" not in record or not usable:
        moved[:3, 3] = -np.array(scene.cloud.origin)
        return moved
    return moved @ turned


def _prepare_all(
    jobs: list[RawScene],
    root: Path,
    settings: CheckConfig,
    n_workers: int | None,
    scheduler: str | None = None,
    box_classes: tuple[str, ...] = (),
) -> Iterator[SceneOutcome]:
    """In completion order. Workers of a cluster may run in another folder: they get absolute paths."""
    if not jobs:
        return
    root = root.absolute() if scheduler is not None else root
    work = partial(prepare_one, root=root, check=settings, box_classes=box_classes)
    yield from run_all(jobs, work, _lost, n_workers, scheduler)


def _lost(job: RawScene, why: tuple[str, str]) -> SceneOutcome:
    return SceneOutcome(job.split, job.name, "failed", why[:1], fix=why[1])


def _is_there(store: SceneStore, job: RawScene) -> bool:
    """Whether the scene was prepared, from any input."""
    store.restore_interrupted(job.name, job.split)
    return (store.root / job.split / job.name / "coord.npy").is_file()


def _not_compared(job: tuple[RawScene, dict[str, Any]], why: tuple[str, str]) -> SceneOutcome | None:
    return None


def _unchanged(
    job_and_entry: tuple[RawScene, dict[str, Any]], store: SceneStore, settings: CheckConfig
) -> SceneOutcome | None:
    """The outcome of a scene that was prepared with the same settings from the same input; else None.

    `entry` is its entry in the report. Every byte of the input is read.
    """
    job, entry = job_and_entry
    record = store.record(job.name, job.split)
    if "fingerprint" not in record or record["fingerprint"] != job.fingerprint():
        return None
    found = entry.get("check")
    if found is None or entry.get("check_settings") != settings.model_dump():
        found = _check_one(store, job.split, job.name, settings).check
    checked = found if isinstance(found, CheckResult) or found is None else check_result(found)
    why = ("prepared already with the same settings",)
    notes, repairs = tuple(record.get("notes", ())), tuple(record.get("repairs", ()))
    numbers = int(record.get("frames", 0)), int(record.get("points", 0))
    return SceneOutcome(job.split, job.name, "skipped", why + repairs, notes, *numbers, checked)


def _refuse_double_names(reader: DatasetReader) -> None:
    seen: set[tuple[str, str]] = set()
    for job in reader.scenes:
        if (job.split, job.name) in seen:
            raise SceneError(f"two scenes are called '{job.name}'", fix="rename one of their folders")
        seen.add((job.split, job.name))


def _joined_info(root: Path, info: DatasetInfo) -> DatasetInfo:
    """A store may grow by several runs, as long as its scenes have the same classes."""
    if not (root / INFO_FILE).is_file():
        _refuse_folder_of_others(root)
        return info
    known = SceneStore(root, info).stored_info()
    ours, theirs = ((one.label_field, one.other_labels) for one in (info, known))
    # A store without boxes may have been written by a version that had none.
    same_boxes = known.box_classes in ((), info.box_classes)
    if ours != theirs or not same_boxes or (known.name, known.class_names) != (info.name, info.class_names):
        other = f"of '{known.name}', not of '{info.name}'"
        if known.name == info.name:
            other = f"of '{known.name}' with other classes ('{known.label_field}', not '{info.label_field}')"
            other = other if same_boxes else f"of '{known.name}' with other classes of boxes"
        raise SceneError(f"{root} holds scenes {other}", fix="choose another --out")
    return replace(info, splits=tuple(dict.fromkeys((*known.splits, *info.splits))))


def _refuse_folder_of_others(root: Path) -> None:
    """Raises SceneError for a folder of another program, whose files ours would hide."""
    if root.is_dir() and recognise(root) is not None:
        raise SceneError(
            f"{root} holds scenes that another program processed, and they can be used as they are",
            fix=f"ponder pretrain --data {root}, or choose another --out",
        )
