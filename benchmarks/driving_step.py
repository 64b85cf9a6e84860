"""The CPU cost of one training step on drives: LiDAR, cameras, both, and lidar segmentation, by part.

Run: python -m benchmarks.driving_step [--json FILE] [--repeats 5] [--only lidar camera fusion lidarseg]

The presets `streets_demo`, `streets_camera`, `streets_fusion` and `streets_lidarseg` as they are, on four
generated streets of one key frame (32 lasers, 6 images of 400x224). Each runs in a fresh process with one
thread, whose largest resident memory is stated. Samples are read and made anew, as in a data set that no
memory holds. All seconds are those of the processor. The limit of a part is its arithmetic over the rate of a
product of two 2048x2048 matrices, or its memory traffic over the rate of a copy, whichever is longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.operation_counts import OperationCounts, copy_rate, product_flops, product_seconds
from benchmarks.step_parts import Clock, one_step
from benchmarks.training_step import memory_gib
from ponder_cli.presets import load_preset
from ponderv2.datasets.streets.config import StreetsConfig
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.randomness import make_generator
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.kinds import task_of
from ponderv2.training.config import TrainingConfig
from ponderv2.training.optimiser import build_optimiser, set_train_mode
from ponderv2.workflows import prepare
from ponderv2.workflows.config import FinetuneConfig, PrepareConfig, PretrainConfig
from ponderv2.workflows.open_parts import open_parts
from ponderv2.workflows.training_runs import seeded_weights

READING = "read and preprocess"
PRESETS = {
    "lidar": ("pretrain", "streets_demo", PretrainConfig),
    "camera": ("pretrain", "streets_camera", PretrainConfig),
    "fusion": ("pretrain", "streets_fusion", PretrainConfig),
    "lidarseg": ("finetune", "streets_lidarseg", FinetuneConfig),
}

TakeStep = Callable[[nn.Module, Optimizer, Batch, int, Callable[[str], None] | None], tuple[Clock, float]]


def make_streets(folder: Path) -> None:
    """Four streets with one key frame each and without sweeps, all of them to train on."""
    source = StreetsConfig(scenes=4, key_frames=1, sweeps=False)
    prepare.run(PrepareConfig(source=source, out=folder, workers=1, check_space=False))


def measure(name: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Times, memory and counts of one modality in this process."""
    command, preset, kind = PRESETS[name]
    config = load_preset(command, preset, [f"scenes={folder}", "data.cache_megabytes=0"], kind)
    opened = open_parts(config)[0]
    task = task_of(task_of(config.model).with_scenes(opened.store, config.data))
    dataset = task.datasets(opened)[0]
    model, optimiser = _model(task.build, config.seed, config.training)
    size = config.training.batch_size

    def sampled(turn: int) -> tuple[float, Batch]:
        clock = Clock()
        drawn = [dataset.sample((turn * size + one) % len(dataset), turn) for one in range(size)]
        batch = dataset.collate(drawn)
        clock.mark(READING)
        return clock.cpu_seconds[READING], batch

    take: TakeStep = _scan_step if command == "finetune" else _rendering_step
    clocks, products, losses = [], [], []
    found: dict[str, Any] = {"modality": name, "preset": preset, "memory_before_gib": memory_gib()}
    batch = None
    for turn in range(repeats + 1):
        reading, batch = sampled(turn)
        clock, loss = take(model, optimiser, batch, turn, None)
        losses.append(loss)
        if turn:  # the first step is the warm-up
            clocks.append({READING: reading} | clock.cpu_seconds)
        products += product_seconds(repeats=2)[1]
    assert batch is not None
    parts = {part: [one[part] for one in clocks] for part in clocks[0]}
    counts, rows = OperationCounts(), _size(batch)
    found |= {"memory_gib": memory_gib(), "size": rows, "losses": losses, "parts": parts}
    found["step"] = [sum(one.values()) for one in clocks]
    with counts:
        take(model, optimiser, batch, 0, counts.finish)
    gemm, copy = product_flops() / min(products), copy_rate()
    found["limits"] = {"gflops_per_second": gemm / 1e9, "copy_gigabyte_per_second": copy / 1e9} | {
        "parts": {
            part: {
                "gflop": counts.flops[part] / 1e9,
                "gigabyte": counts.traffic[part] / 1e9,
                "seconds": max(counts.flops[part] / gemm, counts.traffic[part] / copy),
                "largest_mebibyte": counts.largest[part] / 2**20,
            }
            for part in parts
            if part != READING
        }
    }
    return found


def _model(
    build: Callable[[], nn.Module], seed: int, training: TrainingConfig
) -> tuple[nn.Module, Optimizer]:
    seeded_weights(seed)
    model = build()
    stages = model.stages if isinstance(model, EncoderModel) else ()
    optimiser = build_optimiser(model, training, stages)
    set_train_mode(model, training.frozen)
    return model, optimiser


def _rendering_step(
    model: Any, optimiser: Optimizer, batch: Batch, turn: int, watch: Callable[[str], None] | None
) -> tuple[Clock, float]:
    return one_step(model, optimiser, batch, turn, watch=watch)


def _scan_step(
    model: nn.Module, optimiser: Optimizer, batch: Batch, turn: int, watch: Callable[[str], None] | None
) -> tuple[Clock, float]:
    clock = Clock(watch)
    loss = model(batch, make_generator("step", turn)).losses.total()
    clock.mark("forward")
    loss.backward()
    clock.mark("backward")
    nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    clock.mark("optimiser")
    return clock, float(loss.detach())


def _size(batch: Batch) -> dict[str, int]:
    """Of a batch."""
    counts = {"scans": len(batch.offset), "voxels": len(batch.coord)}
    if batch.images is not None:
        counts |= {"images": len(batch.images.image)}
    if batch.pixels is not None:
        counts |= {"rays": len(batch.pixels.pixel)}
    return counts


def show(found: dict[str, Any]) -> None:
    """The table of one modality."""
    size = ", ".join(f"{value:,} {name}" for name, value in found["size"].items())
    print(f"\n{found['modality']} ({found['preset']}): {size}")
    print(f"{'part':30}{'CPU s':>8}{'best':>8}{'share':>7}{'limit s':>9}{'reached':>9}{'largest MiB':>13}")
    step = median(found["step"])
    for part, seconds in found["parts"].items():
        limit = found["limits"]["parts"].get(part)
        line = f"{part:30}{median(seconds):8.3f}{min(seconds):8.3f}{median(seconds) / step:7.0%}"
        if limit is not None:
            reached = limit["seconds"] / max(min(seconds), 1e-9)
            line += f"{limit['seconds']:9.3f}{reached:9.0%}{limit['largest_mebibyte']:13.1f}"
        print(line)
    total = sum(one["seconds"] for one in found["limits"]["parts"].values())
    print(f"{'step':30}{step:8.3f}{min(found['step']):8.3f}{'':7}{total:9.3f}")
    before, largest = found["memory_before_gib"], found["memory_gib"]
    print(f"largest resident memory {largest:.2f} GiB, {before:.2f} GiB before the first step")


def _fresh(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.driving_step", "--child", "--only", name]
    command += ["--repeats", str(arguments.repeats), "--cache", str(arguments.cache)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=one_thread)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=tuple(PRESETS), default=list(PRESETS))
    cache = Path(tempfile.gettempdir()) / "ponder-benchmarks" / "step-streets"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the generated streets")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        torch.set_num_threads(1)
        print(json.dumps(measure(arguments.only[0], arguments.repeats, arguments.cache)))
        return
    make_streets(arguments.cache)
    results = [_fresh(name, arguments) for name in arguments.only]
    for found in results:
        show(found)
    if arguments.json:
        about = {"threads": 1, "cores": os.cpu_count(), "machine": platform.machine()}
        about |= {"torch": torch.__version__}
        arguments.json.write_text(json.dumps({"about": about, "runs": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
