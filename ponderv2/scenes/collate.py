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
        origin=_origins(batches),
        slots=_slots(batches),
    )


def _origins(batches: Sequence[SceneBatch]) -> Float[Tensor, "scene 3"] | None:
    origins = [batch.origin for batch in batches if batch.origin is not None]
    return torch.cat(origins) if len(origins) == len(batches) else None


def _slots(batches: Sequence[SceneBatch]) -> tuple[tuple[int, ...], ...] | None:
    slots = [batch.slots for batch in batches if batch.slots is not None]
    return tuple(one for each in slots for one in each) if len(slots) == len(batches) else None


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
    """`collate` that first merges scenes with the one before them where `is_merged` says so (Mix3D).

    Which are merged is decided for the whole batch of a step, wherever its scenes go. Where the one before is
    in another process the batch has no scenes.
    """

    def __init__(self, voxel_size: float) -> None:
        """`voxel_size`: of the scenes, in their units."""
        self.voxel_size = voxel_size

    def __call__(self, batches: Sequence[SceneBatch]) -> SceneBatch:
        """The batch, with fewer scenes where some were merged."""
        scenes: list[SceneBatch] = []
        for batch in batches:
            if batch.is_merged and scenes:
                scenes[-1] = merge_scenes(scenes[-1], batch, self.voxel_size)
            elif not batch.is_merged:
                scenes.append(batch)
        return collate(scenes) if scenes else without_scenes(batches[0])


def merge_scenes(first: SceneBatch, second: SceneBatch, voxel_size: float) -> SceneBatch:
    """Two scenes in one place, on one voxel lattice; where they share a voxel, a labelled point is kept.

    The second scene's cells become the nearest ones of the first scene's lattice, up to half a cell away.
    Scenes with images cannot be merged: rays of one would meet the points of the other.
    """
    if first.pixels is not None or second.pixels is not None:
        raise ValueError("scenes with photographs cannot be merged")
    if first.origin is None or second.origin is None:
        raise ValueError("scenes whose voxel lattice is not known cannot be merged")
    both = collate([first, second])
    shift = torch.round((second.origin - first.origin)[0] / voxel_size).long()
    cells = torch.cat([first.grid_coord, second.grid_coord + shift])
    lowest = cells.amin(dim=0)
    cells = cells - lowest
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
        origin=first.origin + lowest * voxel_size,
        slots=None if both.slots is None else (both.slots[0] + both.slots[1],),
    )


def without_scenes(batch: SceneBatch) -> SceneBatch:
    """A batch of the same kind that holds nothing."""
    none = slice(0)
    return SceneBatch(
        coord=batch.coord[none],
        grid_coord=batch.grid_coord[none],
        feature=batch.feature[none],
        offset=batch.offset[none],
        segment=batch.segment[none],
        units_per_metre=batch.units_per_metre[none],
        condition=batch.condition,
        names=(),
        instance=batch.instance[none],
        slots=(),
    )


def _one_per_cell(cells: Int[Tensor, "point 3"], segment: Int[Tensor, " point"]) -> Int[Tensor, " kept"]:
    """One point of each cell, a labelled one where there is one; points keep their order."""
    _, cell = torch.unique(cells, dim=0, return_inverse=True)
    n_points = len(cell)
    rank = torch.arange(n_points) + torch.where(segment < 0, n_points, 0)
    best = torch.full((int(cell.max()) + 1,), 2 * n_points)
    best.scatter_reduce_(0, cell, rank, reduce="amin")
    return torch.sort(best % n_points).values
