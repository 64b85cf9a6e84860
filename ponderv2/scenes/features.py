"""What the encoder sees of each point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.scenes.config import FeatureName
from ponderv2.scenes.scene import PointCloud


def normalised_color(color: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """0..255 to -1..1."""
    return color / 127.5 - 1.0


def point_features(
    cloud: PointCloud, names: Sequence[FeatureName], offset: Float[Tensor, "point 3"]
) -> Float[Tensor, "point channel"]:
    """The named features of every point, concatenated.

    `offset` is the position within the own voxel (-0.5..0.5): the voxels were made before the last shift.
    """
    return torch.cat([_feature(cloud, name, offset) for name in names], dim=1)


def _feature(
    cloud: PointCloud, name: FeatureName, offset: Float[Tensor, "point 3"]
) -> Float[Tensor, "point part"]:
    match name:
        case "color":
            return normalised_color(cloud.color)
        case "normal":
            return cloud.normal
        case "coord":
            return cloud.coord
        case "height":
            return cloud.coord[:, 2:]
        case "offset":
            return 2.0 * offset
        case "ones":
            return torch.ones_like(cloud.coord[:, :1])
