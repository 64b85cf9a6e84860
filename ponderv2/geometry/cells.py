"""A volume of which few cells hold anything: their features alone, without the empty space."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.volumes import FeatureVolume


@dataclass(frozen=True)
class CellVolume:
    """The occupied cells of one grid per scene; all others are zero. The boxes are those of the grids."""

    rows: Float[Tensor, "cell channel"]
    number: Int[Tensor, " cell"]
    """`((scene * size_z + z) * size_y + y) * size_x + x`, ascending."""
    shape: tuple[int, int, int, int]
    """Scenes, and cells along z, y, x."""
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    corners_are_centres: bool = False
    """As in `FeatureVolume`."""

    @property
    def n_cells(self) -> int:
        """Occupied and empty ones."""
        return prod(self.shape)

    def dense(self) -> Float[Tensor, "scene channel z y x"]:
        """With the empty cells; the channel is last in memory."""
        empty = self.rows.new_zeros(self.n_cells, self.rows.shape[1])
        return empty.index_copy(0, self.number, self.rows).view(*self.shape, -1).permute(0, 4, 1, 2, 3)

    def volume(self) -> FeatureVolume:
        """The dense volume."""
        return self.with_values(self.dense())

    def with_values(self, values: Float[Tensor, "scene channel z y x"]) -> FeatureVolume:
        """Other features of all cells, in the same boxes."""
        return FeatureVolume(values, self.lower, self.upper, self.corners_are_centres)
