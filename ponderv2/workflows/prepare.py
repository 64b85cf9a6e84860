"""Raw recordings, datasets or generated rooms -> prepared scenes: plan, skip what is done, prepare, check."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ponderv2.errors import SceneError
from ponderv2.scenes.check import CheckResult, CheckSettings, check_or_reason
from ponderv2.scenes.sources import SOURCES
from ponderv2.scenes.sources.config import CheckConfig
from ponderv2.scenes.sources.source import SceneJob, SourcePlan
from ponderv2.scenes.storage import INFO_FILE, DatasetInfo, SceneStore
from ponderv2.scenes.storage_writer import write_bytes
from ponderv2.workflows.configs import PrepareConfig
from ponderv2.workflows.report import Reporter, SilentReporter

REPORT_FILE = "prepare_report.json"
Status = Literal["done", "repaired", "skipped", "failed", "checked"]


@dataclass(frozen=True)
class SceneOutcome:
    """What became of one scene."""

    split: str
    name: str
    status: Status
    why: tuple[str, ...]
    """Repairs, the reason for skipping or failing."""
    notes: tuple[str, ...] = ()
    n_frames: int = 0
    n_points: int = 0
    check: CheckResult | None = None

    @property
    def key(self) -> str:
        """Of the report."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True)
class PrepareResult:
    """What a run of `ponder prepare` did."""

    out: str
    scenes: tuple[SceneOutcome, ...]
    n_prepared: int
    n_skipped: int
    n_failed: int
    n_suspect: int


def run(config: PrepareConfig, report: Reporter | None = None, strict: bool = False) -> PrepareResult:
    """Prepare all scenes of a source; those that are there with the same settings are skipped.

    A scene that cannot be prepared does not stop the others. Raises SceneError when no scene could be
    prepared or, with `strict`, when one could not.
    """
    report = report or SilentReporter()
    plan = SOURCES[config.source.kind](config.source)
    for note in plan.notes:
        report.note(note)
    _refuse_double_names(plan)
    store = SceneStore.create(config.out, _joined_info(config.out, plan.info))
    before = _read_report(config.out)
    outcomes: dict[str, SceneOutcome] = {}
    pending: list[SceneJob] = []
    for job in plan.jobs:
        known = _already_there(store, job, before, config.check)
        if known is None:
            pending.append(job)
        else:
            outcomes[known.key] = known
    if outcomes:
        report.note(f"{len(outcomes)} scenes are prepared already and were skipped")
    n_workers = min(config.workers or os.cpu_count() or 1, max(len(pending), 1))
    finished = _prepare_all(pending, config.out, config.check, n_workers)
    for outcome in report.track(finished, "scenes", total=len(pending)):
        outcomes[outcome.key] = outcome
        if outcome.status != "failed" or len(plan.jobs) > 1:  # else it is what is raised below
            _tell(outcome, report)
        _write_report(config.out, {**before, **_plain(outcomes, config.check)})
    _write_report(config.out, {**before, **_plain(outcomes, config.check)})
    result = _result(config.out, outcomes)
    if result.scenes and (result.n_failed == len(result.scenes) or (strict and result.n_failed)):
        first = next(one for one in result.scenes if one.status == "failed")
        raise SceneError(f"{first.key}: {first.why[0]}", fix=first.why[1] if len(first.why) > 1 else None)
    return result


def check(config: PrepareConfig, report: Reporter | None = None) -> PrepareResult:
    """Check the scenes that are prepared already. Raises SceneError when there are none."""
    report = report or SilentReporter()
    store = SceneStore.open(config.out)
    names = [(split, name) for split in store.info.splits for name in store.scene_names(split)]
    outcomes: dict[str, SceneOutcome] = {}
    for split, name in report.track(names, "checks", total=len(names)):
        outcome = _check_one(store, split, name, config.check)
        outcomes[outcome.key] = outcome
        _tell(outcome, report)
    return _result(config.out, outcomes)


def prepare_one(job: SceneJob, root: Path, settings: CheckConfig) -> SceneOutcome:
    """Prepare and check one scene; what is wrong with its input becomes the outcome."""
    store = SceneStore(root, DatasetInfo(root.name, splits=(job.split,)))
    try:
        store.write(job.split, job.name, job.prepare(), job.fingerprint())
        checked = _check_one(store, job.split, job.name, settings)
    except SceneError as error:
        why = (error.message, error.fix) if error.fix else (error.message,)
        return SceneOutcome(job.split, job.name, "failed", why)
    except MemoryError:
        return SceneOutcome(job.split, job.name, "failed", ("not enough memory", "use fewer --workers"))
    repairs = tuple(store.record(job.name, job.split).get("repairs", ()))
    return replace(checked, status="repaired" if repairs else "done", why=repairs)


def _check_one(store: SceneStore, split: str, name: str, settings: CheckConfig) -> SceneOutcome:
    values = CheckSettings(settings.max_frames, settings.n_pixels, settings.tolerance, settings.min_inliers)
    try:
        scene = store.read(name, split)
    except SceneError as error:
        return SceneOutcome(split, name, "failed", (error.message,))
    notes = tuple(store.record(name, split).get("notes", ()))
    result = check_or_reason(scene, values)
    return SceneOutcome(split, name, "checked", (), notes, len(scene.frames), len(scene.cloud), result)


def _prepare_all(
    jobs: list[SceneJob], root: Path, settings: CheckConfig, n_workers: int
) -> Iterator[SceneOutcome]:
    """Outcomes as they come. When a worker dies, what is unfinished runs again, one scene at a time."""
    if n_workers == 1:
        yield from (prepare_one(job, root, settings) for job in jobs)
        return
    left = {f"{job.split}/{job.name}": job for job in jobs}
    try:
        for outcome in _in_workers(jobs, root, settings, n_workers):
            del left[outcome.key]
            yield outcome
    except BrokenProcessPool:
        for job in list(left.values()):
            yield _alone(job, root, settings)


def _in_workers(
    jobs: list[SceneJob], root: Path, settings: CheckConfig, n_workers: int
) -> Iterator[SceneOutcome]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=n_workers, backend="loky", return_as="generator_unordered")
    found: Any = parallel(delayed(prepare_one)(job, root, settings) for job in jobs)
    yield from found


def _alone(job: SceneJob, root: Path, settings: CheckConfig) -> SceneOutcome:
    """A process of its own, twice if need be: the first death may have been another scene's."""
    for _ in range(2):
        try:
            return next(_in_workers([job], root, settings, 2))
        except BrokenProcessPool:
            continue
    why = ("its worker process died twice", "out of memory? try --workers 1 or a coarser fusion.voxel_size")
    return SceneOutcome(job.split, job.name, "failed", why)


def _already_there(
    store: SceneStore, job: SceneJob, before: dict[str, Any], settings: CheckConfig
) -> SceneOutcome | None:
    """The outcome of a scene that was prepared with the same settings from the same input."""
    record = store.record(job.name, job.split)
    there = (store.root / job.split / job.name / "coord.npy").is_file()
    if not there or record.get("fingerprint") != job.fingerprint():
        return None
    entry = before.get(f"{job.split}/{job.name}", {})
    found = entry.get("check")
    if found is None or entry.get("check_settings") != settings.model_dump():
        found = _check_one(store, job.split, job.name, settings).check
    checked = found if isinstance(found, CheckResult) or found is None else _check_result(found)
    why = ("prepared already with the same settings",)
    notes, repairs = tuple(record.get("notes", ())), tuple(record.get("repairs", ()))
    numbers = int(record.get("frames", 0)), int(record.get("points", 0))
    return SceneOutcome(job.split, job.name, "skipped", why + repairs, notes, *numbers, checked)


def _check_result(values: dict[str, Any]) -> CheckResult | None:
    try:
        return CheckResult(**values)
    except TypeError:
        return None


def _refuse_double_names(plan: SourcePlan) -> None:
    seen: set[tuple[str, str]] = set()
    for job in plan.jobs:
        if (job.split, job.name) in seen:
            raise SceneError(f"two scenes are called '{job.name}'", fix="rename one of their folders")
        seen.add((job.split, job.name))


def _joined_info(root: Path, info: DatasetInfo) -> DatasetInfo:
    """A store may grow by several runs, as long as its scenes have the same classes."""
    if not (root / INFO_FILE).is_file():
        return info
    known = SceneStore(root, info).known_info()
    if (known.name, known.class_names, known.label_field) != (info.name, info.class_names, info.label_field):
        raise SceneError(
            f"{root} holds scenes of '{known.name}', not of '{info.name}'", fix="choose another --out"
        )
    return replace(info, splits=tuple(dict.fromkeys((*known.splits, *info.splits))))


def _read_report(root: Path) -> dict[str, Any]:
    try:
        scenes = json.loads((root / REPORT_FILE).read_text())["scenes"]
        return scenes if isinstance(scenes, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_report(root: Path, scenes: dict[str, Any]) -> None:
    text = json.dumps({"scenes": dict(sorted(scenes.items()))}, indent=1)
    write_bytes(root / REPORT_FILE, text.encode())


def _plain(outcomes: dict[str, SceneOutcome], settings: CheckConfig) -> dict[str, Any]:
    used = {"check_settings": settings.model_dump()}
    return {key: {**asdict(outcome), **used} for key, outcome in outcomes.items()}


def _tell(outcome: SceneOutcome, report: Reporter) -> None:
    if outcome.status == "failed":
        report.warn(f"{outcome.key}: not prepared: {outcome.why[0]}")
        return
    for reason in outcome.why:
        report.note(f"{outcome.key}: {reason}")
    found = outcome.check
    if found is None or found.median_error is None or found.inlier_share is None:
        report.note(f"{outcome.key}: not checked: {found.likely_cause if found else ''}")
        return
    figures = f"median error {100 * found.median_error:.1f} cm, {found.inlier_share:.0%} agree"
    if found.suspect:
        report.warn(f"{outcome.key}: {figures}; {found.likely_cause}")
    else:
        report.note(f"{outcome.key}: {figures}")


def _result(out: Path, outcomes: dict[str, SceneOutcome]) -> PrepareResult:
    scenes = tuple(outcomes[key] for key in sorted(outcomes))
    count = [one.status for one in scenes]
    return PrepareResult(
        out=str(out),
        scenes=scenes,
        n_prepared=count.count("done") + count.count("repaired"),
        n_skipped=count.count("skipped"),
        n_failed=count.count("failed"),
        n_suspect=sum(one.check is not None and one.check.suspect for one in scenes),
    )
