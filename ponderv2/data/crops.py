"""Parts of a scene: a region in metres, the nearest voxels, overlapping blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.data.config import LocalCropConfig, SphereCropConfig
from ponderv2.data.label_budget import with_budget
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene

ATTEMPTS = 8


@dataclass(frozen=True)
class Region:
    """A part of space."""

    centre: Float[Tensor, "3"]
    radius: float
    """Half side or radius, in the units of the centre."""
    shape: Literal["sphere", "box", "column"] = "column"

    def contains(self, points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Which points lie inside."""
        away = points - self.centre.to(points.dtype)
        if self.shape == "sphere":
            return away.norm(dim=-1) <= self.radius
        return away[..., : 2 if self.shape == "column" else 3].abs().amax(dim=-1) <= self.radius


def region_around(
    centre: Float[Tensor, "3"], config: LocalCropConfig, units_per_metre: float = 1.0
) -> Region:
    """The region that the settings describe, around a point."""
    return Region(centre, config.radius * units_per_metre, config.shape)


def random_region(scene: Scene, config: LocalCropConfig, generator: torch.Generator) -> Region:
    """A region around a random point with enough points in it; after some attempts the fullest one."""
    if len(scene.cloud) == 0:
        raise ValueError(f"scene '{scene.name}' has no points")
    best, most = None, -1
    for _ in range(ATTEMPTS):
        index = int(torch.randint(len(scene.cloud), (), generator=generator))
        region = region_around(scene.cloud.coord[index], config, scene.units_per_metre)
        n_points = int(region.contains(scene.cloud.coord).sum())
        if n_points > most:
            best, most = region, n_points
        if most >= config.min_points:
            break
    assert best is not None
    return best


def crop(scene: Scene, region: Region) -> Scene:
    """The scene with only the points of a region, and the boxes whose centres lie in it. Frames stay."""
    boxes = None if scene.boxes is None else scene.boxes.take(region.contains(scene.boxes.center))
    return replace(scene.take(region.contains(scene.cloud.coord)), boxes=boxes)


def nearest_points(
    coord: Float[Tensor, "point 3"], centre: Float[Tensor, "3"], n_points: int
) -> Int[Tensor, " kept"]:
    """The `n_points` points nearest to a position, nearest first."""
    distance = (coord - centre).square().sum(dim=1)
    return torch.topk(distance, min(n_points, len(coord)), largest=False).indices


def sphere_crop(
    cloud: PointCloud, config: SphereCropConfig, generator: torch.Generator
) -> tuple[Int[Tensor, " kept"], Region | None]:
    """Points to keep, and the sphere that holds them; None = all of space.

    Kept are the points nearest to a random one, and every point of a label budget.
    """
    everything = torch.arange(len(cloud))
    n_points = (
        config.n_points if config.n_points is not None else max(1, int(len(cloud) * (config.share or 1.0)))
    )
    if len(cloud) <= n_points:
        return everything, None
    centre = cloud.coord[int(torch.randint(len(cloud), (), generator=generator))]
    nearest = nearest_points(cloud.coord, centre, n_points)
    sphere = Region(centre, float((cloud.coord[nearest[-1]] - centre).norm()), "sphere")
    return with_budget(nearest, cloud), sphere


@dataclass(frozen=True)
class Block:
    """A part of the voxels. Every voxel is in the core of exactly one block."""

    core: Int[Tensor, " core"]
    """Voxels whose result this block gives."""
    context: Int[Tensor, " voxel"]
    """The core and the voxels around it, which the encoder receives."""


def overlapping_blocks(grid_coord: Int[Tensor, "voxel 3"], limit: int, margin: int) -> list[Block]:
    """Boxes of voxels, halved across their longest side until the context of each has at most `limit` voxels.

    The context is everything within `margin` voxels of the box of the core. A box that is narrower than the
    margin is not cut further, even where its context has more than `limit`.
    """
    everything = torch.arange(len(grid_coord))
    pending, found = [Block(everything, everything)], []
    while pending:
        block = pending.pop()
        cells = grid_coord[block.core]
        lower, upper = cells.amin(dim=0), cells.amax(dim=0)
        axis = int((upper - lower).argmax())
        if len(block.context) <= limit or int(upper[axis] - lower[axis]) < max(margin, 1):
            found.append(block)
            continue
        along = cells[:, axis]
        middle = min(int(along.median()), int(upper[axis]) - 1)  # neither half is empty
        for half in (block.core[along <= middle], block.core[along > middle]):
            pending.append(Block(half, _around(grid_coord, half, block.context, margin)))
    return found


def _around(grid_coord: Tensor, core: Tensor, candidates: Tensor, margin: int) -> Tensor:
    lower = grid_coord[core].amin(dim=0) - margin
    upper = grid_coord[core].amax(dim=0) + margin
    cells = grid_coord[candidates]
    return candidates[((cells >= lower) & (cells <= upper)).all(dim=1)]


def batch_of_block(batch: Batch, block: Block, alignment: int) -> Batch:
    """The context of a block, of a batch of one scene.

    Voxel indices move by a multiple of `alignment` only, so that a network that halves the resolution groups
    voxels as it would in the whole cloud.
    """
    cells = batch.grid_coord[block.context]
    origin = cells.amin(dim=0).div(alignment, rounding_mode="floor") * alignment
    return replace(batch.take(block.context), grid_coord=cells - origin)
