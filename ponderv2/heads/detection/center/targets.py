"""What the CenterPoint head is to say: heat maps with a Gaussian at each centre, and the box at its cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes

TINY = 1.0e-3
"""Metres: the least size whose logarithm is learned."""
CODE = 10
"""Numbers of a box: offset in its cell (column, row), z, log of length, width and height, sine and cosine of
the yaw, velocity along x and y."""


@dataclass(frozen=True)
class Plane:
    """The cells of a bird's-eye view: columns along x, rows along y."""

    lower: tuple[float, float]
    """Outer corner of the first cell, metres."""
    cell: tuple[float, float]
    """Sides of a cell, metres."""
    columns: int
    rows: int


@dataclass(frozen=True)
class Centers:
    """Boxes of some scenes at the cells of their centres; those beyond the plane are left out."""

    scene: Int[Tensor, " center"]
    row: Int[Tensor, " center"]
    column: Int[Tensor, " center"]
    category: Int[Tensor, " center"]
    """Place of the class in its group."""
    code: Float[Tensor, "center code"]
    """The ten numbers of the box; velocities may be nan."""
    radius: Int[Tensor, " center"]
    """Of the Gaussian, cells."""


def gaussian_radius(
    length: Float[Tensor, " box"], width: Float[Tensor, " box"], overlap: float, least: int
) -> Int[Tensor, " box"]:
    """How far a centre may be off, in cells, so that the IoU is at least `overlap` (Law and Deng 2018).

    Three cases, of which the least counts: the box is moved, lies inside, or lies around. The roots are
    divided by 2 in all three, as in the code of CornerNet, which all later work follows.
    """
    around, area = length + width, length * width

    def root(b: Tensor, four_ac: Tensor) -> Tensor:
        return (b + (b.square() - four_ac).clamp(min=0.0).sqrt()) / 2.0

    moved = root(around, 4.0 * area * (1.0 - overlap) / (1.0 + overlap))
    inside = root(2.0 * around, 16.0 * area * (1.0 - overlap))
    outside = root(-2.0 * overlap * around, -16.0 * overlap * (1.0 - overlap) * area)
    smallest = torch.minimum(torch.minimum(moved, inside), outside)
    return smallest.floor().long().clamp(min=least)


def centers_of(
    boxes: list[Boxes], group: tuple[int, ...], plane: Plane, overlap: float, least_radius: int
) -> Centers:
    """The boxes of the classes of a group, scene by scene, on one device."""
    device = boxes[0].center.device if boxes else torch.device("cpu")
    scene = torch.repeat_interleave(
        torch.arange(len(boxes), device=device),
        torch.tensor([len(one) for one in boxes], dtype=torch.long, device=device),
    )
    center, size = (torch.cat([getattr(one, name) for one in boxes]).float() for name in ("center", "size"))
    yaw = torch.cat([one.yaw for one in boxes]).float()
    velocity = torch.cat([one.velocity for one in boxes]).float()
    category = torch.cat([one.category for one in boxes])
    matches = category[:, None] == torch.tensor(group, dtype=category.dtype, device=device)
    place = (center[:, :2] - center.new_tensor(plane.lower)) / center.new_tensor(plane.cell)
    cell = place.floor()
    within = ((cell >= 0) & (cell < cell.new_tensor([plane.columns, plane.rows]))).all(dim=1)
    kept = (matches.any(dim=1) & within).nonzero()[:, 0]
    in_cells = size[kept, :2] / size.new_tensor(plane.cell).prod().sqrt()
    code = torch.cat(
        [
            (place - cell)[kept],
            center[kept, 2:],
            size[kept].clamp(min=TINY).log(),
            torch.sin(yaw[kept, None]),
            torch.cos(yaw[kept, None]),
            velocity[kept, :2],
        ],
        dim=1,
    )
    return Centers(
        scene=scene[kept],
        row=cell[kept, 1].long(),
        column=cell[kept, 0].long(),
        category=matches[kept].int().argmax(dim=1),
        code=code,
        radius=gaussian_radius(in_cells[:, 0], in_cells[:, 1], overlap, least_radius),
    )


def heat_map(
    centers: Centers, n_scenes: int, n_classes: int, plane: Plane
) -> Float[Tensor, "scene class row column"]:
    """1 at each centre, a Gaussian of sigma (2 r + 1) / 6 within the square of side 2 r + 1 around it; the
    largest where several meet."""
    device = centers.code.device
    flat = torch.zeros(n_scenes * n_classes * plane.rows * plane.columns, device=device)
    if len(centers.row) == 0:
        return flat.view(n_scenes, n_classes, plane.rows, plane.columns)
    reach = int(centers.radius.max())
    steps = torch.arange(-reach, reach + 1, device=device)
    dy, dx = (one.reshape(-1) for one in torch.meshgrid(steps, steps, indexing="ij"))
    row, column = centers.row[:, None] + dy, centers.column[:, None] + dx
    radius = centers.radius[:, None]
    drawn: Bool[Tensor, "center cell"] = (
        (dy.abs() <= radius)
        & (dx.abs() <= radius)
        & (row >= 0)
        & (row < plane.rows)
        & (column >= 0)
        & (column < plane.columns)
    )
    sigma = (2.0 * radius.float() + 1.0) / 6.0
    value = torch.exp(-(dy.square() + dx.square()).float() / (2.0 * sigma.square()))
    first = (centers.scene * n_classes + centers.category)[:, None]
    index = (first * plane.rows + row) * plane.columns + column
    flat.scatter_reduce_(0, index[drawn], value[drawn], reduce="amax")
    return flat.view(n_scenes, n_classes, plane.rows, plane.columns)
