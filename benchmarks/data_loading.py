"""Samples for pre-training: the loader of training beside one that decodes every image of a scene.

Run from the project's root: `python -m benchmarks.data_loading [--samples 3] [--workers 0 1 2] [--json FILE]`

Scenes of 60,000 points with `--frames` images of 640 x 480, more of them than the cache holds, so that
everything is read from the disk for every sample: 5 images of 256 pixels each. The published way opens
all images of the scene and then chooses among them, and voxelises by NumPy's hash and sort; it runs in
the same `DataLoader`. Reported are samples a second of the clock and of the processors, workers too; both
ways take turns. Real scenes have hundreds of images, so that the ratio grows with `--frames`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.prepare_readers import ANGLES, SIZE, lens, pose, views
from benchmarks.voxel_sampling import published_train
from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.prepared import DecodedFrame, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.training.data_loader import Datasets, load_batches
from ponderv2.training.sampler import RankShare, Sampler
from tests.datasets import structured3d_room as room
from tests.scenes.closed_form_room import room_cloud

N_SCENES, N_POINTS, N_VIEWS, N_PIXELS = 3, 60_000, 5, 256


def write(root: Path, n_frames: int) -> SceneStore:
    """Rooms with images in closed form."""
    store = SceneStore.create(root, DatasetInfo("rooms", ("wall", "floor", "ceiling"), splits=("train",)))
    frames = []
    for number, view in enumerate(views(n_frames)):
        seen = room.exact_image(view, SIZE, ANGLES)
        color, depth = seen["rgb_rawlight.png"], seen["depth.png"]
        frames.append(DecodedFrame(f"{number:04d}", lens(), pose(view), color, depth))
    for number in range(N_SCENES):
        store.write("train", f"room{number}", SceneStream.of(room_cloud(N_POINTS, number), frames))
    return store


class Published(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """All images, then a choice."""

    def __init__(self, store: SceneStore, n_samples: int) -> None:
        self.scenes = [store.read(name, "train") for name in store.names("train")]
        self.n_samples = n_samples

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        rng, scene = np.random.default_rng(number), self.scenes[number % len(self.scenes)]
        index, cells = published_train(scene.cloud.coord.numpy(), rng)
        colors, depths = [], []
        for frame in scene.frames:
            colors.append(np.array(Image.open(frame.color_path).convert("RGB")))
            depths.append(np.array(Image.open(frame.depth_path)).astype(np.float32) / 1000.0)
        chosen = rng.choice(len(colors), N_VIEWS)
        color, depth = np.stack(colors)[chosen], np.stack(depths)[chosen]
        row, column = rng.integers(0, SIZE[1], (2, N_VIEWS, N_PIXELS))
        view = np.arange(N_VIEWS)[:, None]
        picked = color[view, row, column % SIZE[0]], depth[view, row, column % SIZE[0]]
        feature = np.concatenate([scene.cloud.color.numpy()[index], scene.cloud.normal.numpy()[index]], 1)
        return (
            torch.from_numpy(feature),
            torch.from_numpy(cells),
            torch.from_numpy(picked[0] * picked[1][..., None]),
        )


def ours(store: SceneStore, n_samples: int, workers: int) -> Iterable[object]:
    config = PretrainDataConfig.model_validate(
        {"cache_megabytes": 1, "views": {"n_views": N_VIEWS, "n_pixels": N_PIXELS}}
    )
    datasets = Datasets.of(PretrainDataset(store, "train", config))
    sampler = Sampler(datasets.schedule, 0, RankShare(1, 1, 0), 0, n_samples)
    return load_batches(datasets, Batch.collate, sampler, workers)


def processor_seconds() -> float:
    """Of this process and of workers that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def spent(samples: Iterable[object]) -> tuple[float, float]:
    """Seconds of the clock and of the processors until all samples are there."""
    clock, processors = time.perf_counter(), processor_seconds()
    for _ in samples:
        pass
    return time.perf_counter() - clock, processor_seconds() - processors


def compare(store: SceneStore, n_samples: int, workers: int, repeats: int) -> dict[str, float]:
    """Medians of both ways."""
    rows = []
    for turn in range(repeats + 1):
        slow = spent(DataLoader(Published(store, n_samples), batch_size=None, num_workers=workers))
        fast = spent(ours(store, n_samples, workers))
        if turn:
            rows.append((*slow, *fast))
    slow, slow_cpu, fast, fast_cpu = (median(column) for column in zip(*rows, strict=True))
    return {
        "published_samples_per_s": n_samples / slow,
        "ours_samples_per_s": n_samples / fast,
        "published_samples_per_processor_s": n_samples / slow_cpu,
        "ours_samples_per_processor_s": n_samples / fast_cpu,
        "ratio": median(row[0] / row[2] for row in rows),
        "ratio_of_processor_time": median(row[1] / row[3] for row in rows),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder), options.frames)
        for workers in options.workers:
            found = compare(store, options.samples, workers, options.repeats)
            results[f"{workers} workers, {options.frames} images"] = found
            print(f"{workers} workers: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
