"""What each further target of the pretext adds to a training step: seconds and memory.

Run from the project's root: `python -m benchmarks.pretext_targets [--repeats 7] [--json FILE]`

The `demo` preset on generated rooms, one thread: a sample of two rooms with 4 views of 64 pixels, then
forward, backward and the optimiser, without targets and with each of them, in turns; seconds are of the
processor. Image features are random maps of 48 channels on 40 x 30 cells that lie in memory: their network
runs before training. The largest resident memory is that of a process which takes five such steps. A ratio
above 1 means that the step without targets is that many times faster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.timing import side_by_side
from ponder_cli.presets import load_preset
from ponderv2.data.clusters import ClusterFit
from ponderv2.data.config import ClustersConfig
from ponderv2.data.pixel_targets import DepthNormals, WantedTargets
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.data.views import FrameDecoder, FramePixels, decode
from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer.config import TargetsConfig
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import Frame
from ponderv2.training.optimiser import build_optimiser
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig, PretrainConfig
from ponderv2.workflows.training_runs import seeded_weights

N_CHANNELS, CELLS = 48, (30, 40)
FEATURES = {"image_features": {"n_channels": N_CHANNELS}}
CLUSTERS = {"clusters": {"n_clusters": ClustersConfig().n_clusters}}
NORMAL = {"normal": {}}
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "normal": NORMAL,
    "clusters": CLUSTERS,
    "image features": FEATURES,
    "image features of the encoder": {**FEATURES, "source": "encoder"},
    "all": {**FEATURES, **CLUSTERS, **NORMAL},
}


class RandomFeatures(FrameDecoder):
    """Images with random features beside them."""

    def __call__(self, frame: Frame) -> FramePixels:
        def read() -> FramePixels:
            return replace(decode(frame), image_feature=torch.randn(N_CHANNELS, *CELLS).half())

        return self.memory.get(frame.key, read)


def rooms(folder: Path) -> Path:
    """Four generated rooms."""
    source = SyntheticConfig(rooms=4, val_rooms=0)
    prepare.run(PrepareConfig(source=source, out=folder, workers=1, check_space=False))
    return folder


def case(name: str, folder: Path) -> tuple[Callable[[], Batch], Callable[[], Any]]:
    """A call that samples a batch and one that trains on the latest."""
    preset = load_preset("pretrain", "demo", [], PretrainConfig)
    settings = TargetsConfig.model_validate(CASES[name]) if CASES[name] else None
    wanted = WantedTargets()
    if settings is not None:
        clustering = _clustering(folder) if settings.clusters else None
        normals = DepthNormals(None, 80.0) if settings.normal else None
        wanted = WantedTargets(N_CHANNELS if settings.image_features else 0, normals, clustering)
    data = PretrainDataset(open_folder(folder), "train", preset.data, targets=wanted)
    if wanted.feature_channels:
        data.decode = RandomFeatures(data.decode.memory.megabytes)
    seeded_weights(0)
    model = PretextModel(preset.model.model_copy(update={"targets": settings})).train()
    optimiser = build_optimiser(model, preset.training)
    draw, batches = [0], list[Batch]()

    def sample() -> Batch:
        draw[0] += 1
        batches[:] = [Batch.collate([data.sample(index, draw[0]) for index in (0, 1)])]
        return batches[0]

    def train() -> None:
        optimiser.zero_grad()
        model(batches[0], torch.Generator().manual_seed(draw[0])).losses.total().backward()
        optimiser.step()

    return sample, train


def _clustering(folder: Path) -> Any:
    store, config = open_folder(folder), ClustersConfig()
    names = store.names("train")
    fit = ClusterFit(config, len(names))
    for name in names:
        fit.add(store.read(name, "train", labels=False, frames="none"))
    return fit.fit("")


def memory(name: str, folder: Path) -> float:
    """Largest resident memory of a process that takes five steps, MiB."""
    command = [sys.executable, "-m", "benchmarks.pretext_targets", "--child", name, "--cache", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _child(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    sample, train = case(name, folder)
    for _ in range(5):
        sample()
        train()
    # Not `getrusage`: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "ponder-benchmarks" / "target-rooms"
    )
    parser.add_argument("--child", choices=tuple(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        return _child(arguments.child, arguments.cache)
    torch.set_num_threads(1)
    folder = rooms(arguments.cache)
    cases = {name: case(name, folder) for name in CASES}
    runs = [run for pair in cases.values() for run in pair]
    seconds = [median(one) for one in side_by_side(runs, arguments.repeats, time.process_time)]
    found, first = {}, seconds[0] + seconds[1]
    print(f"{'target':32}{'sample s':>10}{'step s':>10}{'ratio':>8}{'MiB':>8}")
    for number, name in enumerate(CASES):
        sample, step = seconds[2 * number : 2 * number + 2]
        found[name] = {
            "sample_seconds": sample,
            "step_seconds": step,
            "ratio": (sample + step) / first,
            "memory_mib": memory(name, folder),
        }
        print(
            f"{name:32}{sample:10.3f}{step:10.3f}{found[name]['ratio']:8.3f}{found[name]['memory_mib']:8.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
