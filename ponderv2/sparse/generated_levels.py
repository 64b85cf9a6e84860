"""Levels that a network makes itself: voxels divided into eight, voxels pruned, levels compared.

Children of voxel q are 2 q + k with k in {0, 1}^3, numbered as kernel entries are: the last axis fastest.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.sparse.kernel_maps import Level, Triple, triple, voxel_keys

CHILDREN = tuple(product((0, 1), repeat=3))
"""Where the children of a voxel are, in voxels of their own size."""


def children(level: Level) -> tuple[Level, Int[Tensor, " child"]]:
    """All eight children of every voxel, and `order`: row i of their level is child `order[i] % 8` of the
    voxel in row `order[i] // 8`. Their grid is twice as large."""
    if "children" not in level.cache:
        step = torch.tensor(CHILDREN, dtype=level.indices.dtype, device=level.indices.device)
        position = (2 * level.indices[:, None, 1:] + step).flatten(0, 1)
        indices = torch.cat([level.indices[:, :1].repeat_interleave(len(step), dim=0), position], dim=1)
        extent = triple([2 * e for e in level.extent])
        order = voxel_keys(indices, extent, level.n_scenes).argsort()
        level.cache["children"] = (Level(indices[order], extent, level.n_scenes), order)
    return level.cache["children"]


def pruned(level: Level, keep: Bool[Tensor, " voxel"]) -> Level:
    """The voxels to keep, in the same order and the same grid."""
    return Level(level.indices[keep], level.extent, level.n_scenes)


def rows_at(level: Level, wanted: Level) -> Int[Tensor, " wanted"]:
    """Row of `level` that holds each voxel of `wanted`; -1 where there is none."""
    if len(level) == 0:
        return torch.full((len(wanted),), -1, device=wanted.indices.device)
    extent = _common(level.extent, wanted.extent)
    n_scenes = max(level.n_scenes, wanted.n_scenes)
    keys = voxel_keys(level.indices, extent, n_scenes)
    looked_for = voxel_keys(wanted.indices, extent, n_scenes)
    row = torch.searchsorted(keys, looked_for).clamp(max=len(keys) - 1)
    return torch.where(keys[row] == looked_for, row, -1)


def interpolated_at_children(
    value: Float[Tensor, "voxel channel"], level: Level
) -> Float[Tensor, "child channel"]:
    """Trilinear interpolation of voxel centres at the centres of the children, in the order of their level.

    Only occupied voxels count: the weights of those that exist, always that of the parent, are scaled to 1.
    """
    order = children(level)[1]
    table = level.submanifold(3).table
    there = torch.cat([value.new_ones(len(value), 1), value.new_zeros(1, 1)])
    padded = torch.cat([value, value.new_zeros(1, value.shape[1])])
    found = []
    for child in CHILDREN:
        # A centre of a child lies 1/4 of a voxel off that of its parent.
        entries = [(1 + (2 * c - 1) * far, 0.25 if far else 0.75) for c in child for far in (0, 1)]
        pairs = [entries[2 * axis : 2 * axis + 2] for axis in range(3)]
        total, weights = torch.zeros_like(value), value.new_zeros(len(value), 1)
        for (x, along_x), (y, along_y), (z, along_z) in product(*pairs):
            row, weight = table[:, (x * 3 + y) * 3 + z], along_x * along_y * along_z
            total = total + weight * padded.index_select(0, row)
            weights = weights + weight * there.index_select(0, row)
        found.append(total / weights)
    return torch.stack(found, dim=1).flatten(0, 1)[order]


def _common(one: Triple, other: Triple) -> Triple:
    return triple([max(a, b) for a, b in zip(one, other, strict=True)])
