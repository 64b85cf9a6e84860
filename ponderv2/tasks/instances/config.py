"""Settings of a model that finds single objects: a class and an offset to its centre for every point."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderConfig
from ponderv2.heads.config import GroupingConfig


class InstancesModelConfig(StrictConfig):
    """An encoder and the heads of PointGroup."""

    kind: Literal["instances"] = "instances"
    encoder: EncoderConfig | None = None
    """None: that of the checkpoint which is fine-tuned."""
    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""
    ignored_classes: tuple[NonNegativeInt, ...] = (0, 1)
    """Classes without single objects: neither learned as objects, nor found, nor evaluated. 0 and 1 are
    wall and floor of the 20 classes of ScanNet; of its 200 classes they are 0 and 2."""
    grouping: GroupingConfig = GroupingConfig()
    freeze_encoder: bool = False
    """Train the heads alone on the features of the encoder."""
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset."""
    conditions: tuple[str, ...] = ()
    """Datasets in the order of the rows of `embedding_table`; empty: that of the encoder."""

    def without_files(self) -> InstancesModelConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self

    def knows(self, condition: str) -> bool:
        """Whether the encoder has a part for the dataset."""
        known = getattr(self.encoder, "conditions", ())
        name = self.condition or condition
        return not known or (name in known and name in (self.conditions or known))
