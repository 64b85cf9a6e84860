"""Headings as a class and a residual, sizes as residuals of a mean size."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def heading_class(
    yaw: Float[Tensor, " box"], n_headings: int
) -> tuple[Int[Tensor, " box"], Float[Tensor, " box"]]:
    """Nearest of the directions k 2 pi / n, counter-clockwise from +x, and the rest in units of pi / n:
    -1..1."""
    turns = torch.remainder(yaw, 2 * math.pi) * (n_headings / (2 * math.pi))
    nearest = torch.floor(turns + 0.5)
    return torch.remainder(nearest, n_headings).long(), (turns - nearest) * 2


def yaw_of(
    number: Int[Tensor, " box"], residual: Float[Tensor, " box"], n_headings: int
) -> Float[Tensor, " box"]:
    """Undoes `heading_class`, -pi..pi."""
    yaw = (number + residual / 2) * (2 * math.pi / n_headings)
    return torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi


def size_residual(size: Float[Tensor, "box 3"], mean: Float[Tensor, "box 3"]) -> Float[Tensor, "box 3"]:
    """In units of the mean size."""
    return size / mean - 1


def size_of(residual: Float[Tensor, "box 3"], mean: Float[Tensor, "box 3"]) -> Float[Tensor, "box 3"]:
    """Undoes `size_residual`; at least a tenth of the mean, which residuals below -1 are not."""
    return mean * (1 + residual).clamp(min=0.1)
