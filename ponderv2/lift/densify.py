"""Point features averaged into the cells of a volume, all scenes of a batch at once.

Two rules: the corrected one puts a point into the cell that contains it; the published one
(`align_with_sampling: false`) spreads the scene over all cells although the volume is read as if it
covered a cube that is a tenth larger, so a point is stored up to six cells away from where it is read.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponderv2.geometry.features import Features, PointFeatures
from ponderv2.geometry.segments import segment_mean
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import DensifyConfig
from ponderv2.lift.volume_frame import WIDENING, VolumeFrame, bounds_of_scenes

PUBLISHED_EXTRA = 0.001
"""The published lookup divides positions by 1 + padding + this."""


class Densify(nn.Module):
    """Features of points to a volume; it learns nothing."""

    def __init__(self, config: DensifyConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, features: Features, frame: VolumeFrame) -> SparseVolume:
        """The mean feature per cell that holds a point; differentiable in the features only.

        Sums are in float32 or better and in a fixed order. Points outside the volume (possible with a fixed
        range) are left out. Raises ValueError for features of images.
        """
        if not isinstance(features, PointFeatures):
            raise ValueError("features of points are densified, those of images are not")
        scene = batch_index(features.offset)
        with torch.no_grad():
            position = frame.to_volume(features.coord, scene)
        rule = _aligned if self.config.align_with_sampling else _published
        return rule(features.feature, position, scene, frame, self.config)


def _aligned(
    feature: Tensor,
    position: Float[Tensor, "point 3"],
    scene: Tensor,
    frame: VolumeFrame,
    config: DensifyConfig,
) -> SparseVolume:
    lower, upper = frame.lower.to(position.dtype), frame.upper.to(position.dtype)
    shape = torch.tensor(frame.cells, device=position.device)
    fraction = (position - lower[scene]) / (upper - lower)[scene]
    inside = ((fraction >= 0) & (fraction <= 1)).all(1)
    cell = torch.minimum((fraction * shape).floor().long(), shape - 1)
    keep = inside.nonzero()[:, 0]
    volume = _mean_cells(feature[keep], cell[keep], scene[keep], len(lower), frame.cells)
    corners_are_centres = config.corners_are_centres
    return replace(volume, lower=lower, upper=upper, corners_are_centres=corners_are_centres)


def _published(
    feature: Tensor,
    position: Float[Tensor, "point 3"],
    scene: Tensor,
    frame: VolumeFrame,
    config: DensifyConfig,
) -> SparseVolume:
    """Cells of `grid_size`, then groups of them per axis; small scenes are enlarged by interpolation."""
    n_scenes = len(frame.scale)
    limit = 0.5 - WIDENING
    position = position.clamp(-limit, limit)
    edge = 1.0 / frame.scale
    fine = ((position + 0.5) * edge[scene, None]).div(config.grid_size, rounding_mode="floor").long()
    resolution = _published_resolution(position, scene, edge, config.grid_size)
    shape = torch.tensor(frame.cells, device=position.device)
    small = resolution < min(frame.cells)
    cell = fine.div(resolution[scene, None].to(position.dtype) / shape, rounding_mode="floor").long()
    # With a fixed cube_size points may lie outside the cube; they were clipped onto its faces.
    cell = torch.minimum(cell, shape - 1)
    keep = (~small[scene]).nonzero()[:, 0]
    cells = _mean_cells(feature[keep], cell[keep], scene[keep], n_scenes, frame.cells)
    if bool(small.any()):
        values = cells.dense() + _enlarged(feature, fine, scene, resolution, small, frame.cells)
        rows = values.permute(0, 2, 3, 4, 1).reshape(cells.n_cells, -1)
        cells = replace(cells, rows=rows, number=torch.arange(cells.n_cells, device=rows.device))
    half = (frame.upper + PUBLISHED_EXTRA / 2).to(position.dtype)
    return replace(cells, lower=-half, upper=half, corners_are_centres=True)


def _published_resolution(
    position: Float[Tensor, "point 3"], scene: Tensor, edge: Float[Tensor, " scene"], grid_size: float
) -> Int[Tensor, " scene"]:
    """Largest extent in cells of `grid_size`, plus two."""
    lowest, highest = bounds_of_scenes(position, scene, len(edge))
    first = ((lowest - WIDENING + 0.5) * edge[:, None]).div(grid_size, rounding_mode="floor")
    last = ((highest + WIDENING + 0.5) * edge[:, None]).div(grid_size, rounding_mode="floor")
    return (last - first).amax(1).long() + 2


def _mean_cells(
    feature: Float[Tensor, "point channel"],
    cell: Int[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    n_scenes: int,
    shape: tuple[int, int, int],
) -> SparseVolume:
    """The occupied cells; the caller sets the boxes."""
    x, y, z = cell.unbind(1)
    number, rows = mean_per_cell(feature, ((scene * shape[2] + z) * shape[1] + y) * shape[0] + x)
    nowhere = torch.zeros(n_scenes, 3, device=feature.device)
    return SparseVolume(rows, number, (n_scenes, shape[2], shape[1], shape[0]), nowhere, nowhere)


def mean_per_cell(
    feature: Float[Tensor, "point channel"], cell: Int[Tensor, " point"]
) -> tuple[Int[Tensor, " cell"], Float[Tensor, "cell channel"]]:
    """Number of each cell that occurs, ascending, and its mean feature; the same bits at every run."""
    number, order = cell.sort(stable=True)
    occupied, counts = torch.unique_consecutive(number, return_counts=True)
    members = feature.index_select(0, order)
    wide = members.to(torch.promote_types(feature.dtype, torch.float32))
    return occupied, segment_mean(wide, counts).to(feature.dtype)


def _enlarged(
    feature: Float[Tensor, "point channel"],
    fine: Int[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    resolution: Int[Tensor, " scene"],
    small: Tensor,
    shape: tuple[int, int, int],
) -> Float[Tensor, "scene channel z y x"]:
    """Small scenes on grids of `resolution`^3 cells, trilinearly resized to `shape`; zero for the others."""
    largest = int(resolution[small].max())
    keep = small[scene].nonzero()[:, 0]
    cube = (largest, largest, largest)
    cells = _mean_cells(feature[keep], fine[keep].clamp(max=largest - 1), scene[keep], len(small), cube)
    grid = cells.dense()
    weights = [_resizing(resolution, largest, size).to(feature.dtype) for size in shape]
    for axis, weight in zip((4, 3, 2), weights, strict=True):
        moved = grid.movedim(axis, -1)
        grid = torch.einsum("scabi,soi->scabo", moved, weight).movedim(-1, axis)
    return grid


def _resizing(
    resolution: Int[Tensor, " scene"], largest: int, size: int
) -> Float[Tensor, "scene output input"]:
    """Linear interpolation from `resolution` to `size` cells, half-pixel centres: a matrix per scene."""
    ratio = resolution[:, None].double() / size
    source = ((torch.arange(size, device=ratio.device) + 0.5) * ratio - 0.5).clamp(min=0.0)
    low = source.floor().long()
    high = torch.minimum(low + 1, resolution[:, None] - 1)
    share = (source - low)[..., None]
    index = torch.arange(largest, device=ratio.device)
    return (index == low[..., None]) * (1.0 - share) + (index == high[..., None]) * share
