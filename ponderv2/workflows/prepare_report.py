"""Outcomes of preparing scenes: one per scene, their summary by reason, and `prepare_report.json`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ponderv2.checks.check import CheckResult
from ponderv2.checks.config import CheckConfig
from ponderv2.checks.drive import DriveFinding, LidarFinding
from ponderv2.checks.object_boxes import BoxFinding
from ponderv2.io.files import exclusively, write_bytes
from ponderv2.training.report import Reporter
from ponderv2.workflows.image_features import FeatureResult

REPORT_FILE = "prepare_report.json"
REPORT_EVERY = 5.0
"""Least seconds between two writes of the report: for many scenes it is a large file."""
Status = Literal["done", "repaired", "skipped", "failed", "checked"]
SPECIFIC = re.compile(r"[^\s]*[\d/\\][^\s]*")
"""Words with a digit or a slash: numbers, names of files and scenes."""
REPEATED = re.compile(r"…(?:[\s,;:]*…)+")


@dataclass(frozen=True)
class SceneOutcome:
    """Outcome of preparing one scene."""

    split: str
    name: str
    status: Status
    why: tuple[str, ...]
    """Repairs, the reason for skipping or failing."""
    notes: tuple[str, ...] = ()
    n_frames: int = 0
    n_points: int = 0
    check: CheckResult | None = None
    fix: str | None = None
    """How to fix a scene that failed."""

    @property
    def key(self) -> str:
        """Of the report."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True)
class DriveOutcome:
    """What the check of one drive found."""

    name: str
    """SPLIT/DRIVE."""
    key_frames: tuple[str, ...]
    """That were looked at."""
    found: DriveFinding | None
    """None: their files cannot be read."""
    why: str = ""
    """Why they cannot."""
    picture: str = ""
    """File of the picture; empty where none was drawn."""

    @property
    def suspect(self) -> bool:
        """Whether something is wrong."""
        return self.found is None or bool(self.found.cause)


@dataclass(frozen=True)
class ReasonCount:
    """Scenes that share a status and a kind of reason."""

    status: str
    reason: str
    """The reason without what is specific to one scene; empty where there is none."""
    scenes: int
    example: str
    """One of the scenes."""


@dataclass(frozen=True)
class PrepareResult:
    """What a run of `ponder prepare` did."""

    out: str
    scenes: tuple[SceneOutcome, ...]
    n_prepared: int
    n_skipped: int
    n_failed: int
    n_suspect: int
    warnings: tuple[str, ...] = ()
    """What could not be read at all, an archive for instance."""
    summary: tuple[ReasonCount, ...] = ()
    """Scenes counted by status and kind of reason."""
    image_features: FeatureResult | None = None
    """None: they were not asked for."""
    drives: tuple[DriveOutcome, ...] = ()
    """Drives that the scenes belong to."""
    scenes_in: str = ""
    """Folder of drives that were checked where they are; empty: the scenes are in `out`."""

    @staticmethod
    def of(
        out: Path, outcomes: Mapping[str, SceneOutcome], drives: tuple[DriveOutcome, ...] = ()
    ) -> PrepareResult:
        """Outcomes by their keys, sorted and counted."""
        scenes = tuple(outcomes[key] for key in sorted(outcomes))
        count = [one.status for one in scenes]
        return PrepareResult(
            out=str(out),
            scenes=scenes,
            n_prepared=count.count("done") + count.count("repaired"),
            n_skipped=count.count("skipped"),
            n_failed=count.count("failed"),
            n_suspect=sum(one.check is not None and one.check.suspect for one in scenes)
            + sum(one.suspect for one in drives),
            summary=summarise(scenes),
            drives=drives,
        )


def report_outcome(outcome: SceneOutcome, report: Reporter) -> None:
    """Notes and warnings about one scene, as soon as it is done."""
    if outcome.status == "failed":
        report.warn(f"{outcome.key}: not prepared: {outcome.why[0]}")
        return
    for reason in outcome.why:
        report.note(f"{outcome.key}: {reason}")
    found = outcome.check
    if found is not None and found.lidar is not None:
        (report.warn if found.suspect else report.note)(
            f"{outcome.key}: {found.likely_cause or _words_about(found.lidar)}"
        )
        for note in found.notes:
            report.note(f"{outcome.key}: {note}")
        return
    if found is None or found.median_error is None or found.inlier_share is None:
        cause = found.likely_cause if found else ""
        if found is not None and found.suspect:
            report.warn(f"{outcome.key}: {cause}")
        else:
            report.note(f"{outcome.key}: not checked: {cause}")
        return
    figures = f"median error {100 * found.median_error:.1f} cm, {found.inlier_share:.0%} agree"
    if found.suspect:
        report.warn(f"{outcome.key}: {figures}; {found.likely_cause}")
    else:
        mirrored = "; a mirror image of the place, points and cameras alike" if found.mirrored else ""
        report.note(f"{outcome.key}: {figures}{mirrored}")
    for note in found.notes:
        report.note(f"{outcome.key}: {note}")


def _words_about(lidar: LidarFinding) -> str:
    """Figures of a key frame for the screen."""
    words = []
    if lidar.hits:
        least, most = min(lidar.hits.values()), max(lidar.hits.values())
        words.append(f"{least} to {most} points of the LiDAR in each of {len(lidar.hits)} cameras")
    if lidar.boxes is not None and lidar.boxes.share is not None:
        words.append(f"{lidar.boxes.boxes} boxes, points in them agree by {lidar.boxes.share:.0%}")
    return "; ".join(words) or "no cameras and no boxes to compare with the LiDAR"


def check_result(values: Mapping[str, Any]) -> CheckResult | None:
    """Of an entry of a report; None for that of another version."""
    try:
        lidar = values.get("lidar")
        if lidar is not None:
            boxes = lidar["boxes"]
            lidar = {**lidar, "boxes": None if boxes is None else BoxFinding(**boxes)}
            lidar = LidarFinding(**{**lidar, "notes": tuple(lidar["notes"])})
        return CheckResult(**{**values, "notes": tuple(values.get("notes", ())), "lidar": lidar})
    except (TypeError, KeyError):
        return None


def summarise(outcomes: Iterable[SceneOutcome]) -> tuple[ReasonCount, ...]:
    """Counts by status (done, repaired, skipped, failed, checked, suspect) and reason, frequent ones first.

    A repaired scene counts once for each of its kinds of repair, a suspect one also for its suspicion.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for status, reason in _reasons(outcome):
            found.setdefault((status, reason), []).append(outcome.key)
    counts = [
        ReasonCount(status, reason, len(keys), keys[0]) for (status, reason), keys in sorted(found.items())
    ]
    order = ("done", "repaired", "skipped", "checked", "failed", "suspect")
    return tuple(sorted(counts, key=lambda one: (order.index(one.status), -one.scenes)))


def _reasons(outcome: SceneOutcome) -> list[tuple[str, str]]:
    """Without duplicates; for a skipped scene also without the repairs of its earlier preparation."""
    why = outcome.why[:1] if outcome.status == "skipped" else outcome.why
    kinds = list(dict.fromkeys(kind_of(one) for one in why)) or [""]
    found: list[tuple[str, str]] = [(outcome.status, kind) for kind in kinds]
    if outcome.check is not None and outcome.check.suspect:
        found.append(("suspect", kind_of(outcome.check.likely_cause)))
    return found


def kind_of(reason: str) -> str:
    """The reason without numbers and names, so that reasons of a kind are equal."""
    return REPEATED.sub("…", SPECIFIC.sub("…", reason)).strip()


def read_report(root: Path) -> dict[str, Any]:
    """Entries of scenes by their keys; empty where there is no report, or a damaged one."""
    try:
        scenes = json.loads((root / REPORT_FILE).read_text())["scenes"]
        return scenes if isinstance(scenes, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


class ReportFile:
    """prepare_report.json: scenes of earlier, this and concurrent runs, written at intervals."""

    def __init__(self, root: Path, settings: CheckConfig) -> None:
        self.path = root / REPORT_FILE
        self.settings = {"check_settings": settings.model_dump()}
        self.before = read_report(root)
        self.due = 0.0

    def update(self, outcomes: dict[str, SceneOutcome], now: bool = False) -> None:
        """Write the state; unless `now`, at most every few seconds."""
        start = time.monotonic()
        if not now and start < self.due:
            return
        scenes = {key: {**asdict(outcome), **self.settings} for key, outcome in outcomes.items()}
        with exclusively(self.path):
            before = {**self.before, **read_report(self.path.parent)}
            text = json.dumps({"scenes": dict(sorted({**before, **scenes}.items()))}, indent=1)
            write_bytes(self.path, text.encode())
        end = time.monotonic()
        self.due = end + max(REPORT_EVERY, 20.0 * (end - start))
