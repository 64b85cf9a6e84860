"""Settings of the CenterPoint head. Never imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class RotatedNmsConfig(StrictConfig):
    """Boxes of a group that overlap in the plane: the surer one stays."""

    kind: Literal["rotated"] = "rotated"
    max_iou: Share = 0.2


class CircleNmsConfig(StrictConfig):
    """Boxes of a group whose centres are near each other in the plane: the surer one stays."""

    kind: Literal["circle"] = "circle"
    radii: tuple[PositiveFloat, ...]
    """Metres, one of each group. Published: the square roots of 4, 12, 10, 1, 0.85 and 0.175, as the numbers
    of the settings are compared with squared distances."""


class CenterHeadConfig(StrictConfig):
    """A heat map of centres for each class, and the box at each centre (Yin et al. 2021, section 4).

    Reads a volume whose cells above each other are one cell of the bird's-eye view.
    """

    kind: Literal["center"] = "center"
    reads: ClassVar[Literal["points", "volume"]] = "volume"
    shown_score: ClassVar[float] = 0.3
    """Boxes that are at least so sure are drawn, exported and given by `ponder detect`."""
    groups: tuple[tuple[str, ...], ...] | None = None
    """Classes that share the layers of their boxes and suppress each other, by name. None: all in one group.
    Classes of the data set that no group names are not detected."""
    widths: tuple[PositiveInt, ...] = (128, 256)
    """Channels of the stages of the 2D network; each after the first has half the resolution of the one
    before."""
    layers: tuple[PositiveInt, ...] = (6, 6)
    """3x3 convolutions of each stage."""
    neck: PositiveInt = 256
    """Channels that each stage has after it is brought back to the resolution of the first."""
    shared: PositiveInt = 64
    """Channels of the layer that all outputs read, and of the one before each output."""
    velocity: bool = True
    """Predict velocities in the plane. False: the data has none, or they do not matter."""
    overlap: Share = 0.1
    """Smallest IoU that a box of a centre within the radius of a true one would still have."""
    min_radius: PositiveInt = 2
    """Of the Gaussian around a true centre, cells."""
    box_weight: NonNegativeFloat = 0.25
    """Of the L1 terms of boxes beside the heat map."""
    velocity_weight: NonNegativeFloat = 0.2
    """Of velocities among them."""
    max_centers: PositiveInt = 500
    """Centres of a group that are decoded at most."""
    max_boxes: PositiveInt = 83
    """Boxes of a group that are left at most."""
    min_score: Share = 0.1
    nms: Annotated[RotatedNmsConfig | CircleNmsConfig, Field(discriminator="kind")] = RotatedNmsConfig()

    @model_validator(mode="after")
    def _fits(self) -> CenterHeadConfig:
        if len(self.widths) != len(self.layers) or not self.widths:
            raise ValueError(f"widths and layers are of the same stages, got {self.widths} and {self.layers}")
        names = [name for group in self.groups or () for name in group]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or any(not group for group in self.groups or ()):
            raise ValueError(f"each class is in one group, and each group has classes: {twice or 'empty'}")
        n_groups = 1 if self.groups is None else len(self.groups)
        if isinstance(self.nms, CircleNmsConfig) and len(self.nms.radii) != n_groups:
            raise ValueError(f"nms.radii has {len(self.nms.radii)} numbers for {n_groups} groups")
        return self

    def numbers(self, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """The classes of each group by their numbers. Raises ValueError for a name that is no class."""
        unknown = [name for group in self.groups or () for name in group if name not in classes]
        if unknown:
            raise ValueError(f"groups name '{unknown[0]}', which is none of {', '.join(classes)}")
        if self.groups is None:
            return (tuple(range(len(classes))),)
        return tuple(tuple(classes.index(name) for name in group) for group in self.groups)
