"""Elastic distortion: points pushed around by smooth random noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def smooth_noise(noise: Float[Tensor, "3 x y z"]) -> Float[Tensor, "3 x y z"]:
    """Two rounds of averaging over 3 cells along x, y and z, zeros outside."""
    value = noise[:, None]
    for _ in range(2):
        for axis in range(3):
            shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
            shape[2 + axis], padding[axis] = 3, 1
            value = F.conv3d(value, value.new_full(shape, 1.0 / 3.0), padding=padding)
    return value[:, 0]


def noise_shape(coord: Float[Tensor, "point 3"], cell: float) -> tuple[int, int, int]:
    """Nodes of the noise grid along x, y, z."""
    extent = coord.amax(dim=0) - coord.amin(dim=0)
    x, y, z = (torch.floor(extent.double() / cell).long() + 3).tolist()
    return x, y, z


def elastic_distortion(
    coord: Float[Tensor, "point 3"], noise: Float[Tensor, "3 x y z"], cell: float, magnitude: float
) -> Float[Tensor, "point 3"]:
    """Points moved by smoothed noise, looked up linearly.

    `noise` has the shape of `noise_shape`; its first node lies one cell below the lowest corner of the
    points, and nodes are one cell apart.
    """
    smooth = smooth_noise(noise)
    lower = coord.amin(dim=0) - cell
    nodes = coord.new_tensor(noise.shape[1:])
    upper = coord.amin(dim=0) + cell * (nodes - 2)
    position = 2.0 * (coord - lower) / (upper - lower) - 1.0
    # grid_sample takes (z, y, x) of a volume [channel, x, y, z].
    moved = F.grid_sample(smooth[None], position.flip(-1)[None, None, None], align_corners=True)
    return coord + moved[0, :, 0, 0].T * magnitude
