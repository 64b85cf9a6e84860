"""Features of points averaged over the cells of a grid, and where its cells are in the scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.segments import segment_mean
from ponderv2.geometry.voxels import batch_index
from ponderv2.sparse.kernel_maps import Level, triple, voxel_keys


@dataclass(frozen=True)
class CellGrid:
    """Where the cells of the scenes of a batch are: multiples of the cell in the frame of each scene."""

    cell: float
    """Metres, of the finest level."""
    lower: Int[Tensor, "scene 3"]
    """Cell (0, 0, 0) of each scene, in cells from the origin of the scene."""

    def centers(self, level: Level, step: int) -> Float[Tensor, "voxel 3"]:
        """Of the cells of a level whose edges are `step` cells; metres, in the frames of the scenes."""
        position = level.indices[:, 1:] * step + self.lower[level.indices[:, 0]]
        return ((position.double() + step / 2) * self.cell).float()


def pooled_cells(
    features: PointFeatures, cell: float, n_levels: int
) -> tuple[Float[Tensor, "voxel channel"], Level, CellGrid]:
    """Mean feature of the points of each cell that has any, in the order of the level.

    Grids begin at, and are as large as, multiples of the coarsest of `n_levels` levels, each of which doubles
    the cells: no point is lost on the way, and a scene has the same cells in any batch.
    """
    scene, coarsest = batch_index(features.offset), 2 ** (n_levels - 1)
    position = torch.floor(features.coord.detach().double() / cell).long()
    far = torch.iinfo(torch.long).max
    lower = position.new_full((features.n_scenes, 3), far)
    lower = lower.scatter_reduce(0, scene[:, None].expand(-1, 3), position, "amin")
    lower = torch.where(lower == far, 0, lower.div(coarsest, rounding_mode="floor") * coarsest)
    index = torch.cat([scene[:, None], position - lower[scene]], dim=1)
    extent = (1, 1, 1) if len(index) == 0 else [int(high) + 1 for high in index[:, 1:].amax(0).tolist()]
    extent = triple([-(-e // coarsest) * coarsest for e in extent])
    keys, order = voxel_keys(index, extent, features.n_scenes).sort(stable=True)
    _, counts = torch.unique_consecutive(keys, return_counts=True)
    first = counts.cumsum(0) - counts
    level = Level(index[order[first]], extent, features.n_scenes)
    return segment_mean(features.feature[order], counts), level, CellGrid(cell, lower)
