"""Which image features of prepared scenes are there: sets that were begun, and images without a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError, SceneError
from ponderv2.image_features.extraction import ImageJob
from ponderv2.image_features.kinds import local_digest
from ponderv2.image_features.pca import Pca
from ponderv2.scenes.feature_maps import image_digest
from ponderv2.scenes.feature_sets import (
    PCA,
    FeatureSet,
    feature_sets,
    read_basis,
    scene_path,
    set_folders,
    set_name,
)
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.reader import FrameChoice
from ponderv2.store.store import is_store
from ponderv2.training.report import Reporter


@dataclass(frozen=True)
class FeatureSource:
    """Scenes whose images are to have features."""

    reader: SceneFolders
    splits: tuple[str, ...]
    """All images of these splits that are not held out."""
    fitted_split: str
    """Split whose images the PCA is fitted on; several are joined by `+`."""
    frames: FrameChoice = "all"


def image_jobs(source: FeatureSource, report: Reporter) -> list[ImageJob]:
    """All images with colours that are not held out, scene by scene."""
    scenes = [(split, name) for split in source.splits for name in source.reader.names(split)]
    found = []
    for split, name in report.track(scenes, "look for images", total=len(scenes)):
        try:
            scene = source.reader.read(name, split, False, source.frames)
        except SceneError as error:
            report.warn(f"{name} has no image features: {error.message}")
            continue
        place = scene_path(split, name)
        found += [ImageJob(place, frame) for frame in scene.frames if frame.has_color and not frame.held_out]
    return found


def known_set(
    sources: Sequence[FeatureSource], config: ImageFeaturesConfig, fitted_on: Sequence[str]
) -> dict[str, Any] | None:
    """The features of these settings and weights that were begun for one of the sources."""
    weights = local_digest(config)
    basis = None if config.basis is None else basis_of(config)["space"]
    found = []
    for source in sources:
        for one in feature_sets(source.reader.root):
            same = one.about["identity"] == config.identity
            same &= weights is None or one.about["network"]["weights"] == weights
            meant = one.space == basis if basis else one.about["fitted_on"] == sorted(fitted_on)
            if same and (meant or one.space == config.space):
                found.append(dict(one.about))
    named = [one for one in found if one["space"] == config.space]
    return next(iter([*named, *found]), None)


def set_of(source: FeatureSource, about: dict[str, Any] | None) -> FeatureSet | None:
    """The files of known features that a source has, or will have."""
    if about is None:
        return None
    name = set_name(str(about["identity"]["model"]), str(about["space"]))
    return FeatureSet(name, tuple(place / name for place in set_folders(source.reader.root)), about)


def missing_jobs(
    jobs: list[ImageJob], features: FeatureSet | None, refresh: bool, report: Reporter
) -> list[ImageJob]:
    """The jobs without a file that can be read; with `refresh` also those whose file is of another image."""
    if features is None:
        return jobs

    def is_current(job: ImageJob) -> bool:
        file = features.file(job.scene, job.frame.id)
        if file is None or job.frame.color_path is None:
            return False
        try:
            return file.is_usable(image_digest(job.frame.color_path) if refresh else None)
        except SceneError:
            return False

    with ThreadPoolExecutor() as pool:
        current = report.track(pool.map(is_current, jobs), "check image features", total=len(jobs))
        return [job for job, same in zip(jobs, current, strict=True) if not same]


def unusable_file(jobs: Sequence[ImageJob], features: FeatureSet | None) -> Path | None:
    """The first file of the missing jobs that is there all the same: damaged, or of an older format."""
    found = (features.file(job.scene, job.frame.id) for job in jobs if features is not None)
    return next((file.path for file in found if file is not None), None)


def fitted_jobs(source: FeatureSource, jobs: Sequence[ImageJob]) -> list[ImageJob]:
    """The images of the split that the PCA is fitted on; all where it has none."""
    parts = tuple(f"{part.strip()}/" for part in source.fitted_split.split("+"))
    return [job for job in jobs if job.scene.startswith(parts)] or list(jobs)


def stored_pca(about: dict[str, Any], sources: Sequence[FeatureSource]) -> Pca | None:
    """As stored for one of the sources; None where it is lost."""
    for source in sources:
        features = set_of(source, about)
        for place in features.places if features is not None else ():
            if (place / PCA).is_file():
                return Pca.read(place / PCA)
    return None


def basis_of(config: ImageFeaturesConfig) -> dict[str, Any]:
    """What the features of `config.basis` are.

    Raises SceneError where the folder holds none, PresetError where they are of other settings.
    """
    assert config.basis is not None
    about = read_basis(config.basis.expanduser())
    if about["identity"] != config.identity:
        raise PresetError(
            f"{config.basis} holds features of other settings than these",
            fix="give the same model and settings",
        )
    return about


def place_of(root: Path) -> Path:
    """Where new features of a folder of scenes go: beside scenes that are ours, else into the cache."""
    beside, cache = set_folders(root)
    return beside if is_store(root) and os.access(root, os.W_OK) else cache
