"""What one training step receives: the points of several scenes and the pixels to be rendered."""

from __future__ import annotations

from dataclasses import dataclass
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
class SceneBatch:
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
