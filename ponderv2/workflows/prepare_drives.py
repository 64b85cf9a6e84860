"""Drives among prepared scenes: calibration by several key frames of each, and pictures to look at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ponderv2.checks.config import CheckConfig
from ponderv2.checks.drive import check_drive
from ponderv2.checks.lidar_pictures import picture
from ponderv2.errors import SceneError
from ponderv2.io.files import write_bytes
from ponderv2.io.images import encode_jpeg
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import evenly_spread
from ponderv2.training.report import Reporter
from ponderv2.workflows.prepare_report import DriveOutcome, SceneOutcome
from ponderv2.workflows.prepare_workers import run_all

PICTURES = "check_pictures"
"""Folder of the pictures, beside the scenes."""


def check_drives(
    folder: SceneFolders,
    outcomes: Iterable[SceneOutcome],
    settings: CheckConfig,
    out: Path,
    report: Reporter,
    n_workers: int | None = None,
    scheduler: str | None = None,
) -> tuple[DriveOutcome, ...]:
    """Check the drives that scenes belong to and draw pictures into `out`; nothing where there are none.

    Raises OutputError where a picture cannot be written.
    """
    jobs = _jobs(outcomes, settings.key_frames)
    if not jobs:
        return ()
    work = partial(_check_one, folder=folder)
    if scheduler is None:
        n_workers = min(n_workers or os.cpu_count() or 1, len(jobs))
    found = report.track(run_all(jobs, work, _lost, n_workers, scheduler), "drives", total=len(jobs))
    drives = sorted(found, key=lambda one: one.name)
    drawn = _with_pictures(folder, drives, settings.pictures, out)
    for one in drawn:
        _report(one, report)
    if any(one.picture for one in drawn):
        report.note(f"pictures of the LiDAR in the cameras: {out / PICTURES}")
    return tuple(drawn)


Job = tuple[str, tuple[str, ...]]
"""Split and names of the key frames that are looked at."""


def _jobs(outcomes: Iterable[SceneOutcome], most: int) -> list[Job]:
    drives: dict[tuple[str, str], list[str]] = {}
    for one in outcomes:
        if one.check is not None and one.check.lidar is not None:
            drives.setdefault((one.split, one.name.rpartition("/")[0]), []).append(one.name)
    return [(split, evenly_spread(sorted(names), most)) for (split, _), names in sorted(drives.items())]


def _name(job: Job) -> str:
    split, names = job
    drive = names[0].rpartition("/")[0]
    return f"{split}/{drive}" if drive else split


def _check_one(job: Job, folder: SceneFolders) -> DriveOutcome:
    split, names = job
    try:
        return DriveOutcome(_name(job), names, check_drive([folder.read(name, split) for name in names]))
    except SceneError as error:
        return DriveOutcome(_name(job), names, None, error.message)


def _lost(job: Job, why: tuple[str, str]) -> DriveOutcome:
    return DriveOutcome(_name(job), job[1], None, why[0])


def _with_pictures(
    folder: SceneFolders, drives: list[DriveOutcome], most: int, out: Path
) -> list[DriveOutcome]:
    """The drives with pictures of the key frame in their middle, of suspect ones first."""
    suspect = [one for one in drives if one.suspect]
    chosen = {one.name for one in evenly_spread(suspect, most)}
    others = [one for one in drives if not one.suspect]
    chosen |= {one.name for one in evenly_spread(others, most - len(chosen))} if most > len(chosen) else set()
    return [_with_picture(folder, one, out) if one.name in chosen else one for one in drives]


def _with_picture(folder: SceneFolders, one: DriveOutcome, out: Path) -> DriveOutcome:
    name = one.key_frames[len(one.key_frames) // 2]
    try:
        scene = folder.read(name, one.name.partition("/")[0])
        drawn = picture(scene)
    except SceneError:
        return one
    path = out / PICTURES / f"{one.name.replace('/', '_')}.jpg"
    write_bytes(path, encode_jpeg(drawn, 90))
    return replace(one, picture=str(path))


def _report(one: DriveOutcome, report: Reporter) -> None:
    if one.found is None:
        report.warn(f"{one.name}: not checked: {one.why}")
    elif one.found.cause:
        report.warn(f"{one.name}: {one.found.cause}")
    else:
        heights = [camera.height for camera in one.found.cameras if camera.height is not None]
        confirmed = sum(camera.sound for camera in one.found.cameras)
        figures = f" (peaks {min(heights):.1f} to {max(heights):.1f})" if heights else ""
        cameras = f"calibration of {confirmed} of {len(one.found.cameras)} cameras confirmed{figures}"
        report.note(f"{one.name}: {cameras if one.found.cameras else 'no cameras'}")
    for note in one.found.notes if one.found is not None else ():
        report.note(f"{one.name}: {note}")
