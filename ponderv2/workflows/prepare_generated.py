"""Scenes that are generated as a published data set: skip what is whole, generate the rest, write tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ponderv2.datasets.reader import DatasetGenerator, GeneratedScene, GeneratedSize
from ponderv2.errors import OutputError, SceneError
from ponderv2.training.report import Reporter
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare_report import PrepareResult, SceneOutcome
from ponderv2.workflows.prepare_space import estimate_space, refuse_if_too_large
from ponderv2.workflows.prepare_workers import run_all


def generate(generator: DatasetGenerator, config: PrepareConfig, report: Reporter) -> PrepareResult:
    """Generate all scenes that are not there yet.

    Raises SceneError when the folder holds anything else, and OutputError when it cannot be written.
    """
    root = config.out if config.scheduler is None else config.out.absolute()
    for note in generator.notes:
        report.note(note)
    generator.check_folder(root)
    outcomes: dict[str, SceneOutcome] = {}
    pending = []
    for scene in generator.scenes:
        size = scene.done(root)
        if size is None:
            pending.append(scene)
            continue
        outcome = _outcome(scene, "skipped", size, ("generated already with the same settings",))
        outcomes[outcome.key] = outcome
    if outcomes:
        report.note(f"{len(outcomes)} scenes are generated already and were skipped")
    if pending:
        estimate = estimate_space(pending, root)
        report.note(f"{estimate}")
        if config.check_space:
            refuse_if_too_large(estimate, root)
    n_workers = config.workers if config.scheduler is not None else _processes(config.workers, len(pending))
    found = run_all(pending, partial(generate_one, root=root), _lost, n_workers, config.scheduler)
    for outcome in report.track(found, "streets", total=len(pending)) if pending else ():
        outcomes[outcome.key] = outcome
        if outcome.status == "failed":
            report.warn(f"{outcome.key}: {outcome.why[0]}")
        else:
            report.note(f"{outcome.key}: {', '.join(outcome.notes)}")
    generator.finish(root)
    result = PrepareResult.of(config.out, outcomes)
    if result.n_failed:
        first = next(one for one in result.scenes if one.status == "failed")
        raise SceneError(f"{first.key}: {first.why[0]}", fix=first.fix or "run the command again")
    return result


def generate_one(scene: GeneratedScene, root: Path) -> SceneOutcome:
    """Generate one scene; what goes wrong becomes the outcome."""
    try:
        return _outcome(scene, "done", scene.generate(root), ())
    except OutputError as error:
        return SceneOutcome(scene.split, scene.name, "failed", (error.message,), fix=error.fix)
    except MemoryError:
        return SceneOutcome(scene.split, scene.name, "failed", ("out of memory",), fix="use fewer --workers")


def _outcome(scene: GeneratedScene, status: str, size: GeneratedSize, why: tuple[str, ...]) -> SceneOutcome:
    known = "done" if status == "done" else "skipped"
    notes = (size.note,) if size.note else ()
    return SceneOutcome(scene.split, scene.name, known, why, notes, size.n_frames, size.n_points)


def _lost(scene: GeneratedScene, why: tuple[str, str]) -> SceneOutcome:
    return SceneOutcome(scene.split, scene.name, "failed", why[:1], fix=why[1])


def _processes(asked: int | None, n_jobs: int) -> int:
    import os

    return min(asked or os.cpu_count() or 1, max(n_jobs, 1))
