"""A mesh out of a field beside the plain way: all points of a dense grid, then marching cubes in one go.

Run from the project's root: `python -m benchmarks.mesh_extraction [--resolutions 64 128] [--repeats 5]`

The field is a volume of 128 channels at the published width of the decoder. `ours` goes block by block; with
`cropped` the blocks far from the cloud are skipped, as `ponder reconstruct` does. The plain way looks up the
whole grid with `grid_sample`, 65,536 points at a time, and gives it to scikit-image. Times are those of this
process' processors, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ponderv2.geometry.meshes import Mesh
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.reconstruction.marching_cubes import Lattice, extract_surface
from ponderv2.reconstruction.scene_field import ModelField
from ponderv2.renderer.config import RendererConfig
from ponderv2.renderer.renderer import Renderer
from tests.renderer import textbook

RADIUS = 0.3


def ball_field(grid: tuple[int, int, int] = (32, 64, 64)) -> ModelField:
    """The distance to a ball in one channel, noise in the others, which the decoder hardly listens to."""
    torch.manual_seed(0)
    renderer = Renderer(RendererConfig(), n_channels=128).eval()
    axes = [(torch.arange(n) + 0.5) / n - 0.5 for n in grid]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    values = 0.01 * torch.randn(1, 128, *grid)
    values[0, 0] = (x.square() + y.square() + z.square()).sqrt() - RADIUS
    decoder = renderer.field.sdf_decoder
    with torch.no_grad():
        last = decoder.get_submodule(f"lin{decoder.n_layers - 1}")
        inject = decoder.fc_c[-1]
        assert isinstance(last, nn.Linear) and isinstance(inject, nn.Linear)
        last.weight[0] *= 0.01
        last.bias[0] = 0.0
        pull = torch.zeros_like(inject.weight[:, 0])
        pull[0] = 1.0
        inject.weight[:, 0] = pull
        last.weight[0, 0] = 1.0
    box = torch.full((1, 3), 0.5)
    return ModelField(renderer, FeatureVolume(values, -box, box), torch.eye(4))


@torch.no_grad()
def plain(field: ModelField, lattice: Lattice) -> Mesh:
    """Every point, then one call."""
    from skimage.measure import marching_cubes

    decoder, volume = field.renderer.field.sdf_decoder, field.volume
    points = lattice.points((0, 0, 0), tuple(n - 1 for n in lattice.size))
    parts: list[Tensor] = []
    for part in points.split(65536):
        unit = (part - volume.lower[0]) / (volume.upper - volume.lower)[0]
        scene = torch.zeros(len(part), dtype=torch.long)
        feature = textbook.sample_volume(volume.values, unit, scene, False)[:, :64]
        parts.append(textbook.decode(decoder, feature, unit, nn.Softplus(100))[:, 0])
    grid = torch.cat(parts).view(lattice.size).numpy()
    vertices, faces, _, _ = marching_cubes(grid, 0.0, gradient_direction="descent")
    place = lattice.lower + lattice.cell * torch.from_numpy(vertices.copy())
    return Mesh(place.float(), torch.from_numpy(faces.astype("int64")))


@torch.no_grad()
def ours(field: ModelField, lattice: Lattice, cropped: bool) -> Mesh:
    """Block by block."""

    def near_ball(lower: Tensor, upper: Tensor) -> bool:
        nearest = torch.zeros(3).clamp(min=lower - 0.05, max=upper + 0.05).norm()
        farthest = torch.maximum(lower.abs(), upper.abs()).norm() + 0.05
        return bool(nearest < RADIUS < farthest)

    return extract_surface(field.signed_distance, lattice, block=32, occupied=near_ball if cropped else None)


def seconds(work: Callable[[], Mesh]) -> tuple[float, Mesh]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolutions", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    field, results = ball_field(), []
    for resolution in options.resolutions:
        lattice = Lattice.covering(field.lower, field.upper, 1.0 / resolution)
        times: list[list[float]] = []
        for turn in range(options.repeats + 1):
            (slow, expected), (whole, found), (fast, cropped) = (
                seconds(lambda: plain(field, lattice)),  # noqa: B023
                seconds(lambda: ours(field, lattice, False)),  # noqa: B023
                seconds(lambda: ours(field, lattice, True)),  # noqa: B023
            )
            for made in (found, cropped):  # blocks drop faces without area
                if abs(len(made.faces) - len(expected.faces)) > 1e-3 * len(expected.faces):
                    raise SystemExit(f"{len(made.faces)} faces, the plain way {len(expected.faces)}")
            if turn:
                times.append([slow, whole, fast])
        slow, whole, fast = (median(column) for column in zip(*times, strict=True))
        row = {
            "cells along an edge": resolution,
            "faces": len(expected.faces),
            "plain_seconds": slow,
            "ours_seconds": whole,
            "ours_cropped_seconds": fast,
            "ratio": median(row[0] / row[1] for row in times),
            "ratio_cropped": median(row[0] / row[2] for row in times),
        }
        results.append(row)
        print(", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
