"""Image features of prepared scenes: those that are missing are computed."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import OutputError, PonderError, PresetError, SceneError
from ponderv2.image_features.extraction import (
    ImageJob,
    estimated_bytes,
    extract,
    fit_pca,
    new_set,
    write_set,
)
from ponderv2.image_features.kinds import build_network
from ponderv2.image_features.network import ImageNetwork
from ponderv2.image_features.pca import Pca
from ponderv2.io.files import cache_folder
from ponderv2.scenes.feature_sets import ABOUT, PCA, FeatureSet, feature_sets, read_about
from ponderv2.scenes.scene import evenly_spread
from ponderv2.training.devices import chosen_device
from ponderv2.training.report import Reporter
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.image_feature_files import (
    FeatureSource,
    basis_of,
    fitted_jobs,
    image_jobs,
    known_set,
    missing_jobs,
    place_of,
    set_of,
    stored_pca,
    unusable_file,
)
from ponderv2.workflows.prepare_space import RESERVE, existing_folder, readable

FEW = 5
"""Images that a message names."""


@dataclass(frozen=True)
class FeatureResult:
    """Image features after a command made sure of them."""

    model: str
    licence: str
    """Of the weights of the network."""
    training_data: str
    """That the network was trained on."""
    space: str
    """Digest of network, settings and PCA."""
    folders: tuple[Path, ...]
    """One for each data set."""
    n_channels: int
    n_images: int
    """With colour, not held out."""
    n_computed: int = 0
    """In this run; the others were there."""
    n_failed: int = 0
    """Images that could not be read or written."""
    network_channels: int = 0
    explained_share: float = 0.0
    """Of the variance of the network's channels that the PCA keeps."""
    seconds: float = 0.0
    """Computing and storing, without the start of the network and the PCA."""
    images_per_second: float = 0.0
    bytes_per_image: int = 0
    failures: tuple[str, ...] = field(default=())


def ensure_features(
    sources: Sequence[FeatureSource],
    config: ImageFeaturesConfig,
    report: Reporter,
    *,
    refresh: bool = False,
    check_space: bool = True,
) -> FeatureResult:
    """Computes the features that are missing, one process at a time; the others wait and find them there.

    All sources share one PCA, fitted on equally many of their images (or that of `config.basis`), so that
    their features can be compared. What an interrupted run left is completed.

    Args:
        sources: One for each data set.
        config: Which features.
        report: Gets estimates before the work, and progress.
        refresh: Also compare every image with the digest in its file, and compute what has changed again.
        check_space: Refuse to start where the disk is too small.

    Raises:
        PresetError: no such network, damaged weights, or a basis of other settings.
        ResourceError: a package is not installed, or a download is not possible.
        OutputError: the disk is too small, or a file cannot be written.
        SceneError: no scene has an image with colours; the basis is no folder of features; a damaged file
            stands in the way of training without the network.
    """
    with ExitStack() as locks:
        for root in sorted({str(one.reader.root.absolute()) for one in sources}):
            locks.enter_context(_alone(root, report))
        return _ensured(sources, config, report, refresh, check_space)


def prepare_features(
    root: Path, config: ImageFeaturesConfig, report: Reporter, check_space: bool = True
) -> FeatureResult:
    """The features of all images of a folder of scenes; those of images that changed are computed again.

    The PCA is fitted on the split `train`, or on all where there is none. Raises as `ensure_features`.
    """
    reader = open_folder(root)
    fitted = "train" if "train" in reader.info.splits else "+".join(reader.info.splits)
    source = FeatureSource(reader, tuple(reader.info.splits), fitted)
    try:
        return ensure_features([source], config, report, refresh=True, check_space=check_space)
    except PonderError as error:
        if error.fix is not None:  # settings of `prepare` have no `data`
            error.fix = error.fix.replace("data.image_features", "image_features")
        raise


def with_features(config: PretrainConfig, report: Reporter) -> PretrainConfig:
    """The settings of a run with the features that its data sets have in common; missing ones are computed.

    Raises as `ensure_features`.
    """
    wanted = config.data.image_features
    if wanted is None:
        return config
    sources = [
        FeatureSource(open_folder(part.scenes), (part.train_split,), part.train_split, part.data.frames)
        for part in config.parts
    ]
    found = ensure_features(sources, wanted, report)
    report.note(
        f"image features of {found.model} (licence {found.licence}; trained on {found.training_data}), "
        f"{found.n_channels} channels"
    )
    features = wanted.model_copy(update={"space": found.space})
    return config.model_copy(update={"data": config.data.model_copy(update={"image_features": features})})


def _ensured(
    sources: Sequence[FeatureSource],
    config: ImageFeaturesConfig,
    report: Reporter,
    refresh: bool,
    check_space: bool,
) -> FeatureResult:
    fitted_on = [one.reader.info.name for one in sources]
    jobs = [image_jobs(one, report) for one in sources]
    n_images = sum(map(len, jobs))
    if not n_images:
        raise SceneError(
            f"no scene in {sources[0].reader.root} has an image with colours",
            fix="--set data.image_features=null",
        )
    known = known_set(sources, config, fitted_on)
    sets = [set_of(one, known) for one in sources]
    missing = [
        missing_jobs(some, features, refresh, report) for some, features in zip(jobs, sets, strict=True)
    ]
    n_missing = sum(map(len, missing))
    if known is not None and not n_missing:
        return _result(known, config, sets, n_images)
    if 0 < n_missing < n_images:
        report.note(f"{n_missing} of {n_images} images have no features of {config.model}: computing them")
    try:
        network = build_network(config).to(chosen_device(config.device))
    except PonderError as error:
        if known is None or n_missing == n_images:
            raise
        _warn_of_missing(missing, sets, n_images, error, report)
        return _result(known, config, sets, n_images)
    if known is not None and known["network"]["weights"] != network.provenance.weights:
        known = None
    pca = None if known is None else stored_pca(known, sources)
    if known is None or pca is None:
        known, missing = None, jobs
        _report_others(sources, config, report)
    places = [place_of(one.reader.root) for one in sources]
    _estimate(network, missing, places, report, check_space)
    if known is None or pca is None:
        known, pca = _new_space(network, config, sources, jobs, report)
    return _extracted(network, known, pca, sources, missing, places, n_images, report)


def _report_others(sources: Sequence[FeatureSource], config: ImageFeaturesConfig, report: Reporter) -> None:
    """A note where features of the same settings and other weights, or of another PCA, are there."""
    for source in sources:
        for one in feature_sets(source.reader.root):
            if one.about["identity"] == config.identity:
                report.note(
                    f"{one.places[0]} holds features of other weights or another PCA: they stay, and new "
                    "ones are computed"
                )


def _warn_of_missing(
    missing: Sequence[list[ImageJob]],
    sets: Sequence[FeatureSet | None],
    n_images: int,
    reason: PonderError,
    report: Reporter,
) -> None:
    """Training continues with the features that are there, as the network cannot be had.

    Raises SceneError where a file is in the way: it would be refused when it is read.
    """
    for some, features in zip(missing, sets, strict=True):
        file = unusable_file(some, features)
        if file is not None:
            raise SceneError(
                f"{file} is damaged or of another version, and cannot be computed again: {reason.message}",
                fix=f"{reason.fix}; or delete that file, and its image gives no feature loss",
            ) from reason
    report.warn(
        f"{sum(map(len, missing))} of {n_images} images have no features and give no feature loss: "
        f"{reason.message} ({reason.fix})"
    )


def _estimate(
    network: ImageNetwork,
    missing: Sequence[Sequence[ImageJob]],
    places: Sequence[Path],
    report: Reporter,
    check_space: bool,
) -> None:
    """Reports bytes and time. Raises OutputError where the disk is too small, PresetError for too many
    channels."""
    each = [estimated_bytes(network, some) for some in missing]
    n_images = sum(map(len, missing))
    seconds, n_channels = _pass(network, next(job for some in missing for job in some))
    seconds *= n_images
    if network.config.n_channels > n_channels:
        raise PresetError(
            f"{network.config.n_channels} channels were asked for, but {network.provenance.name} gives "
            f"{n_channels}",
            fix=f"--set data.image_features.n_channels={n_channels}",
        )
    free = [shutil.disk_usage(existing_folder(place)).free for place in places]
    report.note(
        f"{n_images} images need about {readable(sum(each))} for features of {network.provenance.name} "
        f"({readable(min(free))} are free) and about {_duration(seconds)}"
    )
    devices: dict[int, list[int]] = {}
    for place, needed, there in zip(places, each, free, strict=True):
        disk = devices.setdefault(existing_folder(place).stat().st_dev, [0, there])
        disk[0] += needed
    for needed, there in devices.values():
        if check_space and needed + RESERVE > there:
            raise OutputError(
                f"not enough space in {places[0]}: features need about {readable(needed)}, "
                f"{readable(there)} are free",
                fix="free some space, or fewer numbers: --set data.image_features.n_channels=24 or cell=16",
            )


def _pass(network: ImageNetwork, job: ImageJob) -> tuple[float, int]:
    """Seconds of a second pass, once everything is warm, and channels."""
    import torch

    image = torch.zeros(1, 3, *job.size, device=network.mean.device)
    n_channels = int(network(image).shape[1])
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, n_channels


def _new_space(
    network: ImageNetwork,
    config: ImageFeaturesConfig,
    sources: Sequence[FeatureSource],
    jobs: Sequence[Sequence[ImageJob]],
    report: Reporter,
) -> tuple[dict[str, Any], Pca]:
    """What the features are, and the PCA: that of the basis, or a new one."""
    if config.basis is not None:
        about = basis_of(config)
        if about["network"]["weights"] != network.provenance.weights:
            raise PresetError(
                f"{config.basis} was computed by other weights than those of {config.model}",
                fix="--set data.image_features.basis=null",
            )
        return about, Pca.read(config.basis.expanduser() / PCA)
    sample: list[ImageJob] = []
    share = -(-config.sample_images // len(sources))
    for source, some in zip(sources, jobs, strict=True):
        fitted = fitted_jobs(source, some)
        sample += evenly_spread(fitted, share)
    tracked = report.track(sample, f"PCA to {config.n_channels} channels", total=len(sample))
    pca, n_channels = fit_pca(network, tracked, config)
    return new_set(network, pca, [one.reader.info.name for one in sources], n_channels), pca


def _extracted(
    network: ImageNetwork,
    about: dict[str, Any],
    pca: Pca,
    sources: Sequence[FeatureSource],
    missing: Sequence[Sequence[ImageJob]],
    places: Sequence[Path],
    n_images: int,
    report: Reporter,
) -> FeatureResult:
    sets = []
    failures: list[str] = []
    n_missing = sum(map(len, missing))
    start = time.perf_counter()
    with report.progress("image features", n_missing) as progress:
        for source, some, place in zip(sources, missing, places, strict=True):
            features = set_of(source, about)
            assert features is not None
            sets.append(features)
            folder = place / features.name
            if read_about(folder / ABOUT) != about or not (folder / PCA).is_file():
                write_set(folder, about, pca)
            for done in extract(network, pca, some, features, folder):
                if done.trouble:
                    failures.append(f"{done.job.key}: {done.trouble}")
                progress.advance()
    seconds = time.perf_counter() - start
    if failures:
        listed = "; ".join(failures[:FEW]) + ("; ..." if len(failures) > FEW else "")
        report.warn(f"{len(failures)} images have no features and give no feature loss: {listed}")
    computed = n_missing - len(failures)
    result = _result(about, network.config, sets, n_images)
    return FeatureResult(
        **{
            **vars(result),
            "n_computed": computed,
            "n_failed": len(failures),
            "seconds": seconds,
            "images_per_second": computed / seconds if seconds > 0 else 0.0,
            "failures": tuple(failures),
        }
    )


def _result(
    about: dict[str, Any],
    config: ImageFeaturesConfig,
    sets: Sequence[FeatureSet | None],
    n_images: int,
) -> FeatureResult:
    folders = tuple(
        next((one for one in features.places if (one / ABOUT).is_file()), features.places[0])
        for features in sets
        if features is not None
    )
    first = next((path for folder in folders for path in folder.glob("*/**/*.safetensors")), None)
    return FeatureResult(
        model=str(about["network"]["name"]),
        licence=str(about["network"]["licence"]),
        training_data=str(about["network"]["training_data"]),
        space=str(about["space"]),
        folders=folders,
        n_channels=config.n_channels,
        n_images=n_images,
        network_channels=int(about.get("network_channels", 0)),
        explained_share=float(about.get("explained_share", 0.0)),
        bytes_per_image=0 if first is None else first.stat().st_size,
    )


@contextmanager
def _alone(root: str, report: Reporter) -> Iterator[None]:
    """One process at a time; the system frees the lock of one that dies. Without locks nobody waits."""
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
    lock = FileLock(cache_folder() / "locks" / f"features-{name}.lock", thread_local=False)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1.0)
        except Timeout:
            report.note(f"waiting for another process that computes image features of {root}")
            lock.acquire()
    except OSError:
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()


def _duration(seconds: float) -> str:
    if seconds < 90.0:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60.0:.1f} h"
