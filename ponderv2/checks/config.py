"""Settings of the checks. Never imports torch."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import StrictConfig


class CheckConfig(StrictConfig):
    """The reprojection check, and that of drives."""

    max_frames: PositiveInt = 24
    """Frames that are looked at."""
    n_pixels: PositiveInt = 1500
    """Pixels per frame."""
    tolerance: PositiveFloat = 0.05
    """Metres: what counts as agreement."""
    key_frames: PositiveInt = 6
    """Of a drive, whose images are compared with the LiDAR."""
    pictures: NonNegativeInt = 20
    """Key frames at most of which a picture is drawn, one for each drive; suspect drives first."""
    min_inliers: float = Field(default=0.6, ge=0.0, le=1.0)
    """Share of agreeing pixels below which a scene is suspect."""
