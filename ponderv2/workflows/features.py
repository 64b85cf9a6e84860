"""A trained encoder -> features of the points of a file, of a scene, or of all scenes of a split."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray

from ponderv2.data.missing_inputs import HideableInput
from ponderv2.errors import OutputError, SceneError
from ponderv2.io.files import replacement, write_bytes
from ponderv2.models.voxel_features import BlockSettings, VoxelFeatures, encode_voxels
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.origin import FAR_FROM_ZERO
from ponderv2.scenes.point_cloud_files import read_cloud_with_notes
from ponderv2.scenes.scene import PointCloud
from ponderv2.tasks.checkpoints import loaded_model, open_checkpoint
from ponderv2.tasks.loaded_model import LoadedModel, with_options
from ponderv2.training.devices import chosen_device
from ponderv2.training.published_checkpoints import PointChoice
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes

Level = Literal["point", "voxel"]
SETTINGS_FILE = "features.json"
COARSE = 1.5
"""Distance of neighbouring points, in voxels, beyond which a cloud is coarser than what encoders see."""
FEW = 50
"""Voxels that are too few for a scene of many points each."""
_ROWS = 65536


@dataclass(frozen=True)
class FeatureSettings:
    """How features are computed and written."""

    level: Level = "point"
    """point: an array [point, channel]. voxel: an archive of `coord`, `feature` and `inverse`."""
    half: bool = False
    """16-bit floats."""
    condition: str | None = None
    """Dataset prompt (condition). None: that of the scenes, else ScanNet, else its first."""
    scale: float = 1.0
    """Metres per unit of a file."""
    up_axis: str = "z"
    """Axis of a file that points up."""
    blocks: BlockSettings = field(default_factory=BlockSettings)
    hide: tuple[HideableInput, ...] = ()
    """Inputs that are hidden from the encoder although they are known or could be estimated."""
    points: PointChoice = field(default_factory=PointChoice)
    """How points are prepared, for published files that do not say it."""


@dataclass(frozen=True)
class FeaturesResult:
    """What was written."""

    checkpoint: Path
    out: Path
    """The file, or the folder of a whole split."""
    level: str
    dtype: str
    channels: int
    """0 when all of it existed already."""
    voxel_size: float
    inputs: list[str]
    """What the encoder saw of each point."""
    condition: str
    n_points: int
    n_voxels: int
    skipped: int = 0
    """Scenes whose features existed already."""
    seconds: float = 0.0
    clouds: list[dict[str, Any]] = field(default_factory=list)
    """Per cloud: name, points, voxels, blocks and file."""
    notes: list[str] = field(default_factory=list)
    """What the cloud or the checkpoint lacked and what stands in its place."""


@dataclass(frozen=True)
class _Job:
    name: str
    out: Path
    cloud: PointCloud
    finite: ndarray
    """Which points of the file the cloud holds."""
    notes: tuple[str, ...] = ()


def run(  # noqa: PLR0913 - one argument per option of the command
    checkpoint: Path,
    *,
    out: Path,
    file: Path | None = None,
    scene: str | None = None,
    scenes: Path | None = None,
    split: str | None = None,
    settings: FeatureSettings = FeatureSettings(),
    device: str = "auto",
    report: Reporter | None = None,
) -> FeaturesResult:
    """Writes features of `file`, of `scene`, or of every scene of `split` (then `out` is a folder).

    Every point of the input has a row, in the order of the input; points without a finite position get NaN.
    A split that was interrupted continues where it stopped.

    Raises:
        CheckpointError: it cannot be read, or its encoder takes other features or knows other datasets.
        SceneError: no such scene, or a file that cannot be read.
        OutputError: it cannot be written, or the folder holds features of other settings.
        ResourceError: no such device, or too little memory.
    """
    started = time.perf_counter()
    report = report or SilentReporter()
    opened = open_checkpoint(checkpoint)
    loaded = loaded_model(opened, chosen_device(device), settings.points)
    for note in loaded.notes:
        report.warn(with_options(note))
    given = None if scenes is None else Path(scenes)
    store = None if file is not None else open_scenes(SceneChoice(given), opened)
    dataset = None if store is None else store.info.name
    condition = loaded.model.prompts.choose(settings.condition, dataset)
    done: list[dict[str, Any]] = []
    notes = list(loaded.notes)
    skipped = channels = 0
    if store is not None and scene is None:
        record = _record(Path(checkpoint), loaded, condition, settings)
        jobs, skipped = _split_jobs(store, split or "val", Path(out), settings, record, report)
    else:
        _check_ending(Path(out), settings.level)
        jobs = iter([_single_job(Path(out), file, scene, store, split, settings)])
    for job in jobs:
        cloud, more = loaded.completed(job.cloud, settings.hide)
        for note in (*job.notes, *more):
            report.note(f"{job.name}: {note}")
        voxels = _encode(loaded, replace(job, cloud=cloud), condition, settings, report)
        _write(job, voxels, settings)
        channels = voxels.feature.shape[1]
        density = _density_notes(voxels, loaded.data.voxel.size)
        for note in density:
            report.note(f"{job.name}: {note}")
        notes += [*job.notes, *more, *density]
        done.append(
            {
                "name": job.name,
                "points": len(job.finite),
                "voxels": len(voxels.feature),
                "blocks": voxels.n_blocks,
                "file": job.out,
            }
        )
    return FeaturesResult(
        checkpoint=Path(checkpoint),
        out=Path(out),
        level=settings.level,
        dtype="float16" if settings.half else "float32",
        channels=channels,
        voxel_size=loaded.data.voxel.size,
        inputs=list(loaded.data.features),
        condition=condition,
        n_points=sum(entry["points"] for entry in done),
        n_voxels=sum(entry["voxels"] for entry in done),
        skipped=skipped,
        seconds=time.perf_counter() - started,
        clouds=done,
        notes=notes,
    )


def _single_job(
    out: Path,
    file: Path | None,
    scene: str | None,
    store: SceneFolders | None,
    split: str | None,
    settings: FeatureSettings,
) -> _Job:
    if file is not None:
        read = read_cloud_with_notes(Path(file), settings.scale, settings.up_axis, centred=True)
        return _Job(Path(file).name, out, read.cloud, read.finite, read.notes)
    assert store is not None and scene is not None
    cloud = store.read(scene, split).cloud
    return _Job(scene, out, cloud, np.ones(len(cloud), bool))


def _split_jobs(
    store: SceneFolders,
    split: str,
    out: Path,
    settings: FeatureSettings,
    record: dict[str, Any],
    report: Reporter,
) -> tuple[Iterator[_Job], int]:
    """The scenes that have no features in the folder yet, and the number of those that have."""
    names = store.names(split)
    if not names:
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    if out.suffix in (".npy", ".npz"):
        raise OutputError(
            f"a whole split goes into a folder, not into {out}", fix="--scene NAME or --out DIR"
        )
    _claim(out, record)
    files = {name: out / f"{name}{_ending(settings.level)}" for name in names}
    open_names = [name for name in names if not files[name].is_file()]
    n_skipped = len(names) - len(open_names)
    if n_skipped:
        report.note(f"{n_skipped} of {len(names)} scenes of '{split}' have features in {out} already")

    def jobs() -> Iterator[_Job]:
        for name in report.track(open_names, f"features of {split}", len(open_names)):
            cloud = store.read(name, split).cloud
            yield _Job(name, files[name], cloud, np.ones(len(cloud), bool))

    return jobs(), n_skipped


def _encode(
    loaded: LoadedModel, job: _Job, condition: str, settings: FeatureSettings, report: Reporter
) -> VoxelFeatures:
    """A progress bar for large clouds; small ones are done before it would show."""
    if settings.blocks.voxels is None and len(job.cloud) < _ROWS:
        return encode_voxels(loaded.model, job.cloud, loaded.data, condition, settings.blocks)
    with report.progress(f"encode {job.name}", len(job.cloud)) as display:

        def listen(share: float) -> None:
            display.advance(round(share * len(job.cloud)))

        return encode_voxels(loaded.model, job.cloud, loaded.data, condition, settings.blocks, listen)


def _density_notes(voxels: VoxelFeatures, size: float) -> list[str]:
    """Clouds that are much coarser than the voxels, or lie in a few of them."""
    n_points, n_voxels, spacing = len(voxels.inverse), len(voxels.feature), voxels.spacing()
    if spacing > COARSE * size:
        return [
            f"points are {spacing:.2g} m apart, the encoder's voxels {size:g} m: it was trained on denser "
            "clouds and its features are less reliable here"
        ]
    if n_points > FEW * n_voxels and n_voxels < FEW:
        return [
            f"all {n_points} points lie in {n_voxels} voxels of {size:g} m: --scale if the unit is no metre"
        ]
    return []


def _write(job: _Job, voxels: VoxelFeatures, settings: FeatureSettings) -> None:
    """Whole or not at all. Raises OutputError."""
    kind = np.dtype(np.float16 if settings.half else np.float32)
    with replacement(job.out, ending=_ending(settings.level)) as temporary:
        if settings.level == "voxel":
            feature = voxels.feature.numpy().astype(kind)
            inverse = np.full(len(job.finite), -1, np.int64)
            inverse[job.finite] = voxels.inverse.numpy()
            np.savez(temporary, coord=_where(voxels, job.cloud), feature=feature, inverse=inverse)
        else:
            _write_points(temporary, voxels, job.finite, kind)


def _where(voxels: VoxelFeatures, cloud: PointCloud) -> ndarray:
    """Positions as in the file (metres, z up); in double precision where single would be too coarse."""
    coord = voxels.coord.numpy().astype(np.float64) + cloud.origin
    return coord if np.abs(cloud.origin).max() > FAR_FROM_ZERO else coord.astype(np.float32)


def _write_points(path: Path, voxels: VoxelFeatures, finite: ndarray, kind: np.dtype) -> None:
    """A row for every point of the input, some rows at a time: the array may be larger than the memory."""
    shape = (len(finite), voxels.feature.shape[1])
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    place = np.flatnonzero(finite)
    if len(place) < len(finite):
        rows[~finite] = np.nan
    for start in range(0, len(place), _ROWS):
        part = slice(start, start + _ROWS)
        rows[place[part]] = voxels.feature[voxels.inverse[part]].numpy().astype(kind)
    rows.flush()


def _ending(level: Level) -> str:
    return ".npz" if level == "voxel" else ".npy"


def _check_ending(out: Path, level: Level) -> None:
    if out.suffix != _ending(level) or out.is_dir():
        fix = f"--out {out.with_suffix(_ending(level)).name}"
        raise OutputError(f"features of each {level} go into a file {_ending(level)}, not {out}", fix=fix)


def _record(
    checkpoint: Path, loaded: LoadedModel, condition: str, settings: FeatureSettings
) -> dict[str, Any]:
    """What must agree for features to be stored in one folder."""
    return {
        "weights": loaded.digest,
        "checkpoint": str(checkpoint),
        "level": settings.level,
        "half": settings.half,
        "condition": condition,
        "voxel_size": loaded.data.voxel.size,
        "features": list(loaded.data.features),
        "hidden": sorted(settings.hide),
    }


def _claim(out: Path, record: dict[str, Any]) -> None:
    """Marks the folder; raises OutputError when it holds features of other weights or settings."""
    path = out / SETTINGS_FILE
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        known = {"hidden": [], **known} if isinstance(known, dict) else {}
        changed = [name for name in record if name != "checkpoint" and known.get(name) != record[name]]
        if changed:
            raise OutputError(
                f"{out} holds features of another run: {', '.join(changed)} differ",
                fix="choose another --out",
            )
        return
    write_bytes(path, (json.dumps(record, indent=2) + "\n").encode())
