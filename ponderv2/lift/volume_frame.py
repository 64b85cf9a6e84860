"""Where the volume of each scene lies: its own coordinates, the box that it covers, its cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import CubeFrameConfig, RangeFrameConfig

WIDENING = 1.0e-5
"""Padding of the bounding box on each side, scene units (published)."""
LEAST_MARGIN = 1.0e-3
"""Of a box around points: a flat or single-point scene still needs a box with a volume."""


@dataclass(frozen=True)
class VolumeFrame:
    """Frames of the scenes of a batch. The unit of length of a volume is the longest side of its range."""

    world_to_volume: Float[Tensor, "scene 4 4"]
    """Scene coordinates to volume coordinates: a scaling (by one factor, unless the range is stretched) and a
    translation. The range is centred at 0."""
    scale: Float[Tensor, " scene"]
    """Volume units per scene unit; of a stretched range along its longest side."""
    half_range: Float[Tensor, "scene 3"]
    """Half extents of the range, volume units: 0.5 for a cube."""
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    """Corners (x, y, z) of what the cells cover, volume units, in double precision."""
    cells: tuple[int, int, int]
    """Along x, y, z."""

    def to_volume(
        self, coord: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
    ) -> Float[Tensor, "point 3"]:
        """Points of the scenes in volume coordinates."""
        shift = self.world_to_volume[:, :3, 3].index_select(0, scene)
        scale = self.world_to_volume.diagonal(dim1=1, dim2=2)[:, :3]
        return coord * scale.index_select(0, scene) + shift

    def cameras(
        self, world_to_camera: Float[Tensor, "view 4 4"], view_scene: Int[Tensor, " view"]
    ) -> Float[Tensor, "view 4 4"]:
        """Volume to camera, for cameras that see the same image after the scene was put into its volume."""
        to_volume = self.world_to_volume[view_scene].double()
        return (world_to_camera.double() @ torch.linalg.inv(to_volume)).to(world_to_camera.dtype)


@torch.no_grad()
def volume_frame(
    coord: Float[Tensor, "point 3"],
    offset: Int[Tensor, " scene"],
    config: CubeFrameConfig | RangeFrameConfig,
) -> VolumeFrame:
    """The frames of scenes with these points. A cube needs points: ValueError for a scene without any."""
    match config:
        case CubeFrameConfig():
            return _cube_frame(coord, offset, config)
        case RangeFrameConfig():
            return _range_frame(coord, len(offset), config)
        case _:
            assert_never(config)


def _cube_frame(
    coord: Float[Tensor, "point 3"], offset: Int[Tensor, " scene"], config: CubeFrameConfig
) -> VolumeFrame:
    counts = torch.diff(offset, prepend=offset.new_zeros(1))
    if bool((counts <= 0).any()):
        raise ValueError(f"every scene needs points, got counts {counts.tolist()}")
    scene = batch_index(offset)
    lower, upper = bounds_of_scenes(coord.double(), scene, len(offset))
    centre = (lower + upper) / 2
    longest = (upper - lower + 2 * WIDENING).amax(1)
    scale = 1.0 / (longest if config.cube_size is None else torch.full_like(longest, config.cube_size))
    shift = -centre * scale[:, None]
    shift[:, 2] = -lower[:, 2] * scale - 0.5
    half = torch.full_like(lower, (1.0 + config.padding) / 2)
    frame = VolumeFrame(
        world_to_volume=_scaling(scale[:, None].expand(-1, 3), shift).to(coord.dtype),
        scale=scale.to(coord.dtype),
        half_range=torch.full_like(lower, 0.5),
        lower=-half,
        upper=half,
        cells=config.cells,
    )
    return _around_points(frame, coord, scene, config.margin) if config.box == "bounds" else frame


def _around_points(frame: VolumeFrame, coord: Tensor, scene: Tensor, margin: float) -> VolumeFrame:
    """Cells for the bounding box of the points alone, within the box of the frame."""
    lowest, highest = bounds_of_scenes(frame.to_volume(coord, scene), scene, len(frame.scale))
    margin = max(margin, LEAST_MARGIN)
    lower = torch.maximum(lowest - margin, frame.lower.to(coord.dtype))
    upper = torch.minimum(highest + margin, frame.upper.to(coord.dtype))
    upper = torch.maximum(upper, lower + LEAST_MARGIN)
    return replace(frame, lower=lower.double(), upper=upper.double())


def _range_frame(coord: Tensor, n_scenes: int, config: RangeFrameConfig) -> VolumeFrame:
    corners = torch.tensor([config.lower, config.upper], dtype=torch.float64, device=coord.device)
    lower, upper = corners[:, None].expand(-1, n_scenes, -1)
    scale = 1.0 / (upper - lower).amax(1)
    of_axes = 1.0 / (upper - lower) if config.stretch else scale[:, None].expand(-1, 3)
    half = (upper - lower) / 2 * of_axes
    world_to_volume = _scaling(of_axes, -(lower + upper) / 2 * of_axes)
    return VolumeFrame(
        world_to_volume.to(coord.dtype), scale.to(coord.dtype), half, -half, half, config.cells
    )


def _scaling(scale: Float[Tensor, "scene 3"], shift: Float[Tensor, "scene 3"]) -> Float[Tensor, "scene 4 4"]:
    matrix = torch.diag_embed(torch.cat([scale, torch.ones_like(scale[:, :1])], dim=1))
    matrix[:, :3, 3] = shift
    return matrix


def bounds_of_scenes(
    coord: Float[Tensor, "point 3"], scene: Int[Tensor, " point"], n_scenes: int
) -> tuple[Float[Tensor, "scene 3"], Float[Tensor, "scene 3"]]:
    """Lowest and highest corner of the points of every scene."""
    index = scene[:, None].expand(-1, 3)
    empty = coord.new_zeros(n_scenes, 3)
    lower = empty.scatter_reduce(0, index, coord, "amin", include_self=False)
    upper = empty.scatter_reduce(0, index, coord, "amax", include_self=False)
    return lower, upper
