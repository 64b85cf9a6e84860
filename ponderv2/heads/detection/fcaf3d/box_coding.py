"""Boxes from distances of a location to their faces, and from the two values of a yaw without a heading."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1.0e-6


def boxes_of(
    location: Float[Tensor, "location 3"], code: Float[Tensor, "location value"]
) -> Float[Tensor, "location 7"]:
    """(x, y, z, length, width, height, yaw) from the distances at -x, +x, -y, +y, -z, +z and, with yaw, the
    values of `yaw_values`; without, yaw is 0.

    Of two values, q = exp of their norm is length / width >= 1: the sum s of the four horizontal distances is
    divided into the length s q / (1 + q) along half the angle of the values and the width s / (1 + q).
    """
    lower, upper = code[:, 0:6:2], code[:, 1:6:2]
    center, size = location + (upper - lower) / 2, upper + lower
    if code.shape[1] == 6:
        return torch.cat([center, size, torch.zeros_like(center[:, :1])], dim=1)
    # The angle of (0, 0) has no derivative: such a box is a square that does not turn.
    first, second = code[:, 6], code[:, 7]
    second = torch.where((first.abs() < TINY) & (second.abs() < TINY), second + TINY, second)
    along = torch.sigmoid(torch.sqrt(first.square() + second.square()))  # q / (1 + q)
    total = size[:, 0] + size[:, 1]
    yaw = torch.atan2(first, second) / 2
    return torch.cat(
        [center, torch.stack([total * along, total * (1.0 - along), size[:, 2], yaw], dim=1)], dim=1
    )


def yaw_values(size: Float[Tensor, "box 3"], yaw: Float[Tensor, " box"]) -> Float[Tensor, "box 2"]:
    """(sin 2 yaw, cos 2 yaw) times the logarithm of length / width: equal for a box and the same one with
    length and width exchanged and a quarter turn; (0, 0) for squares, whose yaw is not defined."""
    ratio = torch.log(size[:, 0] / size[:, 1])
    return torch.stack([torch.sin(2 * yaw) * ratio, torch.cos(2 * yaw) * ratio], dim=1)
