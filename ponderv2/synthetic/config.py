"""Settings of the generated rooms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig


class RoomConfig(StrictConfig):
    """How many rooms are generated, how they are rendered and scanned."""

    kind: Literal["synthetic"] = "synthetic"
    rooms: PositiveInt = 40
    """Number of rooms, all splits together."""
    val_rooms: NonNegativeInt | None = None
    """The last of the rooms go to `val`; None = 15 %."""
    test_rooms: NonNegativeInt = 0
    """The rooms before those go to `test`."""
    seed: NonNegativeInt = 0
    """Room number i is a function of (seed, i) and of the settings below, not of the number of rooms."""
    frames: PositiveInt = 20
    """Frames per room."""
    width: PositiveInt = 160
    """Of a frame, pixels."""
    height: PositiveInt = 120
    """Of an image, pixels."""
    field_of_view: tuple[PositiveFloat, PositiveFloat] = (72.0, 88.0)
    """Horizontal, degrees; drawn once per room."""
    room_size: tuple[PositiveFloat, PositiveFloat] = (3.0, 6.5)
    """Sides of the floor plan, metres."""
    fullness: PositiveFloat = 0.42
    """Furniture is added until it covers this share of the floor."""
    noise: bool = True
    """False: exact colour and depth, for tests and upper bounds."""
    max_depth: PositiveFloat = 6.0
    """The simulated sensor sees no further, metres."""
    depth_noise: float = Field(default=1.0, ge=0.0)
    """Scales the random error of the sensor; 1 = 1.2 mm + 1.9 mm/m² (z - 0.4 m)²."""
    voxel: PositiveFloat = 0.03
    """The scanned cloud keeps one point per cube of this size, metres."""

    @model_validator(mode="after")
    def _splits_fit(self) -> RoomConfig:
        held_out = self.n_val_rooms + self.test_rooms
        if held_out > self.rooms:
            raise ValueError(f"val_rooms + test_rooms = {held_out}, but there are only {self.rooms} rooms")
        if self.field_of_view[1] >= 170.0:
            raise ValueError(f"field_of_view must stay below 170 degrees, got {self.field_of_view[1]}")
        for name in ("field_of_view", "room_size"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is (smallest, largest), got ({low}, {high})")
        return self

    @property
    def n_val_rooms(self) -> int:
        """Rooms of the validation split."""
        return round(0.15 * self.rooms) if self.val_rooms is None else self.val_rooms
