"""Several scenes as one batch; Mix3D, which merges scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.scenes.batch import PixelBatch, SceneBatch


def collate(batches: Sequence[SceneBatch]) -> SceneBatch:
    """Scenes and their pixels, concatenated. All must come from one dataset; all or none bring pixels."""
    if not batches:
        raise ValueError("expected at least one scene")
    conditions = {batch.condition for batch in batches}
    if len(conditions) > 1:
        raise ValueError(f"a batch holds scenes of one dataset, got {sorted(conditions)}")
    counts = torch.cat([torch.diff(batch.offset, prepend=batch.offset.new_zeros(1)) for batch in batches])
    return SceneBatch(
        coord=torch.cat([batch.coord for batch in batches]),
        grid_coord=torch.cat([batch.grid_coord for batch in batches]),
        feature=torch.cat([batch.feature for batch in batches]),
        offset=torch.cumsum(counts, 0),
        segment=torch.cat([batch.segment for batch in batches]),
        units_per_metre=torch.cat([batch.units_per_metre for batch in batches]),
        condition=batches[0].condition,
        names=tuple(name for batch in batches for name in batch.names),
        pixels=_collate_pixels(batches),
        instance=_distinct_instances([batch.instance for batch in batches]),
    )


def _distinct_instances(parts: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, " point"]:
    """Numbers of objects, those of each scene after those of the scene before; -1 stays -1."""
    above = [int(part.max()) + 1 if len(part) else 0 for part in parts]
    first = _exclusive_sum(above)
    return torch.cat([torch.where(part < 0, -1, part + n) for part, n in zip(parts, first, strict=True)])


def _collate_pixels(batches: Sequence[SceneBatch]) -> PixelBatch | None:
    pixels = [batch.pixels for batch in batches if batch.pixels is not None]
    if not pixels:
        return None
    if len(pixels) != len(batches):
        raise ValueError("either all scenes of a batch have pixels or none has")
    n_scenes = [len(batch.offset) for batch in batches]
    n_views = [len(part.view_scene) for part in pixels]
    first_scene = _exclusive_sum(n_scenes)
    first_view = _exclusive_sum(n_views)
    return PixelBatch(
        intrinsics=torch.cat([part.intrinsics for part in pixels]),
        world_to_camera=torch.cat([part.world_to_camera for part in pixels]),
        view_scene=torch.cat([part.view_scene + n for part, n in zip(pixels, first_scene, strict=True)]),
        view=torch.cat([part.view + n for part, n in zip(pixels, first_view, strict=True)]),
        pixel=torch.cat([part.pixel for part in pixels]),
        color=torch.cat([part.color for part in pixels]),
        depth=torch.cat([part.depth for part in pixels]),
        label=torch.cat([part.label for part in pixels]),
        colored=torch.cat([part.colored for part in pixels]),
    )


def _exclusive_sum(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


class MixingCollate:
    """`collate` that first merges neighbouring pairs of scenes, each with some probability (Mix3D).

    The first of a pair brings the randomness in its `mix` number, so the outcome does not depend on which
    process or worker does it. An odd last scene stays alone.
    """

    def __init__(self, probability: float, voxel_size: float) -> None:
        self.probability, self.voxel_size = probability, voxel_size

    def __call__(self, batches: Sequence[SceneBatch]) -> SceneBatch:
        """The batch, with fewer scenes where some were merged."""
        scenes: list[SceneBatch] = []
        for i in range(0, len(batches), 2):
            pair = list(batches[i : i + 2])
            if len(pair) == 2 and pair[0].mix < self.probability:
                pair = [merge_scenes(pair[0], pair[1], self.voxel_size)]
            scenes += pair
        return collate(scenes)


def merge_scenes(first: SceneBatch, second: SceneBatch, voxel_size: float) -> SceneBatch:
    """Two scenes in one place, on one voxel lattice; where they share a voxel, a labelled point is kept.

    Scenes with photographs cannot be merged: rays of one would meet the points of the other.
    """
    if first.pixels is not None or second.pixels is not None:
        raise ValueError("scenes with photographs cannot be merged")
    both = collate([first, second])
    shift = torch.round(_lattice(second, voxel_size) - _lattice(first, voxel_size)).long()
    cells = torch.cat([first.grid_coord, second.grid_coord + shift])
    cells = cells - cells.amin(dim=0)
    kept = _one_per_cell(cells, both.segment)
    return replace(
        both,
        coord=both.coord[kept],
        grid_coord=cells[kept],
        feature=both.feature[kept],
        segment=both.segment[kept],
        instance=both.instance[kept],
        offset=torch.tensor([len(kept)]),
        units_per_metre=both.units_per_metre[:1],
        names=("+".join(both.names),),
    )


def _lattice(batch: SceneBatch, voxel_size: float) -> Float[Tensor, "3"]:
    """Where cell (0, 0, 0) lies, in cells: points are in the middle of their cells on average."""
    return (batch.coord.double() / voxel_size - batch.grid_coord - 0.5).mean(dim=0)


def _one_per_cell(cells: Int[Tensor, "point 3"], segment: Int[Tensor, " point"]) -> Int[Tensor, " kept"]:
    """One point of each cell, a labelled one where there is one; points keep their order."""
    _, cell = torch.unique(cells, dim=0, return_inverse=True)
    n_points = len(cell)
    rank = torch.arange(n_points) + torch.where(segment < 0, n_points, 0)
    best = torch.full((int(cell.max()) + 1,), 2 * n_points)
    best.scatter_reduce_(0, cell, rank, reduce="amin")
    return torch.sort(best % n_points).values
