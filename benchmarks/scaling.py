"""How time and memory of a step grow with voxels, rays and scenes, and what a second process costs.

Run from the project's root: `python -m benchmarks.scaling [--only voxels rays scenes processes] [--json FILE]
[--plots DIR]`

Every point is measured in a process of its own, with one thread: seconds of the processor for forward and
backward (median after a first step that is not counted; large steps run once, and that is reported),
and the largest resident memory. `voxels`: the sparse U-Net at a narrow and at the published width. `rays`:
the renderer of `pretrain/demo`, 24 samples a ray. `scenes`: the whole step of `pretrain/demo` on rooms of
about 8,000 voxels. `processes`: processor seconds a step of `ponder pretrain` over gloo with one and two,
for the same scenes a step; start-up is taken out by the difference of two lengths.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.sparse_convolution import room_voxels
from ponder_cli.presets import load_preset
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.encoder.kinds import build_encoder
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer.losses import eikonal_loss
from ponderv2.renderer.renderer import Renderer
from ponderv2.renderer.sampling import draw_noise
from ponderv2.scenes.batch import Batch
from ponderv2.workflows.config import PretrainConfig
from tests.scenes.closed_form_room import write_store

NARROW = SparseUNetConfig(base_channels=16, channels=(16, 32, 48, 64, 64, 48, 32, 16), layers=(1,) * 8)
POINTS: dict[str, list[tuple[str, int]]] = {
    "voxels": [("narrow", n) for n in (10_000, 30_000, 100_000, 300_000, 1_000_000)]
    + [("published", n) for n in (10_000, 30_000, 100_000)],
    "rays": [("demo", n) for n in (256, 1024, 4096, 16_384, 65_536)],
    "scenes": [("demo", n) for n in (1, 2, 4, 8)],
}
ONCE = {"voxels": 100_000, "rays": 16_384, "scenes": 9}
"""Sizes from which a step runs once."""


def demo() -> PretrainConfig:
    return load_preset("pretrain", "demo", [], PretrainConfig)


def encoder_step(width: str, n_voxels: int) -> Callable[[], Any]:
    coord = room_voxels(n_voxels)
    model = build_encoder(NARROW if width == "narrow" else SparseUNetConfig())
    zeros = torch.zeros(len(coord), dtype=torch.long)
    voxels = SparseVoxels(torch.randn(len(coord), 6), coord, zeros, 1)
    return lambda: model.rows(voxels).square().mean().backward()


def rays_step(_: str, n_rays: int) -> Callable[[], Any]:
    model = demo().model
    renderer = Renderer(model.renderer, model.projection.out_channels)
    grid = tuple(reversed(model.frame.cells))
    values = torch.randn(1, model.projection.out_channels, *grid).requires_grad_()
    box = torch.full((1, 3), 0.5)
    volume = FeatureVolume(values, -box, box)
    directions = F.normalize(torch.randn(n_rays, 3), dim=-1)
    rays = RayBundle(torch.zeros(n_rays, 3), directions, torch.zeros(n_rays, dtype=torch.long))
    noise = draw_noise(n_rays, torch.Generator().manual_seed(0), renderer.config)
    target = torch.full((n_rays,), 0.4)

    def step() -> None:
        seen = renderer(volume, rays, noise, target)
        (seen.color.sum() + seen.distance.sum() + eikonal_loss(seen.gradients)).backward()

    return step


def scenes_step(_: str, n_scenes: int) -> Callable[[], Any]:
    config = demo()
    with tempfile.TemporaryDirectory() as name:
        write_store(Path(name), n_scenes=1, n_points=20_000, splits=("train",))
        room = PretrainDataset(open_folder(Path(name)), "train", finer(config).data)
        batch = Batch.collate([room.sample(0, draw) for draw in range(n_scenes)])
    model = PretextModel(config.model)
    return lambda: model(batch, torch.Generator().manual_seed(0)).losses.total().backward()


def finer(config: PretrainConfig) -> PretrainConfig:
    """Voxels of 5 cm: the room has about 8,000 of them."""
    voxel = config.data.voxel.model_copy(update={"size": 0.05})
    return config.model_copy(update={"data": config.data.model_copy(update={"voxel": voxel})})


STEPS = {"voxels": encoder_step, "rays": rays_step, "scenes": scenes_step}


def measure(kind: str, width: str, size: int) -> dict[str, float]:
    """In this process: the peak is that of everything it ever did."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = STEPS[kind](width, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = []
    for _ in range(1 if size >= ONCE[kind] else 4):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": statistics.median(times[1:] or times),
        "steps": len(times),
        "peak_mib": peak,
        "before_mib": before,
    }


def in_own_process(kind: str, width: str, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", kind, width, str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{kind} {width} {size} ended with {done.returncode}: {done.stderr[-2000:]}")
    found = {"kind": kind, "width": width, "size": size, **json.loads(done.stdout.splitlines()[-1])}
    print(
        f"{kind:7} {width:9} {size:8}: {found['seconds']:8.2f} s, peak {found['peak_mib']:6.0f} MiB",
        flush=True,
    )
    return found


def processes(short: int = 4, long: int = 24) -> dict[str, float]:
    """Processor seconds of a step with one process of two scenes and two processes of one scene."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        write_store(Path(name) / "rooms", n_scenes=4, n_points=20_000)
        for n in (1, 2):
            spent = [_training(Path(name), n, steps) for steps in (short, long)]
            found[f"{n}_processes_seconds_per_step"] = (spent[1] - spent[0]) / (long - short)
            print(f"{n} processes: {found[f'{n}_processes_seconds_per_step']:.2f} s a step", flush=True)
    one, two = found["1_processes_seconds_per_step"], found["2_processes_seconds_per_step"]
    return {**found, "efficiency": one / two}


def _training(folder: Path, world_size: int, steps: int) -> float:
    settings = {"steps": steps, "save_every": steps, "evaluate_every": steps, "batch_size": 2, "threads": 1}
    settings |= {"tensorboard": "false", "evaluate_scenes": 1, "evaluate_width": 16}
    known = PretrainConfig.model_fields["training"].annotation.model_fields  # type: ignore[union-attr]
    command = [sys.executable, "-m", "ponder_cli", "pretrain", "--preset", "demo"]
    command += ["--data", str(folder / "rooms"), "--out", str(folder / f"runs{world_size}-{steps}")]
    command += ["--devices", str(world_size), "--set", "data.voxel.size=0.05"]
    for key, value in settings.items():
        command += ["--set", f"training.{key}={value}"] if key in known else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plot(rows: list[dict[str, Any]], kind: str, path: Path) -> None:
    """Seconds and memory side by side, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    widths = list(dict.fromkeys(row["width"] for row in rows if row["kind"] == kind))
    for width in widths:
        chosen = [row for row in rows if row["kind"] == kind and row["width"] == width]
        sizes = [row["size"] for row in chosen]
        axes[0].plot(sizes, [row["seconds"] for row in chosen], "o-", label=width)
        axes[1].plot(sizes, [row["peak_mib"] for row in chosen], "o-", label=width)
    for axis, label in zip(axes, ("processor seconds a step", "largest resident memory, MiB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=kind, ylabel=label)
        every = sorted({row["size"] for row in rows if row["kind"] == kind})
        axis.set_xticks(every, [f"{size:,}" for size in every])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.grid(True, which="both", alpha=0.3)
        if len(widths) > 1:
            axis.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*POINTS, "processes"], choices=[*POINTS, "processes"])
    parser.add_argument("--largest", type=int, default=1_000_000, help="larger sizes are left out")
    parser.add_argument("--json", type=Path, help="written after every point; what it holds is not repeated")
    parser.add_argument("--plots", type=Path, help="folder for scaling_*.png")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "WIDTH", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one is not None:
        kind, width, size = options.one
        print(json.dumps(measure(kind, width, int(size))))
        return
    figures: dict[str, Any] = {"rows": []}
    if options.json is not None and options.json.is_file():
        figures = json.loads(options.json.read_text())
    for kind in [kind for kind in POINTS if kind in options.only]:
        known = {(row["kind"], row["width"], row["size"]) for row in figures["rows"]}
        for width, size in POINTS[kind]:
            if size <= options.largest and (kind, width, size) not in known:
                figures["rows"].append(in_own_process(kind, width, size))
                write(options.json, figures)
    if "processes" in options.only and "processes" not in figures:
        figures["processes"] = processes()
        write(options.json, figures)
    if options.plots is not None:
        for kind in {row["kind"] for row in figures["rows"]}:
            plot(figures["rows"], kind, options.plots / f"scaling_{kind}.png")


def write(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
