"""Takes a batch apart again: the opposite of `collate`."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from ponderv2.scenes.batch import PixelBatch, SceneBatch


def halves(batch: SceneBatch) -> tuple[SceneBatch, SceneBatch]:
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


def _scenes(batch: SceneBatch, first: int, end: int) -> SceneBatch:
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
