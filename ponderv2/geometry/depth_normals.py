"""Surface normals of a depth image, at single pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

HALF_ANGLE = math.radians(0.5)
"""Of the window of a normal: wide enough for the noise of depth cameras of 640 x 480 pixels."""
LEAST_RADIUS = 2
"""Pixels."""


def normals_of_depth(
    depth: Float[Tensor, "row column"],
    numbers: Int[Tensor, " pixel"],
    intrinsics: Float[Tensor, "3 3"],
    radius: int | None = None,
    steepest: float = 80.0,
) -> Float[Tensor, "pixel 3"]:
    """Unit normals towards the camera at row-major `numbers`, in its frame; zero where there is none.

    The inverse depth of a plane n p = d is affine in the pixel, (1 / z) = (n / d) K^-1 (x, y, 1), so that a
    linear fit to `radius` pixels on each side gives the normal of a plane exactly: the cross product of the
    two gradients of the depth, averaged. Radius None is half a degree, at least 2 pixels. Neighbours that no
    surface reaches whose normal is up to `steepest` degrees from the ray belong to another one. Without a
    measurement at the pixel, or with fewer than half of the window on its surface, there is no normal.
    Depth 0 = not measured.
    """
    height, width = depth.shape
    if radius is None:
        radius = max(LEAST_RADIUS, round(HALF_ANGLE * float(intrinsics[0, 0])))
    row = torch.div(numbers, width, rounding_mode="floor")
    column = numbers % width
    step = torch.arange(-radius, radius + 1, device=depth.device)
    dy, dx = (one.reshape(-1) for one in torch.meshgrid(step, step, indexing="ij"))
    y, x = row[:, None] + dy, column[:, None] + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    near = depth.double()[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    own = near[:, len(dx) // 2][:, None]
    camera = intrinsics.double()
    across = torch.hypot(dx / camera[0, 0], dy / camera[1, 1])
    reach = math.tan(math.radians(steepest)) * torch.minimum(near, own) * across
    used = inside & (near > 0) & (own > 0) & ((near - own).abs() <= reach)
    slope, solved = _plane(torch.where(used, 1.0 / near.clamp(min=1e-9), 0.0), used, dx, dy)
    # From offsets to pixels: q = a (x - x0) + b (y - y0) + c.
    a, b, c = slope.unbind(1)
    by_pixel = torch.stack([a, b, c - a * column - b * row], dim=1)
    normal = torch.nn.functional.normalize(-(by_pixel @ camera), dim=1)
    enough = solved & (used.sum(1) * 2 >= len(dx))
    return torch.where(enough[:, None], normal, 0.0).to(depth.dtype)


def _plane(
    value: Float[Tensor, "pixel neighbour"], used: Tensor, dx: Tensor, dy: Tensor
) -> tuple[Float[Tensor, "pixel 3"], Tensor]:
    """Least squares of value = a dx + b dy + c over the used neighbours, and where they determine it."""
    basis = torch.stack([dx, dy, torch.ones_like(dx)], dim=1).double()
    weight = used.double()
    products = torch.einsum("pn,ni,nj->pij", weight, basis, basis)
    right = (value * weight) @ basis
    solved = torch.linalg.det(products) > 0.5  # a whole number: 0 for neighbours on one line
    identity = torch.eye(3, dtype=products.dtype, device=products.device)
    products = torch.where(solved[:, None, None], products, identity)
    return torch.linalg.solve(products, right[:, :, None])[:, :, 0], solved
