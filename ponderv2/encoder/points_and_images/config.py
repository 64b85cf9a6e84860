"""Settings of an encoder with two branches. Never imports torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderStage, SparseUNetConfig
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig


class PointsAndImagesConfig(StrictConfig):
    """LiDAR and cameras: each branch as it is pre-trained alone. The features of points are brought to the
    width of the maps by a linear layer, so that both can be summed in one volume."""

    needs: ClassVar[Literal["points_and_images"]] = "points_and_images"
    gives: ClassVar[Literal["points_and_images"]] = "points_and_images"
    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0

    kind: Literal["points_and_images"] = "points_and_images"
    points: SparseUNetConfig = SparseUNetConfig()
    images: ImageBackboneConfig = ImageBackboneConfig()

    @property
    def in_channels(self) -> int:
        """Of a point."""
        return self.points.in_channels

    @property
    def out_channels(self) -> int:
        """Of both branches."""
        return self.images.out_channels

    @property
    def stages(self) -> tuple[EncoderStage, ...]:
        """Those of both branches side by side: the first ones are the first of each."""
        branches = (("points.", self.points.stages), ("images.", self.images.stages))
        n_stages = max(len(stages) for _, stages in branches)
        each: list[EncoderStage] = []
        for number in range(n_stages):
            there = [(name, stages[number]) for name, stages in branches if number < len(stages)]
            prefixes = tuple(name + prefix for name, stage in there for prefix in stage.prefixes)
            each.append(EncoderStage(prefixes, decodes=all(stage.decodes for _, stage in there)))
        return (*each, EncoderStage(("widen.",), decodes=True))
