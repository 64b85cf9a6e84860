"""Slow and dense twins of sparse convolution, and voxels to try them on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ponderv2.sparse.kernel_maps import Level, sorted_level

SIZE = 7


def random_voxels(
    rng: torch.Generator, n_scenes: int = 2, density: float = 0.3, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """Shuffled (grid_coord, scene) of a random share of a small grid."""
    occupied = torch.rand(n_scenes, size, size, size, generator=rng) < density
    index = occupied.nonzero()
    index = index[torch.randperm(len(index), generator=rng)]
    return index[:, 1:].contiguous(), index[:, 0].contiguous()


def random_level(rng: torch.Generator, **settings) -> Level:
    """The same, sorted; the grid has 7 voxels along each axis, an odd number."""
    grid_coord, scene = random_voxels(rng, **settings)
    indices = sorted_level(grid_coord, scene, settings.get("n_scenes", 2))[0].indices
    return Level(indices, (SIZE, SIZE, SIZE), settings.get("n_scenes", 2))


def to_dense(feature: Tensor, level: Level) -> Tensor:
    """[scene, channel, x, y, z] with zeros where there is no voxel."""
    scene, x, y, z = level.indices.unbind(1)
    dense = feature.new_zeros(level.n_scenes, *level.extent, feature.shape[1])
    return dense.index_put((scene, x, y, z), feature).permute(0, 4, 1, 2, 3)


def from_dense(dense: Tensor, level: Level) -> Tensor:
    scene, x, y, z = level.indices.unbind(1)
    return dense.permute(0, 2, 3, 4, 1)[scene, x, y, z]


def dense_submanifold(feature: Tensor, weight: Tensor, level: Level) -> Tensor:
    kernel = weight.permute(0, 4, 1, 2, 3)
    padding = [k // 2 for k in weight.shape[1:4]]
    return from_dense(functional.conv3d(to_dense(feature, level), kernel, padding=padding), level)


def dense_strided(feature: Tensor, weight: Tensor, stride: int, level: Level, coarse: Level) -> Tensor:
    dense = functional.conv3d(to_dense(feature, level), weight.permute(0, 4, 1, 2, 3), stride=stride)
    return from_dense(dense, coarse)


def dense_inverse(feature: Tensor, weight: Tensor, stride: int, level: Level, coarse: Level) -> Tensor:
    kernel = weight.permute(4, 0, 1, 2, 3)
    dense = functional.conv_transpose3d(to_dense(feature, coarse), kernel, stride=stride)
    missing = [e - d for e, d in zip(level.extent, dense.shape[2:], strict=True)]
    dense = functional.pad(dense, (0, missing[2], 0, missing[1], 0, missing[0]))
    return from_dense(dense, level)


def looped_submanifold(feature: Tensor, weight: Tensor, level: Level) -> Tensor:
    """One voxel, one kernel entry at a time, from the definition."""
    row_of = {tuple(index): row for row, index in enumerate(level.indices.tolist())}
    size = weight.shape[1:4]
    result = feature.new_zeros(len(feature), weight.shape[0])
    for row, (scene, *position) in enumerate(level.indices.tolist()):
        for entry in torch.cartesian_prod(*[torch.arange(k) for k in size]).view(-1, 3).tolist():
            there = [p + e - k // 2 for p, e, k in zip(position, entry, size, strict=True)]
            other = row_of.get((scene, *there))
            if other is not None:
                result[row] += weight[:, entry[0], entry[1], entry[2]] @ feature[other]
    return result
