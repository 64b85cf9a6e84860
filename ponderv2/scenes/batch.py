"""What one training step receives: the points of several scenes and the pixels to be rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_NOT_GIVEN: Any = None


@dataclass(frozen=True)
class PixelBatch:
    """The pixels to be rendered, views and scenes as one flat set (scene-major, then view, then pixel)."""

    intrinsics: Float[Tensor, "view 3 3"]
    world_to_camera: Float[Tensor, "view 4 4"]
    view_scene: Int[Tensor, " view"]
    """Scene of the batch that each view shows."""
    view: Int[Tensor, " ray"]
    """View of each pixel."""
    pixel: Float[Tensor, "ray 2"]
    """Column and row; pixel centres are integers."""
    color: Float[Tensor, "ray 3"]
    """0..1."""
    depth: Float[Tensor, " ray"]
    """Along the optical axis, metres; 0 = no measurement."""
    label: Int[Tensor, " ray"]
    """Class, -1 = unlabelled or unknown."""
    colored: Bool[Tensor, " ray"] = _NOT_GIVEN
    """Whether a colour was recorded (also when left out); the others have depth alone."""

    def __post_init__(self) -> None:
        if self.colored is None:
            object.__setattr__(self, "colored", torch.ones_like(self.depth, dtype=torch.bool))


@dataclass(frozen=True)
class Batch:
    """Points of several scenes, concatenated, voxelised to one point a voxel."""

    coord: Float[Tensor, "point 3"]
    """Scene units (metres, unless the scene was scaled)."""
    grid_coord: Int[Tensor, "point 3"]
    """Voxel index (x, y, z), minimum 0 in each scene before cropping."""
    feature: Float[Tensor, "point channel"]
    """What the encoder sees: colour / 127.5 - 1, then normal, in the published order."""
    offset: Int[Tensor, " scene"]
    """Exclusive ends of the scenes."""
    segment: Int[Tensor, " point"]
    """Class, -1 = ignore."""
    units_per_metre: Float[Tensor, " scene"]
    condition: str
    """Name of the dataset that the scenes come from."""
    names: tuple[str, ...]
    pixels: PixelBatch | None = None
    origin: Float[Tensor, "scene 3"] | None = None
    """Corner of voxel (0, 0, 0) of each scene, in the frame and units of `coord`, in double precision. None:
    not known; such scenes cannot be merged."""
    slots: tuple[tuple[int, ...], ...] | None = None
    """Positions of each scene in the batch of the step, all processes together; several where scenes were
    merged. None: in order, each process with equally many."""
    is_merged: bool = False
    """Whether this single scene is to be merged with the one before it (Mix3D)."""
    instance: Int[Tensor, " point"] = _NOT_GIVEN
    """Object that the point is part of, -1 = none (also when left out); scenes of a batch share no number."""

    def __post_init__(self) -> None:
        if self.instance is None:
            object.__setattr__(self, "instance", torch.full_like(self.segment, -1))


def collate(batches: Sequence[Batch]) -> Batch:
    """Scenes and their pixels, concatenated. All must come from one dataset; all or none bring pixels."""
    if not batches:
        raise ValueError("expected at least one scene")
    conditions = {batch.condition for batch in batches}
    if len(conditions) > 1:
        raise ValueError(f"a batch holds scenes of one dataset, got {sorted(conditions)}")
    counts = torch.cat([torch.diff(batch.offset, prepend=batch.offset.new_zeros(1)) for batch in batches])
    return Batch(
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


def _origins(batches: Sequence[Batch]) -> Float[Tensor, "scene 3"] | None:
    origins = [batch.origin for batch in batches if batch.origin is not None]
    return torch.cat(origins) if len(origins) == len(batches) else None


def _slots(batches: Sequence[Batch]) -> tuple[tuple[int, ...], ...] | None:
    slots = [batch.slots for batch in batches if batch.slots is not None]
    return tuple(one for each in slots for one in each) if len(slots) == len(batches) else None


def _distinct_instances(parts: Sequence[Int[Tensor, " _"]]) -> Int[Tensor, " point"]:
    """Numbers of objects, those of each scene after those of the scene before; -1 stays -1."""
    above = [int(part.max()) + 1 if len(part) else 0 for part in parts]
    first = _exclusive_sum(above)
    return torch.cat([torch.where(part < 0, -1, part + n) for part, n in zip(parts, first, strict=True)])


def _collate_pixels(batches: Sequence[Batch]) -> PixelBatch | None:
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

    def __call__(self, batches: Sequence[Batch]) -> Batch:
        """The batch, with fewer scenes where some were merged."""
        scenes: list[Batch] = []
        for batch in batches:
            if batch.is_merged and scenes:
                scenes[-1] = merge_scenes(scenes[-1], batch, self.voxel_size)
            elif not batch.is_merged:
                scenes.append(batch)
        return collate(scenes) if scenes else without_scenes(batches[0])


def merge_scenes(first: Batch, second: Batch, voxel_size: float) -> Batch:
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


def without_scenes(batch: Batch) -> Batch:
    """A batch of the same kind that holds nothing."""
    none = slice(0)
    return Batch(
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


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The first half of the scenes and the others, pixels and names with them. Needs two scenes.

    Of merged scenes both count: the halves are those of a run that cut the batch before they were merged.
    """
    n_scenes = len(batch.offset)
    if n_scenes < 2:
        raise ValueError(f"expected at least two scenes, got {n_scenes}")
    middle = n_scenes // 2
    if batch.slots is not None:
        every = [slot for slots in batch.slots for slot in slots]
        end = every[len(every) // 2]
        middle = max(1, sum(slots[0] < end for slots in batch.slots))
    return _scenes(batch, 0, middle), _scenes(batch, middle, n_scenes)


def _scenes(batch: Batch, first: int, end: int) -> Batch:
    ends = [0, *batch.offset.tolist()]
    points = slice(ends[first], ends[end])
    return replace(
        batch,
        coord=batch.coord[points],
        grid_coord=batch.grid_coord[points],
        feature=batch.feature[points],
        offset=batch.offset[first:end] - ends[first],
        segment=batch.segment[points],
        units_per_metre=batch.units_per_metre[first:end],
        names=batch.names[first:end],
        pixels=None if batch.pixels is None else _pixels(batch.pixels, first, end),
        instance=batch.instance[points],
        origin=None if batch.origin is None else batch.origin[first:end],
        slots=None if batch.slots is None else batch.slots[first:end],
    )


def _pixels(pixels: PixelBatch, first: int, end: int) -> PixelBatch:
    views = _within(pixels.view_scene, first, end)
    rays = views[pixels.view]
    number = torch.cumsum(views, 0) - 1
    return PixelBatch(
        intrinsics=pixels.intrinsics[views],
        world_to_camera=pixels.world_to_camera[views],
        view_scene=pixels.view_scene[views] - first,
        view=number[pixels.view[rays]],
        pixel=pixels.pixel[rays],
        color=pixels.color[rays],
        depth=pixels.depth[rays],
        label=pixels.label[rays],
        colored=pixels.colored[rays],
    )


def _within(values: Tensor, first: int, end: int) -> Bool[Tensor, " value"]:
    return (values >= first) & (values < end)
