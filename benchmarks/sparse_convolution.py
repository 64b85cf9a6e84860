"""How much faster sparse convolution is than its textbook form: both in one run, median ratio of pairs.

Run: python benchmarks/sparse_convolution.py [--threads 2] [--repeats 5]
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor

from benchmarks.timing import side_by_side
from ponderv2.encoder.build import build_encoder
from ponderv2.encoder.config import SparseUNetConfig
from ponderv2.geometry.voxels import SparseVoxels
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
        for entry, output, row in block.meetings:
            result = result.index_add(0, output, feature[row] @ entries[entry])
    return result


def compare_layers(repeats: int) -> None:
    """Forward and backward of single layers."""
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
        print(
            f"{name:20} {len(level):6} voxels: {1e3 * median(mine):8.1f} ms, textbook form takes {ratio:.2f}x"
        )


def compare_with_spconv(repeats: int) -> None:
    """Forward only and on one thread: spconv's CPU build is wrong with more, and has no backward there."""
    import spconv.pytorch as spconv

    torch.set_num_threads(1)
    coord = room_voxels(18_000)
    level = sorted_level(coord, torch.zeros(len(coord), dtype=torch.long), 1, pad=96)[0]
    feature = torch.randn(len(level), 32)
    layer = spconv.SubMConv3d(32, 32, 3, bias=False, indice_key="level")
    voxels = spconv.SparseConvTensor(feature, level.indices.int().contiguous(), list(level.extent), 1)
    with torch.no_grad():
        runs = [lambda: torch_backend.submanifold(feature, layer.weight, level), lambda: layer(voxels)]
        mine, other = side_by_side(runs, repeats)  # type: ignore[arg-type]
    ratio = median(b / a for a, b in zip(mine, other, strict=True))
    print(f"forward 3^3, 32 -> 32, one thread: spconv takes {ratio:.2f}x of {1e3 * median(mine):.1f} ms")


def time_networks(repeats: int) -> None:
    """A training step of whole networks, kernel maps included, beside one matrix product as a yardstick."""
    matrix = torch.randn(2048, 2048)
    for name, n, config in NETWORKS:
        coord = room_voxels(n)
        zeros = torch.zeros(len(coord), dtype=torch.long)
        model = build_encoder(config)
        voxels = SparseVoxels(torch.randn(len(coord), 6), coord, zeros, 1)

        def step(model: torch.nn.Module = model, voxels: SparseVoxels = voxels) -> None:
            model(voxels).square().mean().backward()

        mine, product = side_by_side([step, lambda: matrix @ matrix], repeats)  # type: ignore[list-item]
        ratio = median(a / b for a, b in zip(mine, product, strict=True))
        print(
            f"{name}: forward and backward of {len(coord)} voxels {median(mine):.2f} s, "
            f"{ratio:.0f} products of 2048x2048 matrices"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    compare_layers(arguments.repeats)
    time_networks(arguments.repeats)
    if find_spec("spconv") is not None:
        compare_with_spconv(arguments.repeats)


if __name__ == "__main__":
    main()
