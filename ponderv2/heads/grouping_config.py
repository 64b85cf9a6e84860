"""Settings of the clustering that turns points into objects. Never imports torch."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import StrictConfig


class GroupingConfig(StrictConfig):
    """How points become objects once each has moved to the centre of its object; as published."""

    radius: PositiveFloat = 1.5
    """Points of one class nearer to each other than this are of one object, voxels."""
    min_linked: PositiveInt = 50
    """Smaller groups are dropped, voxels."""
    more_than: NonNegativeInt = 100
    """Objects have more voxels than this."""
