"""Sparse convolution beside spconv's CPU build, dense convolution and the textbook form, in one run.

Run: python -m benchmarks.sparse_convolution [--json FILE] [--threads 2] [--repeats 5] [--parts alternatives]

`alternatives` compares 3x3x3 layers on one thread, by CPU time (what others do on the machine counts little):
spconv's CPU build, where it is installed, with its native algorithm, the only one that it has there and wrong
with more threads; dense convolution where it fits. `textbook` compares layers with per-entry `index_add`, and
times whole networks, with `--threads`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import side_by_side
from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.encoder.kinds import build_encoder
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.sparse import gather_gemm_scatter as by_entry
from ponderv2.sparse import torch_backend
from ponderv2.sparse.kernel_maps import KernelMap, Level, sorted_level

CASES = [
    ("stem 5^3, 6 -> 32", 18_000, 5, 6, 32),
    ("3^3, 24 -> 24", 18_000, 3, 24, 24),
    ("3^3, 32 -> 32", 18_000, 3, 32, 32),
    ("3^3, 96 -> 96", 18_000, 3, 96, 96),
    ("3^3, 32 -> 32", 50_000, 3, 32, 32),
]
NETWORKS = [
    ("SpUNet, full width", 20_000, SparseUNetConfig()),
    (
        "SpUNet, 24-32-48-64, one block",
        18_000,
        SparseUNetConfig(base_channels=24, channels=(24, 32, 48, 64, 64, 48, 32, 24), layers=(1,) * 8),
    ),
]
PARTS = ("alternatives", "textbook")
ALTERNATIVES = [
    (10_000, 16),
    (10_000, 64),
    (10_000, 256),
    (50_000, 32),
    (50_000, 96),
    (200_000, 16),
    (200_000, 64),
]
"""Voxels and channels; 200,000 voxels of 256 channels would take half an hour."""
DENSE_NUMBERS = 64 * 10**6
"""The largest volume that is convolved densely."""


def room_voxels(n: int, seed: int = 0) -> Tensor:
    """About n voxels on the floor, walls and boxes of a room, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    edge = int((n / 4.2) ** 0.5)
    height = edge // 2
    box = torch.randint(0, edge - edge // 4, (8, 2), generator=generator)
    side = edge // 6

    def patch(x: range, y: range, z: range) -> Tensor:
        return torch.cartesian_prod(*[torch.tensor(list(axis)) for axis in (x, y, z)]).view(-1, 3)

    whole, tall, one = range(edge), range(height), range(1)
    parts = [patch(whole, whole, one), patch(one, whole, tall), patch(whole, one, tall)]
    parts += [patch(range(edge - 1, edge), whole, tall), patch(whole, range(edge - 1, edge), tall)]
    for x, y in box.tolist():
        xs, ys, top = range(x, x + side), range(y, y + side), range(side, side + 1)
        parts += [
            patch(xs, ys, top),
            patch(range(x, x + 1), ys, range(side)),
            patch(xs, range(y, y + 1), range(side)),
        ]
    voxels = torch.unique(torch.cat(parts), dim=0)
    return voxels[torch.randperm(len(voxels), generator=generator)]


def naive(feature: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """For every kernel entry: gather, multiply, add; gradients by autograd."""
    entries = weight.flatten(1, 3).permute(1, 2, 0)
    result = feature.new_zeros(kernel_map.n_out, weight.shape[0])
    for block in kernel_map.blocks(kernel_map.n_out):
        for entry, inputs, outputs, _ in block.meetings(block.inputs):
            result = result.index_add(0, outputs, feature[inputs] @ entries[entry])
    return result


def compare_layers(repeats: int) -> list[dict[str, Any]]:
    """Forward and backward of single layers."""
    found = []
    for name, n, kernel, n_in, n_out in CASES:
        coord = room_voxels(n)
        level = sorted_level(coord, torch.zeros(len(coord), dtype=torch.long), 1, pad=96)[0]
        kernel_map = level.submanifold(kernel)
        feature = torch.randn(len(level), n_in, requires_grad=kernel == 3)
        weight = torch.randn(n_out, kernel, kernel, kernel, n_in, requires_grad=True)

        def ours(feature: Tensor = feature, weight: Tensor = weight, level: Level = level) -> None:
            torch_backend.submanifold(feature, weight, level).sum().backward()

        def textbook(
            feature: Tensor = feature, weight: Tensor = weight, kernel_map: KernelMap = kernel_map
        ) -> None:
            naive(feature, weight, kernel_map).sum().backward()

        mine, other = side_by_side([ours, textbook], repeats)
        ratio = median(b / a for a, b in zip(mine, other, strict=True))
        found.append({"layer": name, "voxels": len(level), "seconds": median(mine), "textbook_ratio": ratio})
        print(
            f"{name:20} {len(level):6} voxels: {1e3 * median(mine):8.1f} ms, textbook form takes {ratio:.2f}x"
        )
    return found


def compare_alternatives(repeats: int) -> list[dict[str, Any]]:
    """Forward, backward and kernel map of single layers on one thread, median CPU seconds of each way."""
    torch.set_num_threads(1)
    found = []
    for n, channels in ALTERNATIVES:
        coord = room_voxels(n)
        level = sorted_level(coord, torch.zeros(len(coord), dtype=torch.long), 1)[0]
        runs = _ours(level, channels) | _dense(level, channels)
        if find_spec("spconv") is not None:
            runs |= _spconv(level, channels)
        for run in runs.values():
            run()
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                start = process_time()
                run()
                seconds[name].append(process_time() - start)
        row: dict[str, Any] = {"voxels": len(level), "channels": channels}
        row |= {name: median(values) for name, values in seconds.items()}
        found.append(row)
        print(_alternatives_line(row), flush=True)
    return found


def _alternatives_line(row: dict[str, Any]) -> str:
    line = f"{row['voxels']:7} voxels {row['channels']:4} channels:"
    for kind in ("map", "forward", "forward and backward"):
        line += f"  {kind} {1e3 * row['ours ' + kind]:.0f} ms"
        for other in ("spconv", "dense"):
            if f"{other} {kind}" in row:
                line += f" ({other} {row[f'{other} {kind}'] / row['ours ' + kind]:.2f}x)"
    return line


def _ours(level: Level, channels: int) -> dict[str, Callable[[], Any]]:
    feature = torch.randn(len(level), channels, requires_grad=True)
    weight = torch.randn(channels, 3, 3, 3, channels, requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            torch_backend.submanifold(feature, weight, level)

    def both() -> None:
        torch_backend.submanifold(feature, weight, level).sum().backward()

    def build() -> None:
        fresh = Level(level.indices, level.extent, level.n_scenes)
        fresh.submanifold(3).blocks(by_entry.block_rows(feature.device, channels))

    return {"ours forward": forward, "ours forward and backward": both, "ours map": build}


def _dense(level: Level, channels: int) -> dict[str, Callable[[], Any]]:
    """Nothing where the volume is too large to be worth waiting for."""
    if channels * prod(level.extent) > DENSE_NUMBERS:
        return {}
    volume = torch.randn(1, channels, *level.extent).to(memory_format=torch.channels_last_3d).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, 3, requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            torch.nn.functional.conv3d(volume, weight, padding=1)

    def both() -> None:
        torch.nn.functional.conv3d(volume, weight, padding=1).sum().backward()

    return {"dense forward": forward, "dense forward and backward": both}


def _spconv(level: Level, channels: int) -> dict[str, Callable[[], Any]]:
    import spconv.pytorch as spconv
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    ops.get_current_stream = lambda: (
        0
    )  # its backward pass asks for a CUDA stream, also where there is no CUDA
    layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="level", algo=ConvAlgo.Native)
    indices, extent = level.indices.int().contiguous(), list(level.extent)
    feature = torch.randn(len(level), channels, requires_grad=True)
    template = spconv.SparseConvTensor(feature.detach(), indices, extent, 1)
    with torch.no_grad():
        layer(template)

    def forward() -> None:
        with torch.no_grad():
            layer(template.replace_feature(feature))

    def both() -> None:
        layer(template.replace_feature(feature)).features.sum().backward()

    def build() -> None:
        ones = [1, 1, 1]
        ops.get_indice_pairs(
            indices, 1, extent, ConvAlgo.Native, [3, 3, 3], ones, ones, ones, [0, 0, 0], subm=True
        )

    return {"spconv forward": forward, "spconv forward and backward": both, "spconv map": build}


def time_networks(repeats: int) -> list[dict[str, Any]]:
    """A training step of whole networks, kernel maps included, beside one matrix product as a yardstick."""
    matrix, found = torch.randn(2048, 2048), []
    for name, n, config in NETWORKS:
        coord = room_voxels(n)
        zeros = torch.zeros(len(coord), dtype=torch.long)
        model = build_encoder(config)
        voxels = SparseVoxels(torch.randn(len(coord), 6), coord, zeros, 1)

        def step(model: torch.nn.Module = model, voxels: SparseVoxels = voxels) -> None:
            model.rows(voxels).square().mean().backward()

        mine, product = side_by_side([step, lambda: matrix @ matrix], repeats)  # type: ignore[list-item]
        ratio = median(a / b for a, b in zip(mine, product, strict=True))
        found.append({"network": name, "voxels": len(coord), "seconds": median(mine), "products": ratio})
        print(
            f"{name}: forward and backward of {len(coord)} voxels {median(mine):.2f} s, "
            f"{ratio:.0f} products of 2048x2048 matrices"
        )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of the textbook comparison")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"about": {"torch": torch.__version__, "repeats": arguments.repeats}}
    if "alternatives" in arguments.parts:
        result["alternatives"] = compare_alternatives(arguments.repeats)
    if "textbook" in arguments.parts:
        torch.set_num_threads(arguments.threads)
        result["about"]["threads"] = arguments.threads
        result["textbook"] = compare_layers(arguments.repeats)
        result["networks"] = time_networks(arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
