"""Where rays are in a volume, and the cells around each place, by plain arithmetic per axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume


@dataclass(frozen=True)
class Placed:
    """Rays in the coordinates of their volume: position = origin + direction * distance, 0..1 inside."""

    origin: Float[Tensor, "3 ray"]
    direction: Float[Tensor, "3 ray"]
    edge: Float[Tensor, "3 ray"]
    """Of the volume's box, in the frame of the rays."""
    scene: Int[Tensor, " ray"]

    @staticmethod
    def of(volume: FeatureVolume, rays: RayBundle) -> Placed:
        """As the volume's box lies in the frame of the rays."""
        lower, edge = volume.lower.to(rays.origins), (volume.upper - volume.lower).to(rays.origins)
        lower, edge = lower[rays.scene], edge[rays.scene]
        return Placed(((rays.origins - lower) / edge).T, (rays.directions / edge).T, edge.T, rays.scene)

    def at(self, starts: Float[Tensor, "ray sample"]) -> Float[Tensor, "3 ray sample"]:
        """Positions at distances along the rays."""
        return torch.addcmul(self.origin[:, :, None], self.direction[:, :, None], starts)


@dataclass(frozen=True)
class Surroundings:
    """The 8 cells around each place, with the coefficients of the value and of its three derivatives."""

    index: Int[Tensor, "place 8"]
    coefficient: Float[Tensor, "place sum 8"]
    """First of the value, then (where asked for) of d / d x, y, z per edge of the box."""

    def part(self, places: slice) -> Surroundings:
        """Of some of the places."""
        return Surroundings(self.index[places], self.coefficient[places])

    def mixed(
        self, rows: Float[Tensor, "cell channel"], n_sums: int | None = None
    ) -> Float[Tensor, "place sum channel"]:
        """The first sums over the cells' rows, or all."""
        n_sums = self.coefficient.shape[1] if n_sums is None else n_sums
        coefficient = self.coefficient[:, :n_sums].flatten(0, 1)
        bags = self.index[:, None].expand(-1, n_sums, -1).flatten(0, 1)
        found = F.embedding_bag(bags, rows, mode="sum", per_sample_weights=coefficient)
        return found.unflatten(0, (len(self.index), n_sums))


def surroundings(
    volume: FeatureVolume,
    position: Float[Tensor, "3 place"],
    scene: Int[Tensor, " place"],
    with_slope: bool,
) -> Surroundings:
    """What `corners_at` finds, for positions 0..1 in the volume's box."""
    size = position.new_tensor(tuple(reversed(volume.values.shape[2:])))[:, None]  # x, y, z
    if volume.corners_are_centres:
        place = position * (size - 1)
        first = place.floor().clamp(min=-2).minimum(size + 1)
        low_exists, high_exists = _within(first, size - 1), _within(first + 1, size - 1)
        varies = size - 1
    else:
        place = position * size - 0.5
        box = _within(position, 1.0)
        low_exists = box[0] * box[1] * box[2]
        high_exists = low_exists * (size > 1)
        varies = _within(place, size - 1) * size
        place = place.clamp(min=0).minimum(size - 1)
        first = place.floor().minimum((size - 2).clamp(min=0))
    fraction = place - first
    mix = torch.stack([(1.0 - fraction) * low_exists, fraction * high_exists])
    coefficient = [_products(mix[:, 0], mix[:, 1], mix[:, 2])]
    if with_slope:
        slope = torch.stack([varies * -low_exists, varies * high_exists])
        coefficient += [_products(slope[:, 0], mix[:, 1], mix[:, 2])]
        coefficient += [_products(mix[:, 0], slope[:, 1], mix[:, 2])]
        coefficient += [_products(mix[:, 0], mix[:, 1], slope[:, 2])]
    every = torch.cat(coefficient).T.contiguous().unflatten(1, (len(coefficient), 8))
    return Surroundings(_cells(volume, first, size, scene), every)


def _within(value: Tensor, largest: Tensor | float) -> Tensor:
    """1 where 0 <= value <= largest, else 0, without comparisons, which are several times slower."""
    return (value * (largest - value)).sign_().add_(1.0).clamp_(max=1.0)


def _products(x: Tensor, y: Tensor, z: Tensor) -> Float[Tensor, "8 place"]:
    """Of the two factors per axis, x fastest."""
    return ((z[:, None] * y)[:, :, None] * x).flatten(0, 2)


def _cells(volume: FeatureVolume, first: Tensor, size: Tensor, scene: Tensor) -> Int[Tensor, "place 8"]:
    whole = torch.int32 if volume.n_cells < 2**31 else torch.int64
    ends = torch.stack([first, first + 1]).clamp(min=0).minimum(size - 1).to(whole)
    size_z, size_y, size_x = volume.values.shape[2:]
    x, y, z = ends[:, 0], ends[:, 1] * size_x, ends[:, 2] * (size_x * size_y)
    if len(volume.values) > 1:
        z = z + scene.to(whole) * (size_x * size_y * size_z)
    return ((z[:, None] + y)[:, :, None] + x).flatten(0, 2).T.contiguous()
