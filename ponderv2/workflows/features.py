"""A trained encoder -> features of the points of a file, of a scene, or of all scenes of a split."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy import ndarray

from ponderv2.data.missing_inputs import HideableInput
from ponderv2.errors import OutputError
from ponderv2.io.files import replacement, write_bytes
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.models.voxel_features import BlockSettings, VoxelFeatures, encode_voxels
from ponderv2.scenes.origin import FAR_FROM_ZERO
from ponderv2.scenes.point_cloud_files import ReadCloud
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.tasks.checkpoints import loaded_model, open_checkpoint, task_of_checkpoint
from ponderv2.tasks.feature_sources import EncoderFeatures, with_random_weights
from ponderv2.tasks.loaded_model import LoadedModel, with_options
from ponderv2.training.devices import chosen_device
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.published_checkpoints import PointChoice
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.cloud_sources import (
    CloudSource,
    Level,
    elsewhere,
    ending_of,
    source_of_scene,
    sources_of_files,
    sources_of_split,
)
from ponderv2.workflows.feature_pictures import Encoded, check_pictures, write_pictures
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes
from ponderv2.workflows.training_runs import seeded_weights

SETTINGS_FILE = "features.json"
COARSE = 1.5
"""Distance of neighbouring points, in voxels, beyond which a cloud is coarser than what encoders see."""
CALIBRATION_CLOUDS = 16
"""Clouds from which random weights get the statistics of their normalisations."""
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
    out: Path | None
    """The file, or the folder of several clouds; None where only pictures were asked for."""
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
    pictures: list[Path] = field(default_factory=list)
    """Features as colours."""
    notes: list[str] = field(default_factory=list)
    """What the cloud or the checkpoint lacked and what stands in its place."""


def run(  # noqa: PLR0913 - one argument per option of the command
    checkpoint: Path,
    *,
    out: Path | None = None,
    file: Path | Sequence[Path] | None = None,
    scene: str | None = None,
    scenes: Path | None = None,
    split: str | None = None,
    settings: FeatureSettings = FeatureSettings(),
    pca: Path | None = None,
    beside: Sequence[Path] = (),
    random: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> FeaturesResult:
    """Writes features of `file`, of `scene`, or of every scene of `split`.

    Every point of the input has a row, in the order of the input; points without a finite position get NaN.
    One cloud goes into the file `out`, several files or a split into a folder. A split that was interrupted
    continues where it stopped.

    Args:
        checkpoint: The encoder.
        out: None: no features are written, where `pca` is given.
        file: A point cloud, or several.
        scene: A prepared scene of the folder `scenes`.
        scenes: By default the folder that the checkpoint was trained on.
        split: By default val.
        settings: How features are computed.
        pca: Their first three principal components as colours: FILE.ply, FILE.png or a folder for both, with
            the same axes for all clouds.
        beside: Further encoders, for panels in the same images.
        random: A panel of the same encoder with random weights, as before its training.
        device: auto, cpu or cuda.
        report: Receives messages and progress.

    Raises:
        CheckpointError: it cannot be read, or its encoder takes other features or knows other datasets.
        SceneError: no such scene, or a file that cannot be read.
        OutputError: it cannot be written, or the folder holds features of other settings.
        ResourceError: no such device, or too little memory.
    """
    started = time.perf_counter()
    report = report or SilentReporter()
    if out is None and pca is None:
        raise OutputError("nothing to write", fix="--out FILE|DIR, or --pca FILE.png to look at features")
    opened = open_checkpoint(checkpoint)
    loaded = loaded_model(opened, chosen_device(device), settings.points)
    for note in loaded.notes:
        report.warn(with_options(note))
    files = [Path(file)] if isinstance(file, str | Path) else [Path(one) for one in file or ()]
    store = None if files else open_scenes(SceneChoice(None if scenes is None else Path(scenes)), opened)
    dataset = None if store is None else store.info.name
    condition = loaded.model.prompts.choose(settings.condition, dataset)
    place = None if out is None else Path(out)
    if store is None:
        sources = sources_of_files(files, place, settings.level, settings.scale, settings.up_axis)
    elif scene is not None:
        sources = [source_of_scene(store, scene, split, place, settings.level)]
    else:
        sources = sources_of_split(store, split or "val", place, settings.level)
        if place is not None:
            _claim(place, _record(Path(checkpoint), loaded, condition, settings))
    if pca is not None:
        check_pictures(Path(pca), len(sources))
    with TemporaryDirectory() if place is None or beside or random else nullcontext() as folder:
        if place is None:
            sources = elsewhere(sources, Path(str(folder)) / "main", settings.level)
        written = _write_all(loaded, sources, condition, settings, report)
        pictures: list[Path] = []
        if pca is not None:
            encoders = [Encoded(_name_of(checkpoint), [source.out for source in sources])]
            others = ((_name_of(one), _other(one, device, settings)) for one in beside)
            blank = (
                ("random weights", _untrained(opened, loaded, condition, sources)) for _ in range(random)
            )
            for name, other in chain(others, blank):
                here = elsewhere(sources, Path(str(folder)) / str(len(encoders)), settings.level)
                prompt = other.model.prompts.choose(settings.condition, dataset)
                _write_all(other, here, prompt, settings, report)
                encoders.append(Encoded(name, [source.out for source in here]))
            pictures = write_pictures(Path(pca), sources, encoders, report)
    clouds = written.clouds if place is not None else [{**one, "file": None} for one in written.clouds]
    return FeaturesResult(
        checkpoint=Path(checkpoint),
        out=place,
        level=settings.level,
        dtype="float16" if settings.half else "float32",
        channels=written.channels,
        voxel_size=loaded.data.voxel.size,
        inputs=list(loaded.data.features),
        condition=condition,
        n_points=sum(entry["points"] for entry in clouds),
        n_voxels=sum(entry["voxels"] for entry in clouds),
        skipped=sum(source.done for source in sources),
        seconds=time.perf_counter() - started,
        clouds=clouds,
        pictures=pictures,
        notes=[*loaded.notes, *written.notes],
    )


def _other(checkpoint: Path, device: str, settings: FeatureSettings) -> LoadedModel:
    return loaded_model(open_checkpoint(checkpoint), chosen_device(device), settings.points)


def _untrained(
    checkpoint: OpenCheckpoint, loaded: LoadedModel, condition: str, sources: Sequence[CloudSource]
) -> LoadedModel:
    """The same encoder with random weights; the statistics of its normalisations are those of the clouds."""
    seeded_weights(0)
    model = task_of_checkpoint(checkpoint).build()
    assert isinstance(model, EncoderModel)
    scenes = (Scene(source.name, source.read().cloud) for source in sources[:CALIBRATION_CLOUDS])
    return with_random_weights(EncoderFeatures("", loaded, condition), model, scenes).loaded


@dataclass
class _Written:
    """What was encoded and written, cloud by cloud."""

    channels: int = 0
    clouds: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _write_all(
    loaded: LoadedModel,
    sources: Sequence[CloudSource],
    condition: str,
    settings: FeatureSettings,
    report: Reporter,
) -> _Written:
    """Encodes and writes what is not done yet."""
    written = _Written()
    waiting = [source for source in sources if not source.done]
    if len(waiting) < len(sources):
        n_done = len(sources) - len(waiting)
        report.note(f"{n_done} of {len(sources)} scenes have features in {sources[0].out.parent} already")
    many = len(sources) > 1
    for source in report.track(waiting, "features", len(waiting)) if many else waiting:
        read = source.read()
        cloud, more = loaded.completed(read.cloud, settings.hide)
        for note in (*read.notes, *more):
            report.note(f"{source.name}: {note}")
        voxels = _encode(loaded, source.name, cloud, condition, settings, report)
        _write(source.out, replace(read, cloud=cloud), voxels, settings)
        written.channels = voxels.feature.shape[1]
        density = _density_notes(voxels, loaded.data.voxel.size)
        for note in density:
            report.note(f"{source.name}: {note}")
        written.notes += [*read.notes, *more, *density]
        written.clouds.append(
            {
                "name": source.name,
                "points": len(read.finite),
                "voxels": len(voxels.feature),
                "blocks": voxels.n_blocks,
                "file": source.out,
            }
        )
    return written


def _name_of(checkpoint: Path) -> str:
    """Of a run its folder, of a file its stem."""
    path = Path(checkpoint)
    inside = path.parent.name == "checkpoints"
    return path.parent.parent.name if inside else path.name if path.is_dir() else path.stem


def _encode(
    loaded: LoadedModel,
    name: str,
    cloud: PointCloud,
    condition: str,
    settings: FeatureSettings,
    report: Reporter,
) -> VoxelFeatures:
    """A progress bar for large clouds; small ones are done before it would show."""
    if settings.blocks.voxels is None and len(cloud) < _ROWS:
        return encode_voxels(loaded.model, cloud, loaded.data, condition, settings.blocks)
    with report.progress(f"encode {name}", len(cloud)) as display:

        def listen(share: float) -> None:
            display.advance(round(share * len(cloud)))

        return encode_voxels(loaded.model, cloud, loaded.data, condition, settings.blocks, listen)


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


def _write(out: Path, read: ReadCloud, voxels: VoxelFeatures, settings: FeatureSettings) -> None:
    """Whole or not at all. Raises OutputError."""
    kind = np.dtype(np.float16 if settings.half else np.float32)
    with replacement(out, ending=ending_of(settings.level)) as temporary:
        if settings.level == "voxel":
            feature = voxels.feature.numpy().astype(kind)
            inverse = np.full(len(read.finite), -1, np.int64)
            inverse[read.finite] = voxels.inverse.numpy()
            np.savez(temporary, coord=_where(voxels, read.cloud), feature=feature, inverse=inverse)
        else:
            _write_points(temporary, voxels, read.finite, kind)


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
