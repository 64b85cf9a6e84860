"""Occupied voxels of a batch of scenes, with one feature vector each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SparseVoxels:
    """Occupied voxels, scenes concatenated. Voxel order is arbitrary and preserved by encoders."""

    feature: Float[Tensor, "voxel channel"]
    grid_coord: Int[Tensor, "voxel 3"]
    """Voxel index (x, y, z), not negative."""
    scene: Int[Tensor, " voxel"]
    """Which scene of the batch the voxel belongs to."""
    n_scenes: int


def batch_index(offset: Int[Tensor, " scene"]) -> Int[Tensor, " point"]:
    """Scene number of every point, from the exclusive ends of the scenes."""
    counts = torch.diff(offset, prepend=offset.new_zeros(1))
    return torch.repeat_interleave(torch.arange(len(offset), device=offset.device), counts)
