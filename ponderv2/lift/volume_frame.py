"""The cube that each scene is put into: [-0.5, 0.5]^3, centred in x and y, the lowest point at z = -0.5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import CubeFrameConfig

WIDENING = 1.0e-5
"""Scene units that the bounding box is larger than the points, on each side (published)."""


@dataclass(frozen=True)
class VolumeFrame:
    """Where the scenes of a batch lie in their cubes."""

    to_cube: Float[Tensor, "scene 4 4"]
    """Scene coordinates to cube coordinates: a scaling and a translation."""
    scale: Float[Tensor, " scene"]
    """Cube units per scene unit."""

    def cube_coord(
        self, coord: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
    ) -> Float[Tensor, "point 3"]:
        """Points of the scenes in cube coordinates."""
        shift = self.to_cube[:, :3, 3].index_select(0, scene)
        return coord * self.scale.index_select(0, scene)[:, None] + shift


def bounds_of_scenes(
    coord: Float[Tensor, "point 3"], scene: Int[Tensor, " point"], n_scenes: int
) -> tuple[Float[Tensor, "scene 3"], Float[Tensor, "scene 3"]]:
    """Lowest and highest corner of the points of every scene."""
    index = scene[:, None].expand(-1, 3)
    empty = coord.new_zeros(n_scenes, 3)
    lower = empty.scatter_reduce(0, index, coord, "amin", include_self=False)
    upper = empty.scatter_reduce(0, index, coord, "amax", include_self=False)
    return lower, upper


@torch.no_grad()
def scene_frames(
    coord: Float[Tensor, "point 3"], offset: Int[Tensor, " scene"], config: CubeFrameConfig
) -> VolumeFrame:
    """The longest side of each scene (or `config.edge`) becomes 1. ValueError for a scene without points."""
    counts = torch.diff(offset, prepend=offset.new_zeros(1))
    if bool((counts <= 0).any()):
        raise ValueError(f"every scene needs points, got counts {counts.tolist()}")
    lower, upper = bounds_of_scenes(coord.double(), batch_index(offset), len(offset))
    centre = (lower + upper) / 2
    longest = (upper - lower + 2 * WIDENING).amax(1)
    scale = 1.0 / (longest if config.edge is None else torch.full_like(longest, config.edge))
    shift = -centre * scale[:, None]
    shift[:, 2] = -lower[:, 2] * scale - 0.5
    to_cube = torch.diag_embed(torch.stack([scale, scale, scale, torch.ones_like(scale)], dim=1))
    to_cube[:, :3, 3] = shift
    return VolumeFrame(to_cube.to(coord.dtype), scale.to(coord.dtype))
