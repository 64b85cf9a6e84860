"""An image of 640 x 480 pixels beside the plain way: every ray of it, one view at a time, with autograd.

Run: `python -m benchmarks.image_rendering [--chunks 5] [--threads 1] [--whole] [--json FILE]`

Published width: a volume of 128 x 128 x 32 cells and 128 channels, 96 even and 36 importance samples a ray.
The plain way is how the published renderer does it: `grid_sample` in every lookup, the gradient of the
distance by autograd, all samples looked up again after the importance samples were placed, colour (and the
512 channels of semantics) decoded for every sample before compositing. `before` is our differentiable
renderer without gradients, which made images before `renderer/baked_field.py` did. Chunks of 512
neighbouring pixels, spread over the image, are rendered in turns; times are those of this process'
processors. With --whole our image is made completely, too; the plain one is estimated from its chunks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.rays import RayBundle, rays_through_pixels
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.reconstruction.scene_field import ModelField, render_camera
from ponderv2.renderer.config import BoxLimitsConfig, NeusSamplerConfig, RendererConfig
from ponderv2.renderer.renderer import Renderer
from ponderv2.renderer.sampling import Interval, neus_samples
from tests.renderer import textbook

Picture = TypeVar("Picture")

WIDTH, HEIGHT, FOCAL = 640, 480, 577.0
CHUNK = 512


@dataclass(frozen=True)
class Setting:
    renderer: Renderer
    volume: FeatureVolume
    camera: Camera


def build(n_semantic: int, grid: tuple[int, int, int] = (32, 128, 128)) -> Setting:
    """A smooth random volume seen from inside; a network with first weights."""
    torch.manual_seed(0)
    renderer = Renderer(RendererConfig(limits=BoxLimitsConfig()), n_channels=128, n_semantic=n_semantic)
    values = F.interpolate(torch.randn(1, 128, 8, 16, 16), grid, mode="trilinear")
    box = torch.full((1, 3), 0.55)
    lens = torch.tensor([[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]])
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.05, 0.02, 0.45])
    return Setting(renderer.eval(), FeatureVolume(values, -box, box), Camera(lens, pose, WIDTH, HEIGHT))


def rays_of(camera: Camera, index: Tensor) -> RayBundle:
    """Through the pixels of these numbers."""
    pixel = torch.stack([index % camera.width, index // camera.width], dim=-1).float()
    first = torch.zeros(len(index), dtype=torch.int64)
    made = rays_through_pixels(pixel, first, camera.intrinsics[None], camera.world_to_camera[None], first[:1])
    return made.rays


def plain(setting: Setting, rays: RayBundle) -> textbook.TextbookOutput:
    """As published."""
    renderer, volume = setting.renderer, setting.volume
    config = renderer.config.sampler
    assert isinstance(config, NeusSamplerConfig)

    def sdf_at(starts: Tensor) -> Tensor:
        points = (rays.origins[:, None] + rays.directions[:, None] * starts[..., None]).reshape(-1, 3)
        unit = (points - volume.lower[0]) / (volume.upper - volume.lower)[0]
        scene = torch.zeros(len(points), dtype=torch.long)
        feature = textbook.sample_volume(volume.values, unit, scene, volume.corners_are_centres)
        decoder = renderer.field.sdf_decoder
        found = textbook.decode(decoder, feature[:, : renderer.field.n_features], unit, nn.Softplus(100))
        return found[:, 0].view_as(starts)

    with torch.no_grad():
        samples = neus_samples(config, Interval(*renderer._limits(volume, rays)), None, sdf_at)
    return textbook.render(renderer, volume, rays, samples.starts, samples.steps)


def before(setting: Setting, rays: RayBundle) -> Tensor:
    """The differentiable renderer, asked for no gradients."""
    with torch.no_grad():
        return setting.renderer(setting.volume, rays).color


def timed(work: Callable[[], Picture]) -> tuple[float, Picture]:
    """Processor seconds, and what was made."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def compare(setting: Setting, n_chunks: int) -> dict[str, float]:
    """Medians per chunk and of the ratios, and how far apart the images are."""
    preparation, baked = timed(lambda: setting.renderer.bake(setting.volume))
    n_pixels = WIDTH * HEIGHT
    starts = torch.linspace(0.1, 0.9, n_chunks + 1).mul(n_pixels).long().tolist()
    rows, color, distance = [], 0.0, 0.0
    for turn, start in enumerate(starts):
        rays = rays_of(setting.camera, torch.arange(start, start + CHUNK))
        slow, expected = timed(lambda rays=rays: plain(setting, rays))
        old, _ = timed(lambda rays=rays: before(setting, rays))
        fast, found = timed(lambda rays=rays: setting.renderer.render(baked, rays, CHUNK))
        if turn:  # the first round is slower
            rows.append((slow, old, fast))
        color = max(color, float((expected.color - found.color).detach().abs().max()))
        distance = max(distance, float((expected.distance - found.distance).detach().abs().max()))
    slow, old, fast = (median(column) for column in zip(*rows, strict=True))
    whole = n_pixels / CHUNK
    return {
        "plain_seconds_per_picture_estimated": slow * whole,
        "before_seconds_per_picture_estimated": old * whole,
        "ours_seconds_per_picture_estimated": fast * whole,
        "ours_seconds_of_preparation": preparation,
        "ratio": median(row[0] / row[2] for row in rows),
        "ratio_before": median(row[1] / row[2] for row in rows),
        "largest_color_difference": color,
        "largest_distance_difference": distance,
    }


def whole_picture(setting: Setting) -> dict[str, float]:
    """What `ponder render` does of it: all rays, without the encoder and the files."""
    field = ModelField(setting.renderer, setting.volume, torch.eye(4))
    start, wall = time.process_time(), time.perf_counter()
    render_camera(field, setting.camera, 4096)
    return {
        "whole_picture_processor_seconds": time.process_time() - start,
        "whole_picture_wall_seconds": time.perf_counter() - wall,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=5, help="measured, beside one that is not counted")
    parser.add_argument("--semantic", type=int, nargs="*", default=[0, 512], help="channels of semantics")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="also our complete image")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    figures: dict[str, dict[str, float]] = {}
    for n_semantic in options.semantic:
        setting = build(n_semantic)
        found = compare(setting, options.chunks)
        if options.whole:
            found |= whole_picture(setting)
        name = f"{WIDTH} x {HEIGHT}, {n_semantic} channels of semantics"
        figures[name] = found
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
