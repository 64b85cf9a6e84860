"""Feature volumes, and their value and Jacobian at points."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FeatureVolume:
    """One feature grid per scene, and the box that it covers in the frame of the rays."""

    values: Float[Tensor, "scene channel z y x"]
    lower: Float[Tensor, "scene 3"]
    upper: Float[Tensor, "scene 3"]
    """Corners (x, y, z) of the box. With `corners_are_centres`, of the first and last cell *centres*."""
    corners_are_centres: bool = False
    """True: box corners are cell centres (align_corners), as published. False: box faces are cell faces."""
