"""One training step of the renderer beside a straightforward one (grid_sample, double backward).

Run from the project's root: `python -m benchmarks.rendering [--rays 512] [--samples 48] [--threads 1]`.
Prints medians and ratios of CPU (or device) time, measured alternately; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.config import (
    BoxLimitsConfig,
    NeusSamplerConfig,
    RendererConfig,
    UniformSamplerConfig,
)
from ponderv2.renderer.losses import eikonal_loss
from ponderv2.renderer.renderer import Renderer, RenderOutput
from ponderv2.renderer.sampling import Interval, draw_noise
from tests.renderer import textbook


@dataclass(frozen=True)
class Setting:
    renderer: Renderer
    volume: FeatureVolume
    rays: RayBundle


def build(arguments: argparse.Namespace) -> Setting:
    """A random volume, and rays from a few cameras inside it."""
    rng = torch.Generator().manual_seed(0)
    coarse = arguments.samples - arguments.samples // 4
    sampler = NeusSamplerConfig(
        initial=UniformSamplerConfig(n_samples=coarse), n_importance=arguments.samples - coarse
    )
    config = RendererConfig(sampler=sampler, limits=BoxLimitsConfig())
    renderer = Renderer(config, n_channels=128, n_semantic=arguments.semantic).to(arguments.device)
    values = torch.randn(1, 128, *arguments.grid, generator=rng)
    box = torch.full((1, 3), 0.55)
    origins = ((torch.rand(5, 3, generator=rng) - 0.5) * 0.6).repeat_interleave(arguments.rays // 5 + 1, 0)
    directions = F.normalize(torch.randn(arguments.rays, 3, generator=rng), dim=-1)
    scene = torch.zeros(arguments.rays, dtype=torch.long)
    move = arguments.device
    rays = RayBundle(origins[: arguments.rays].to(move), directions.to(move), scene.to(move))
    volume = FeatureVolume(values.to(move).requires_grad_(), -box.to(move), box.to(move))
    return Setting(renderer, volume, rays)


def total(output: RenderOutput | textbook.TextbookOutput) -> Tensor:
    """Colour, distance, semantics and the eikonal term, so that every path is differentiated."""
    loss = output.color.sum() + output.distance.sum() + eikonal_loss(output.gradients)
    return loss if output.semantic is None else loss + output.semantic.square().mean()


def seconds(step: Callable[[], Tensor], device: str) -> float:
    """Time of forward and backward; on CPUs of this process only, so that other work counts little."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    step().backward()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rays", type=int, default=512)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--grid", type=int, nargs=3, default=(32, 64, 64), help="cells along z, y, x")
    parser.add_argument("--semantic", type=int, default=0, help="channels of rendered semantics")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    setting = build(arguments)
    renderer, volume, rays = setting.renderer, setting.volume, setting.rays
    noise = draw_noise(arguments.rays, torch.Generator().manual_seed(1), renderer.config)
    with torch.no_grad():
        samples = renderer(volume, rays, noise).samples

    def ours() -> Tensor:
        volume.values.grad = None
        return total(renderer(volume, rays, noise))

    def theirs() -> Tensor:
        volume.values.grad = None
        with torch.no_grad():
            renderer._sample(renderer.over(volume), rays, _interval(renderer, setting), noise, None)
        return total(textbook.render(renderer, volume, rays, samples.starts, samples.steps))

    seconds(ours, arguments.device)  # the first call of each is slower
    seconds(theirs, arguments.device)
    pairs = [
        (seconds(ours, arguments.device), seconds(theirs, arguments.device)) for _ in range(arguments.repeats)
    ]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        f"{arguments.rays} rays x {arguments.samples} samples, "
        f"grid {tuple(arguments.grid)}, {arguments.device}"
    )
    print(f"ours {mine:.3f} s   straightforward {other:.3f} s   median ratio {ratio:.1f}")
    if arguments.json is not None:
        found = {"rays": arguments.rays, "samples": arguments.samples, "device": arguments.device}
        figures = {"ours_seconds": mine, "straightforward_seconds": other, "ratio": ratio}
        arguments.json.write_text(json.dumps(found | figures, indent=1) + "\n")


def _interval(renderer: Renderer, setting: Setting) -> Interval:
    return Interval(*renderer._limits(setting.volume, setting.rays))


if __name__ == "__main__":
    main()
