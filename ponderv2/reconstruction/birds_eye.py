"""A field and a cloud from above: heights in a regular grid, for scenes that have no ceiling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.transforms import transform_points
from ponderv2.reconstruction.scene_field import MIN_OPACITY, SceneField

ABOVE = 2.0
"""Rays start this much above the box of the field, metres."""


@torch.no_grad()
def heights_of_field(field: SceneField, cell: float, chunk: int = 4096) -> Float[Tensor, "row column"]:
    """z of the uppermost surface at the centre of every cell, scene units; nan where there is none.

    The first row has the largest y. `cell`: metres per pixel.
    """
    x, y = _centres(field, cell)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    top = float(field.upper[2]) + ABOVE
    start = torch.stack([columns, rows, torch.full_like(rows, top)], dim=-1).reshape(-1, 3)
    down = field.to_volume.double()[:3, :3] @ torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    origins = transform_points(field.to_volume.double(), start.double()).float()
    directions = (down / down.norm()).float().expand(len(start), 3)
    found = field.render(RayBundle(origins, directions, torch.zeros(len(start), dtype=torch.int64)), chunk)
    height = top - found.distance / float(down.norm())
    return torch.where(found.opacity >= MIN_OPACITY, height, torch.nan).view(rows.shape)


def heights_of_points(
    coord: Float[Tensor, "point 3"], field: SceneField, cell: float
) -> Float[Tensor, "row column"]:
    """The same of points in the box of the field: z of the highest in every cell."""
    x, y = _centres(field, cell)
    inside = ((coord >= field.lower) & (coord <= field.upper)).all(dim=1)
    column = ((coord[inside, 0] - field.lower[0]) / cell).long().clamp(max=len(x) - 1)
    row = ((field.upper[1] - coord[inside, 1]) / cell).long().clamp(max=len(y) - 1)
    highest = torch.full((len(y) * len(x),), -torch.inf)
    highest.scatter_reduce_(0, row * len(x) + column, coord[inside, 2].float(), reduce="amax")
    return torch.where(torch.isfinite(highest), highest, torch.nan).view(len(y), len(x))


def _centres(field: SceneField, cell: float) -> tuple[Tensor, Tensor]:
    """x from left to right, y from top to bottom."""
    n_columns, n_rows = (max(round(float(one) / cell), 1) for one in (field.upper - field.lower)[:2])
    x = float(field.lower[0]) + cell * (torch.arange(n_columns) + 0.5)
    return x, float(field.upper[1]) - cell * (torch.arange(n_rows) + 0.5)
