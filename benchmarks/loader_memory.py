"""Resident memory of a pre-training and a fine-tuning loader over many samples: does it grow?

Run: python -m benchmarks.loader_memory [--samples 10000] [--workers 0 2] [--tasks pretrain] [--json FILE]

Generated scenes in our own layout and in PonderV2's .pth files are drawn by the loader that training uses.
The cache is smaller than the scenes, so that scenes and images are read and forgotten all the time.
Every 1,000 samples the memory of the process and its workers is taken from /proc: the private part of each,
and the shared part divided by those who share it (PSS). Printed are MiB, and the growth after 2,000 samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ponderv2.data.config import LabelledDataConfig, PretrainDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.training.data_loader import Datasets, load_batches
from ponderv2.training.sampler import RankShare, Sampler

N_SCENES, N_FRAMES, WIDTH, HEIGHT = 40, 6, 64, 48
CACHE_MEGABYTES = 2
EVERY = 1000
SETTLED = 2
"""Thousands of samples after which caches and allocators are warm."""


def scene(number: int, n_points: int) -> tuple[PreparedCloud, list[DecodedFrame]]:
    """Noise in a box, with images from its middle."""
    rng = np.random.default_rng(number)
    coord = rng.uniform(-2, 2, (n_points, 3)).astype(np.float32)
    normal = np.tile(np.array([0, 0, 1], np.float32), (n_points, 1))
    labels = {"segment": rng.integers(-1, 13, n_points), "instance": rng.integers(-1, 30, n_points)}
    cloud = PreparedCloud(coord, rng.integers(0, 256, (n_points, 3), dtype=np.uint8), normal, labels)
    lens = np.array([[120.0, 0, WIDTH / 2], [0, 120.0, HEIGHT / 2], [0, 0, 1]])
    frames = []
    for index in range(N_FRAMES):
        color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        depth = rng.integers(500, 4000, (HEIGHT, WIDTH)).astype(np.uint16)
        frames.append(DecodedFrame(f"{index}", lens, np.eye(4), color, depth))
    return cloud, frames


def write_ours(root: Path, n_points: int) -> None:
    """Our own layout."""
    store = SceneStore.create(root, DatasetInfo("noise", tuple("abcdefghijklm"), splits=("train",)))
    for number in range(N_SCENES):
        cloud, frames = scene(number, n_points)
        store.write("train", f"room{number}", SceneStream.of(cloud, frames))


def write_pth(root: Path, n_points: int) -> None:
    """PonderV2's files of S3DIS, images too."""
    area = root / "Area_1"
    for number in range(N_SCENES):
        cloud, frames = scene(number, n_points)
        views = area / f"office_{number}_rgbd"
        views.mkdir(parents=True)
        points = {"coord": cloud.coord.astype(np.float64), "color": cloud.color.astype(np.float64)}
        points |= {"normal": cloud.normal, "semantic_gt": np.asarray(cloud.labels["segment"])[:, None]}
        torch.save(points, area / f"office_{number}.pth")
        for frame in frames:
            view = {"intrinsic": frame.intrinsics, "extrinsic": frame.camera_to_world, "rgb": frame.color}
            view |= {"depth": frame.depth, "depth_mask": frame.depth > 0, "semantic_map": frame.depth % 13}
            torch.save(view, views / f"{frame.id}.pth")


def memory_mib() -> float:
    """Of this process and of its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def open_files() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/fd"))


def curve(root: Path, task: str, n_samples: int, workers: int) -> dict[str, Any]:
    """Memory after each 1,000 samples, in this process."""
    torch.set_num_threads(1)
    store = open_folder(root)
    split = store.info.splits[0]
    shared: dict[str, Any] = {"voxel": {"size": 0.3}, "cache_megabytes": CACHE_MEGABYTES}
    shared["augment"] = [{"kind": "centre_shift"}]  # the others take time and keep nothing
    if task == "pretrain":
        settings = PretrainDataConfig.model_validate({**shared, "views": {"n_views": 2, "n_pixels": 64}})
        data: PretrainDataset | LabelledDataset = PretrainDataset(store, split, settings)
        gather = Batch.collate
    else:
        data = LabelledDataset(store, split, LabelledDataConfig.model_validate(shared))
        gather = data.collate
    datasets = Datasets.of(data)
    sampler = Sampler(datasets.schedule, 0, RankShare(1, 1, 0), 0, n_samples)
    started, memory, files = time.perf_counter(), [], []
    for number, _ in enumerate(load_batches(datasets, gather, sampler, workers), 1):
        if number % EVERY == 0:
            memory.append(round(memory_mib(), 1))
            files.append(open_files())
    return {"mib": memory, "files": files, "seconds": round(time.perf_counter() - started, 1)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--tasks", nargs="*", default=["pretrain", "segmentation"])
    parser.add_argument("--points", type=int, default=1000, help="per scene")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", nargs=3, metavar=("ROOT", "TASK", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone:
        root, task, workers = arguments.alone
        print(json.dumps(curve(Path(root), task, arguments.samples, int(workers))))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["PONDER_CACHE"] = f"{name}/cache"
        write_ours(Path(name) / "ours", arguments.points)
        write_pth(Path(name) / "pth", arguments.points)
        for task in arguments.tasks:
            for layout in ("ours", "pth"):
                for workers in arguments.workers:
                    found = alone(Path(name) / layout, task, workers, arguments.samples)
                    settled = found["mib"][SETTLED - 1 :] or found["mib"]
                    growth = settled[-1] - settled[0] if settled else 0.0
                    figures[f"{task}, {layout}, {workers} workers"] = {
                        **found,
                        "growth_mib": round(growth, 1),
                    }
                    values = " ".join(f"{value:.0f}" for value in found["mib"])
                    print(
                        f"{task:12} {layout:4} {workers} workers: {values} MiB, growth {growth:+.1f} MiB",
                        end=" ",
                    )
                    print(f"({found['seconds']} s, {found['files'][-1:]} open files)", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


def alone(root: Path, task: str, workers: int, n_samples: int) -> dict[str, Any]:
    """The curve of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loader_memory", "--samples", str(n_samples)]
    command += ["--alone", str(root), task, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
