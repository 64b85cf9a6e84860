"""Settings of the generated streets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig


class StreetConfig(StrictConfig):
    """How many streets are generated, how long they are driven along and what the sensors measure."""

    kind: Literal["streets"] = "streets"
    scenes: PositiveInt = 12
    """Number of streets, both splits together."""
    val_every: PositiveInt = 5
    """Every n-th street belongs to `val`, the others to `train`, however many there are."""
    seed: NonNegativeInt = 0
    """Street number i is a function of (seed, i) and of the settings below, not of the number of streets."""
    key_frames: PositiveInt = 20
    """Annotated samples of a street, two each second."""
    width: PositiveInt = 400
    """Of an image, pixels."""
    height: PositiveInt = 224
    """Of an image, pixels."""
    camera_rate: Literal[2, 12] = 2
    """Images of each camera in a second: those of the key frames alone, or those between them too."""
    sweeps: bool = True
    """Also write the 20 revolutions of the LiDAR in each second, not only those of the key frames."""
    columns: PositiveInt = 1084
    """Firings of the 32 lasers in one revolution."""
    compensated: bool = True
    """Points as if all were measured at the end of the revolution, by the motion of the vehicle; False: as
    the turning sensor measured them."""
    traffic: PositiveFloat = 1.0
    """Scales the number of vehicles and people."""
    conditions: Literal["mixed", "clear"] = "mixed"
    """mixed: sun, clouds, rain, dusk and night; clear: all streets at noon."""
    noise: bool = True
    """False: exact ranges, no missing points and no noise in images, for tests and upper bounds."""
    jpeg_quality: int = Field(default=92, ge=30, le=100)
    """Of the images."""

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> StreetConfig:
        if min(self.width, self.height) < 16:
            raise ValueError(f"images have at least 16 x 16 pixels, got {self.width} x {self.height}")
        if self.columns < 36:
            raise ValueError(f"a revolution has at least 36 columns, got {self.columns}")
        return self
