"""Settings of the FCAF3D head. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig


class FCAF3DLossConfig(StrictConfig):
    """Weights of the terms; 1 each as published."""

    classification: NonNegativeFloat = 1.0
    """Of the focal loss of the classes over all locations."""
    centerness: NonNegativeFloat = 1.0
    """Of the cross-entropy of the centreness over the locations of boxes."""
    box: NonNegativeFloat = 1.0
    """Of 1 - IoU over the locations of boxes, weighted by their centreness."""


class FCAF3DHeadConfig(StrictConfig):
    """Every occupied or generated cell of several levels predicts a box. Defaults are as published.

    What is not as published: the levels are made from the features of any encoder of points, by strided
    convolutions of this head, and not by a ResNet-34; children of pruned cells are gone even where the
    encoder has features; locations are the centres of cells.

    In the manner of TR3D, a simplification by the same authors: `widths` of two levels, `most_cells: null`
    and `level_of_class`.
    """

    kind: Literal["fcaf3d"] = "fcaf3d"
    reads: ClassVar[Literal["points"]] = "points"
    shown_score: ClassVar[float] = 0.15
    """Boxes that are at least so sure are drawn, exported and given by `ponder detect`."""
    cell: PositiveFloat = 0.08
    """Edge of the cells of the finest level, metres; each further level doubles it."""
    widths: tuple[PositiveInt, ...] = Field((64, 128, 256, 512), min_length=1)
    """Channels of each level, the finest first."""
    channels: PositiveInt = 128
    """Of the features that the predictions are made of."""
    yaw: bool = False
    """Whether boxes turn about z. Without, they are the axis-aligned hulls of the annotated ones."""
    most_cells: PositiveInt | None = 100_000
    """Cells of a level that are left of a scene after pruning by the class scores of the coarser level; null:
    nothing is pruned."""
    min_locations: PositiveInt = 27
    """A box belongs to the coarsest level before the first with fewer locations inside."""
    most_locations: PositiveInt = 18
    """Locations that predict a box: those with the highest centreness."""
    level_of_class: Mapping[str, NonNegativeInt] | None = None
    """Level that predicts each class, by its name, 0 = the finest; null: by `min_locations`."""
    losses: FCAF3DLossConfig = FCAF3DLossConfig()
    min_score: NonNegativeFloat = 0.01
    """Less sure boxes are dropped."""
    most_candidates: PositiveInt = 1000
    """Locations of each level that may become boxes: those with the highest scores."""
    nms_iou: PositiveFloat = 0.5
    """Boxes of one class that overlap more than this are one object."""

    @model_validator(mode="after")
    def _levels_exist(self) -> FCAF3DHeadConfig:
        highest = max((self.level_of_class or {}).values(), default=0)
        if highest >= len(self.widths):
            raise ValueError(f"level_of_class names level {highest}, but widths has {len(self.widths)}")
        return self

    def levels(self, classes: tuple[str, ...]) -> tuple[int, ...] | None:
        """Level of each class; None where it follows from the locations. Raises ValueError for a class
        without one."""
        levels = self.level_of_class
        if levels is None:
            return None
        missing = [name for name in classes if name not in levels]
        if missing:
            raise ValueError(f"level_of_class lacks the class '{missing[0]}'")
        return tuple(levels[name] for name in classes)
