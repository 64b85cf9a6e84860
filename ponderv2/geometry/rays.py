"""Rays, and where they meet a box. Directions have unit length; distances run along the ray."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RayBundle:
    """Rays of all scenes and views of a batch, as one flat set, in the frame of their scene's volume."""

    origins: Float[Tensor, "ray 3"]
    directions: Float[Tensor, "ray 3"]
    """Unit length."""
    scene: Int[Tensor, " ray"]
    """Which volume of the batch the ray runs through."""
