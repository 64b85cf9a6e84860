"""Feature volumes, and their value and Jacobian at points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.weighted_rows import RowIndex, weighted_sum


@dataclass(frozen=True)
class ChannelMap:
    """A linear map of the channels that is the same in all cells: a 1x1x1 convolution."""

    weight: Float[Tensor, "out channel"]
    bias: Float[Tensor, " out"]

    def __call__(
        self, rows: Float[Tensor, "row channel"], part: slice = slice(None)
    ) -> Float[Tensor, "row _"]:
        """Of the results only those in `part`."""
        return F.linear(rows, self.weight[part], self.bias[part])


@dataclass(frozen=True)
class FeatureVolume:
    """One feature grid per scene, and the box that it covers in the frame of the rays."""

    values: Float[Tensor, "scene channel z y x"]
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    """Corners (x, y, z) of the box. With `corners_are_centres`, of the first and last cell *centres*."""
    corners_are_centres: bool = False
    """True: box corners are cell centres (align_corners), as published. False: box faces are cell faces."""
    last: ChannelMap | None = None
    """What is still to be applied to each cell that is read, so that the others never have their features."""

    @property
    def n_cells(self) -> int:
        """Cells of all scenes together."""
        return self.values.shape[0] * self.values[0, 0].numel()

    def rows(self, channels: slice = slice(None)) -> Float[Tensor, "cell channel"]:
        """The features, one row per cell in the order scene, z, y, x."""
        if self.last is not None:
            return self.last(self.value_rows(), channels)
        return self.value_rows(channels)

    def value_rows(self, channels: slice = slice(None)) -> Float[Tensor, "cell channel"]:
        """`values`, one row per cell: a copy, unless they are stored channels-last."""
        picked = self.values[:, channels]
        if picked.is_contiguous(memory_format=torch.channels_last_3d) or not self.values.is_contiguous():
            return picked.permute(0, 2, 3, 4, 1).reshape(self.n_cells, picked.shape[1])
        # plain transposes are several times faster than a permutation of five axes
        parts = [grid.flatten(1).T.contiguous() for grid in picked]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def used_rows(
    values: Float[Tensor, "scene channel z y x"], rows: tuple[Tensor, ...], used: Int[Tensor, " used"]
) -> tuple[Float[Tensor, "used _"], ...]:
    """`part[used]` for each part of `value_rows`, in order; the gradient goes to `values`.

    `used` names each cell once. The gradient is written once, in the memory format of `values`.
    """
    return _UsedRows.apply(values, used, *rows)


class _UsedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, used: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(used)
        ctx.shape = values.shape
        ctx.channels_first = values.is_contiguous()
        return tuple(part.index_select(0, used) for part in rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (used,) = ctx.saved_tensors
        scene, channel, z, y, x = ctx.shape
        dense = gradients[0].new_zeros(scene * z * y * x, channel)
        # Into place one by one: their copy side by side would be the largest array of a training step's peak.
        for part, gradient in zip(
            dense.split([one.shape[1] for one in gradients], dim=1), gradients, strict=True
        ):
            part.index_copy_(0, used, gradient)
        if ctx.channels_first:
            by_channel = dense.new_empty(scene, channel, z * y * x)
            for target, source in zip(by_channel, dense.view(scene, z * y * x, channel), strict=True):
                target.copy_(source.T)  # a plain transpose is several times faster than a permutation
            by_channel = by_channel.view(ctx.shape)
        else:
            by_channel = dense.view(scene, z, y, x, channel).permute(0, 4, 1, 2, 3)
        return by_channel, None, *(None for _ in gradients)


@dataclass(frozen=True)
class Corners:
    """The 8 cells around each point, and how they are mixed there."""

    index: RowIndex
    """Into `FeatureVolume.rows`. Cells outside the volume have coefficient 0."""
    weight: Float[Tensor, "point 1 8"]
    slope: Float[Tensor, "point 3 8"]
    """Derivative of `weight` with respect to x, y, z of the point, in the frame of the rays."""


def corners_at(
    volume: FeatureVolume, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
) -> Corners:
    """The cells that a trilinear lookup at `points` reads.

    With `corners_are_centres` cells beyond the border count as zero. Without, the outer half cell repeats its
    cell centre's value and everything outside the box is zero. Differentiable with respect to the points.
    """
    size_z, size_y, size_x = volume.values.shape[2:]
    size = torch.tensor([size_x, size_y, size_z], device=points.device)
    per_unit, position = _cell_coordinates(volume, points, scene, size)
    inside = torch.ones_like(position, dtype=torch.bool)
    box = torch.ones_like(inside[:, :1])
    if not volume.corners_are_centres:
        box = ((position >= -0.5) & (position <= size - 0.5)).all(dim=-1, keepdim=True)
        inside = (position >= 0) & (position <= size - 1)  # beyond the outer centres nothing changes
        position = position.clamp(min=torch.zeros_like(size), max=size - 1)
    first = position.detach().floor().clamp(min=-2)
    if not volume.corners_are_centres:
        first = first.clamp(max=(size - 2).clamp(min=0))
    first = first.clamp(max=size + 1)
    fraction = position - first
    cell = first.long()[..., None] + torch.tensor([0, 1], device=points.device)
    exists = (cell >= 0) & (cell < size[:, None]) & box[..., None]
    mix = torch.stack([1.0 - fraction, fraction], dim=-1) * exists
    step = (per_unit * inside)[..., None] * points.new_tensor([-1.0, 1.0]) * exists
    cell = torch.minimum(cell.clamp(min=0), size[:, None] - 1)
    return Corners(_flat_index(volume, cell, scene), *_products(mix, step))


def _cell_coordinates(
    volume: FeatureVolume, points: Tensor, scene: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Cells per unit of length, and the position counted in cell centres."""
    intervals = size - 1 if volume.corners_are_centres else size
    per_unit = (intervals / (volume.upper - volume.lower).to(points.dtype))[scene]
    position = (points - volume.lower.to(points.dtype)[scene]) * per_unit
    return per_unit, position if volume.corners_are_centres else position - 0.5


def _flat_index(volume: FeatureVolume, cell: Tensor, scene: Tensor) -> RowIndex:
    _, _, size_z, size_y, size_x = volume.values.shape
    x, y, z = cell.unbind(dim=1)
    plane = (scene.long()[:, None] * size_z + z) * size_y
    index = (plane[:, :, None, None] + y[:, None, :, None]) * size_x + x[:, None, None, :]
    return RowIndex(index.reshape(-1, 8), volume.n_cells)


def _products(mix: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The 8 trilinear weights and their derivatives, from the two weights along each axis."""

    def product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).reshape(-1, 8)

    x, y, z = mix.unbind(dim=1)
    step_x, step_y, step_z = step.unbind(dim=1)
    slope = torch.stack([product(step_x, y, z), product(x, step_y, z), product(x, y, step_z)], dim=1)
    return product(x, y, z)[:, None], slope


def lookup(
    volume: FeatureVolume,
    points: Float[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    channels: slice = slice(None),
) -> Float[Tensor, "point channel"]:
    """Trilinear value at points of the ray frame; zero outside the volume (see `corners_at`)."""
    corners = corners_at(volume, points, scene)
    return weighted_sum(volume.rows(channels), corners.weight, corners.index)[:, 0]


def trilinear(
    volume: FeatureVolume,
    points: Float[Tensor, "point 3"],
    scene: Int[Tensor, " point"],
    channels: slice = slice(None),
) -> tuple[Float[Tensor, "point channel"], Float[Tensor, "point channel 3"]]:
    """Trilinear value, and its derivative with respect to the point in ray-frame units.

    Gradients reach the volume through both results, and the points through both (cross terms included).
    """
    corners = corners_at(volume, points, scene)
    both = torch.cat([corners.weight, corners.slope], dim=1)
    mixed = weighted_sum(volume.rows(channels), both, corners.index)
    return mixed[:, 0], mixed[:, 1:].transpose(1, 2)
