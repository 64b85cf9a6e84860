"""Settings of instance segmentation: a class and an offset to the centre of its object for every point."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from ponderv2.heads.config import GroupingConfig
from ponderv2.models.config import EncoderModelConfig


class InstancesModelConfig(EncoderModelConfig):
    """An encoder and the heads of PointGroup."""

    kind: Literal["instances"] = "instances"
    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""
    ignored_classes: tuple[NonNegativeInt, ...] = (0, 1)
    """Classes without instances: neither learned as objects, nor found, nor evaluated. 0 and 1 are
    wall and floor of the 20 classes of ScanNet; of its 200 classes they are 0 and 2."""
    grouping: GroupingConfig = GroupingConfig()

    def without_files(self) -> InstancesModelConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self
