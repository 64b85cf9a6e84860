"""Images through a frozen network: a PCA of a sample, then a file for each image."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError, SceneError, is_out_of_memory
from ponderv2.image_features.network import ImageNetwork
from ponderv2.image_features.pca import Pca, PcaFit
from ponderv2.io.files import write_bytes
from ponderv2.randomness import make_generator
from ponderv2.scenes.feature_maps import FORMAT, image_digest
from ponderv2.scenes.feature_sets import ABOUT, PCA, FeatureSet
from ponderv2.scenes.scene import Frame
from ponderv2.version import __version__

CELLS_PER_IMAGE = 256
"""That the PCA is fitted on: neighbouring cells say nearly the same."""
HEADER_BYTES = 400
"""Of a file of features, beside its numbers."""
LARGEST = 65504.0
"""Of half precision."""
READERS = 2
"""Threads that decode images and write files beside the network."""


@dataclass(frozen=True)
class ImageJob:
    """An image whose features are wanted."""

    scene: str
    """Split and name."""
    frame: Frame

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.frame.camera.height, self.frame.camera.width

    @property
    def key(self) -> str:
        """For messages."""
        return f"{self.scene}/{self.frame.id}"


@dataclass(frozen=True)
class ReadImage:
    """The image of a job, or why there is none."""

    job: ImageJob
    color: UInt8[Tensor, "row column 3"] | None
    digest: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Done:
    """Result of one image."""

    job: ImageJob
    trouble: str = ""
    """Empty: its features are stored."""


def estimated_bytes(network: ImageNetwork, jobs: Iterable[ImageJob]) -> int:
    """On disk, of the files of all jobs. Runs the network once per size of image."""
    sizes: dict[tuple[int, int], int] = {}
    for job in jobs:
        sizes[job.size] = sizes.get(job.size, 0) + 1
    total = 0
    for size, count in sizes.items():
        rows, columns = network.grid_size(*size)
        total += count * (2 * network.config.n_channels * rows * columns + HEADER_BYTES)
    return total


def fit_pca(network: ImageNetwork, jobs: Iterable[ImageJob], config: ImageFeaturesConfig) -> tuple[Pca, int]:
    """The PCA of a sample of images, and the channels that the network gives.

    Of each image some cells count, drawn from a seeded generator. Images that cannot be read are left out.

    Raises:
        PresetError: no image could be read, or there are fewer channels than wanted.
    """
    fit, n_channels = PcaFit(), 0
    number = 0
    for images, features in _in_batches(network, jobs, config.batch_size):
        n_channels = features.shape[1]
        for _, one in zip(images, features, strict=True):
            vectors = one.flatten(1).T
            generator = make_generator("image_features", 0, number)
            chosen = torch.randperm(len(vectors), generator=generator)[:CELLS_PER_IMAGE]
            fit.add(vectors[chosen.to(vectors.device)])
            number += 1
    return fit.result(config.n_channels), n_channels


def new_set(
    network: ImageNetwork, pca: Pca, fitted_on: Sequence[str], n_network_channels: int
) -> dict[str, Any]:
    """The content of features.json: where the features come from, and the digest that tells them apart."""
    config, provenance = network.config, network.provenance
    digest = hashlib.sha256(json.dumps(config.identity, sort_keys=True).encode())
    digest.update(provenance.weights.encode())
    for array in (pca.mean, pca.components, pca.explained_variance):
        digest.update(array.numpy().tobytes())
    return {
        "format": FORMAT,
        "space": digest.hexdigest()[:32],
        "identity": config.identity,
        "network": asdict(provenance),
        "fitted_on": sorted(fitted_on),
        "sample_vectors": pca.n_vectors,
        "network_channels": n_network_channels,
        "explained_share": pca.explained_share,
        "version": __version__,
    }


def write_set(place: Path, about: Mapping[str, Any], pca: Pca) -> None:
    """Begins a folder of features; features.json comes last. Raises OutputError."""
    pca.write(place / PCA)
    write_bytes(place / ABOUT, json.dumps(dict(about), indent=1).encode())


def extract(
    network: ImageNetwork, pca: Pca, jobs: Sequence[ImageJob], features: FeatureSet, place: Path
) -> Iterator[Done]:
    """Computes and stores the features of all jobs; each file is written whole or not at all.

    Raises:
        OutputError: a file cannot be written; the ones before it stay.
        PresetError: the network does not take images of a size.
    """
    matrix, offset = (one.float().to(network.mean.device) for one in pca.projection(network.config.whiten))
    if matrix.shape[0] != network.config.n_channels:
        raise PresetError(f"the PCA of {place} has {matrix.shape[0]} channels", fix=f"delete {place}")

    def write(read: ReadImage, values: Float[Tensor, "channel row column"]) -> Done:
        if not bool(torch.isfinite(values).all()):
            return Done(read.job, "the network gave numbers that are not finite")
        file = features.new_file(place, read.job.scene, read.job.frame.id)
        file.write(values.clamp(-LARGEST, LARGEST), read.digest)
        return Done(read.job)

    with ThreadPoolExecutor(READERS) as writers:
        pending: deque[Any] = deque()
        for images, values in _in_batches(network, jobs, network.config.batch_size, keep_unread=True):
            stored: Iterator[Tensor] = iter(())
            if len(values):
                reduced = torch.einsum("kc,nchw->nkhw", matrix, values) + offset[:, None, None]
                stored = iter(reduced.cpu())
            for read in images:
                if read.color is None:
                    yield Done(read.job, read.trouble)
                else:
                    pending.append(writers.submit(write, read, next(stored)))
            while len(pending) > 2 * network.config.batch_size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _in_batches(
    network: ImageNetwork, jobs: Iterable[ImageJob], batch_size: int, keep_unread: bool = False
) -> Iterator[tuple[list[ReadImage], Float[Tensor, "image channel cell_row cell_column"]]]:
    """Images with their features, in the order of the jobs; the next ones are read meanwhile.

    With `keep_unread` also those that cannot be read, which have no features.
    """
    with ThreadPoolExecutor(READERS) as readers:
        ahead: deque[list[Any]] = deque()
        for batch in _of_one_size(jobs, batch_size):
            ahead.append([readers.submit(_read, job) for job in batch])
            if len(ahead) > 2:
                yield from _computed(network, ahead.popleft(), keep_unread)
        while ahead:
            yield from _computed(network, ahead.popleft(), keep_unread)


def _computed(
    network: ImageNetwork, reading: list[Any], keep_unread: bool
) -> Iterator[tuple[list[ReadImage], Float[Tensor, "image channel cell_row cell_column"]]]:
    images = [one.result() for one in reading]
    usable = [one.color for one in images if one.color is not None]
    if not usable:
        if keep_unread:
            yield images, torch.zeros(0, 0, 1, 1)
        return
    stacked = torch.stack(usable).permute(0, 3, 1, 2)
    yield (
        images if keep_unread else [one for one in images if one.color is not None],
        _within_memory(network, stacked),
    )


def _within_memory(
    network: ImageNetwork, images: UInt8[Tensor, "image 3 row column"]
) -> Float[Tensor, "image channel cell_row cell_column"]:
    """Half of the images at a time where all are too many for the memory.

    On a CPU one by one: its caches hold no more, and the numbers do not depend on what else is in the batch.
    """
    if network.mean.device.type == "cpu" and len(images) > 1:
        return torch.cat([_within_memory(network, one[None]) for one in images])
    try:
        return network(images.to(network.mean.device).float() / 255.0)
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    middle = len(images) // 2
    return torch.cat([_within_memory(network, images[:middle]), _within_memory(network, images[middle:])])


def _of_one_size(jobs: Iterable[ImageJob], batch_size: int) -> Iterator[list[ImageJob]]:
    """Consecutive jobs whose images have one size."""
    batch: list[ImageJob] = []
    for job in jobs:
        if batch and (len(batch) == batch_size or batch[0].size != job.size):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _read(job: ImageJob) -> ReadImage:
    assert job.frame.color_path is not None
    try:
        digest = image_digest(job.frame.color_path)
        return ReadImage(job, job.frame.read_color(), digest)
    except SceneError as error:
        return ReadImage(job, None, trouble=error.message)
