"""Rigid and similarity transforms as 4x4 matrices, in double precision: x' = T x."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

AXES = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}


def translation_matrix(shift: Float[Tensor, "3"]) -> Float[Tensor, "4 4"]:
    """x' = x + shift."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = shift.double()
    return matrix


def rotation_matrix(
    angle: float, axis: Literal["x", "y", "z"], centre: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "4 4"]:
    """Right-handed rotation by `angle` radians about an axis through `centre` (the origin when None)."""
    first, second = AXES[axis]
    turn = torch.eye(4, dtype=torch.float64)
    turn[first, first] = turn[second, second] = math.cos(angle)
    turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
    if centre is None:
        return turn
    return translation_matrix(centre) @ turn @ translation_matrix(-centre)


def scale_matrix(factor: float) -> Float[Tensor, "4 4"]:
    """x' = factor x."""
    return torch.diag(torch.tensor([factor, factor, factor, 1.0], dtype=torch.float64))


def flip_matrix(x: bool, y: bool) -> Float[Tensor, "4 4"]:
    """Mirror the chosen axes."""
    return torch.diag(torch.tensor([-1.0 if x else 1.0, -1.0 if y else 1.0, 1.0, 1.0], dtype=torch.float64))


def transform_points(
    transform: Float[Tensor, "*#batch 4 4"], points: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """x' = transform x for affine 4x4 maps."""
    if transform.dim() == 2:  # one map for all points: one product in place of many small ones
        return points @ transform[:3, :3].T + transform[:3, 3]
    return (transform[..., :3, :3] @ points[..., None])[..., 0] + transform[..., :3, 3]


def scale_of(transform: Float[Tensor, "4 4"]) -> float:
    """By how much a similarity or mirror image multiplies lengths."""
    return float(torch.linalg.det(transform[:3, :3].double()).abs() ** (1.0 / 3.0))
