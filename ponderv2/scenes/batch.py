"""What one training step receives: scenes, collated. Points, pixels to be rendered, images and boxes.

Every field declares its axis (`scenes/collation.py`), and the methods of `Batch` treat all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.collation import PART, SHARED, along, collate, cut, take, to_device

_NOT_GIVEN: Any = None


@dataclass(frozen=True)
class PixelBatch:
    """The pixels to be rendered, views and scenes as one flat set (scene-major, then view, then pixel)."""

    intrinsics: Float[Tensor, "view 3 3"] = field(metadata=along("view"))
    world_to_camera: Float[Tensor, "view 4 4"] = field(metadata=along("view"))
    view_scene: Int[Tensor, " view"] = field(metadata=along("view", index_of="scene"))
    """Scene of the batch that each view shows."""
    view: Int[Tensor, " ray"] = field(metadata=along("ray", index_of="view"))
    """View of each pixel."""
    pixel: Float[Tensor, "ray 2"] = field(metadata=along("ray"))
    """Column and row; pixel centres are integers."""
    color: Float[Tensor, "ray 3"] = field(metadata=along("ray"))
    """0..1."""
    depth: Float[Tensor, " ray"] = field(metadata=along("ray"))
    """Along the optical axis, metres; 0 = no measurement."""
    label: Int[Tensor, " ray"] = field(metadata=along("ray"))
    """Class, -1 = unlabelled or unknown."""
    colored: Bool[Tensor, " ray"] = field(default=_NOT_GIVEN, metadata=along("ray"))
    """Whether a colour was recorded (also when left out); the others have depth alone."""
    image_feature: Float[Tensor, "ray channel"] | None = field(default=None, metadata=along("ray"))
    """Of a frozen image network, whitened; a row of zeros = none. None: not asked for, as the next two."""
    cluster: Int[Tensor, " ray"] | None = field(default=None, metadata=along("ray"))
    """Group of the surroundings of what the pixel shows, -1 = none."""
    normal: Float[Tensor, "ray 3"] | None = field(default=None, metadata=along("ray"))
    """Of the measured depth: unit length, towards the camera, in the camera's frame, where motions of the
    scene leave it alone; zero = none."""

    def __post_init__(self) -> None:
        if self.colored is None:
            object.__setattr__(self, "colored", torch.ones_like(self.depth, dtype=torch.bool))


@dataclass(frozen=True)
class ImageBatch:
    """Whole images for an image encoder, views and scenes as one flat set (scene-major); all of one size."""

    image: Float[Tensor, "view 3 row column"] = field(metadata=along("view"))
    """Colour, 0..1."""
    intrinsics: Float[Tensor, "view 3 3"] = field(metadata=along("view"))
    """Of these pixels, whose centres are at integers."""
    world_to_camera: Float[Tensor, "view 4 4"] = field(metadata=along("view"))
    view_scene: Int[Tensor, " view"] = field(metadata=along("view", index_of="scene"))
    """Scene of the batch that each view shows."""
    visible: Bool[Tensor, "view row column"] | None = field(default=None, metadata=along("view"))
    """False where masking hides a pixel from the encoder, which is black there; None: nothing is hidden."""
    depth: Float[Tensor, "view row column"] | None = field(default=None, metadata=along("view"))
    """Along the optical axis, metres; 0 = no measurement. None: not asked for."""


@dataclass(frozen=True)
class Batch:
    """Several scenes, concatenated; their points voxelised to one point a voxel.

    A scene may have no points, and a batch no pixels, images or boxes.
    """

    coord: Float[Tensor, "point 3"] = field(metadata=along("point"))
    """Scene units (metres, unless the scene was scaled)."""
    grid_coord: Int[Tensor, "point 3"] = field(metadata=along("point"))
    """Voxel index (x, y, z), minimum 0 in each scene before cropping."""
    feature: Float[Tensor, "point channel"] = field(metadata=along("point"))
    """What a point encoder sees: colour / 127.5 - 1, then normal, in the published order."""
    offset: Int[Tensor, " scene"] = field(metadata=along("scene", ends_of="point"))
    """Exclusive ends of the scenes."""
    segment: Int[Tensor, " point"] = field(metadata=along("point"))
    """Class, -1 = ignore."""
    units_per_metre: Float[Tensor, " scene"] = field(metadata=along("scene"))
    condition: str = field(metadata=SHARED)
    """Name of the dataset that the scenes come from."""
    names: tuple[str, ...] = field(metadata=along("scene"))
    pixels: PixelBatch | None = field(default=None, metadata=PART)
    origin: Float[Tensor, "scene 3"] | None = field(default=None, metadata=along("scene", or_none=True))
    """Corner of voxel (0, 0, 0) of each scene, in the frame and units of `coord`, in double precision. None:
    not known; such scenes cannot be merged."""
    slots: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=along("scene", or_none=True))
    """Positions of each scene in the batch of the step, all processes together; several where scenes were
    merged. None: in order, each process with equally many."""
    is_merged: bool = False
    """Whether this single scene is to be merged with the one before it (Mix3D)."""
    instance: Int[Tensor, " point"] = field(default=_NOT_GIVEN, metadata=along("point", distinct=True))
    """Object that the point is part of, -1 = none (also when left out); scenes of a batch share no number."""
    fields: Mapping[str, Shaped[Tensor, "point ..."]] = field(default_factory=dict, metadata=along("point"))
    """What else the data set has of each point: intensity, time, ring."""
    images: ImageBatch | None = field(default=None, metadata=PART)
    boxes: Boxes | None = field(default=None, metadata=along("box"))
    """Around objects, in the frame of `coord`. None: not annotated."""
    box_scene: Int[Tensor, " box"] | None = field(default=None, metadata=along("box", index_of="scene"))
    """Scene of the batch that each box belongs to; present exactly where `boxes` are."""

    def __post_init__(self) -> None:
        if self.instance is None:
            object.__setattr__(self, "instance", torch.full_like(self.segment, -1))

    @property
    def n_scenes(self) -> int:
        """Scenes of the batch, also those without a point."""
        return len(self.offset)

    @staticmethod
    def collate(batches: Sequence[Batch]) -> Batch:
        """The scenes one after the other. All must come from one dataset; all or none bring pixels.

        Raises:
            ValueError: there is no scene, or they do not belong together.
        """
        conditions = {batch.condition for batch in batches}
        if len(conditions) > 1:
            raise ValueError(f"a batch holds scenes of one dataset, got {sorted(conditions)}")
        return collate(batches)

    def halves(self) -> tuple[Batch, Batch]:
        """The first half of the scenes and the others, with all that belongs to them. Needs two scenes.

        Of merged scenes both count: the halves are those of a run that cut the batch before they were merged.
        """
        if self.n_scenes < 2:
            raise ValueError(f"expected at least two scenes, got {self.n_scenes}")
        middle = self.n_scenes // 2
        if self.slots is not None:
            every = [slot for slots in self.slots for slot in slots]
            end = every[len(every) // 2]
            middle = max(1, sum(slots[0] < end for slots in self.slots))
        return cut(self, 0, middle), cut(self, middle, self.n_scenes)

    def scenes(self) -> tuple[Batch, ...]:
        """Every scene as a batch of its own."""
        return tuple(cut(self, number, number + 1) for number in range(self.n_scenes))

    def empty(self) -> Batch:
        """A batch of the same kind that holds nothing."""
        return replace(cut(self, 0, 0), is_merged=False)

    def take(self, points: Tensor) -> Batch:
        """The chosen points (indices or a mask) of a batch of one scene, with all their fields."""
        if self.n_scenes != 1:
            raise ValueError(f"expected one scene, got {self.n_scenes}")
        chosen = take(self, "point", points)
        return replace(chosen, offset=torch.full_like(self.offset, len(chosen.coord)))

    def where(self, kept: Bool[Tensor, " point"]) -> Batch:
        """The scenes with some of their points, with all fields of these."""
        chosen = take(self, "point", kept)
        ends = torch.cat([kept.new_zeros(1, dtype=torch.long), kept.long().cumsum(0)])
        return replace(chosen, offset=ends[self.offset])

    def to(self, device: torch.device | str) -> Batch:
        """Every tensor on another device."""
        return to_device(self, device)

    def merged_with(self, other: Batch, voxel_size: float) -> Batch:
        """Both as one scene on one voxel lattice (Mix3D); where they share a voxel, a labelled point is kept.

        The other scene's cells become the nearest ones of this scene's lattice, up to half a cell away.
        Scenes with images cannot be merged: rays of one would meet the points of the other.
        """
        if any(one is not None for one in (self.pixels, other.pixels, self.images, other.images)):
            raise ValueError("scenes with images cannot be merged")
        if self.origin is None or other.origin is None:
            raise ValueError("scenes whose voxel lattice is not known cannot be merged")
        both = Batch.collate([self, other])
        shift = torch.round((other.origin - self.origin)[0] / voxel_size).long()
        cells = torch.cat([self.grid_coord, other.grid_coord + shift])
        lowest = cells.amin(dim=0)
        cells = cells - lowest
        one_scene = replace(
            both,
            grid_coord=cells,
            offset=both.offset[-1:],
            units_per_metre=both.units_per_metre[:1],
            names=("+".join(both.names),),
            origin=self.origin + lowest * voxel_size,
            slots=None if both.slots is None else (both.slots[0] + both.slots[1],),
            box_scene=None if both.box_scene is None else torch.zeros_like(both.box_scene),
        )
        return one_scene.take(_one_per_cell(cells, both.segment))


class MixingCollate:
    """`Batch.collate` that first merges scenes with the one before them where `is_merged` says so (Mix3D).

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
                scenes[-1] = scenes[-1].merged_with(batch, self.voxel_size)
            elif not batch.is_merged:
                scenes.append(batch)
        return Batch.collate(scenes) if scenes else batches[0].empty()


def _one_per_cell(cells: Int[Tensor, "point 3"], segment: Int[Tensor, " point"]) -> Int[Tensor, " kept"]:
    """One point of each cell, a labelled one where there is one; points keep their order."""
    _, cell = torch.unique(cells, dim=0, return_inverse=True)
    n_points = len(cell)
    rank = torch.arange(n_points) + torch.where(segment < 0, n_points, 0)
    best = torch.full((int(cell.max()) + 1,), 2 * n_points)
    best.scatter_reduce_(0, cell, rank, reduce="amin")
    return torch.sort(best % n_points).values
