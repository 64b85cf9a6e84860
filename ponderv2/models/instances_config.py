"""Settings of a model that finds single objects: a class and an offset to its centre for every point."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderConfig


class InstancesModelConfig(StrictConfig):
    """An encoder and a PointGroup head."""

    kind: Literal["instances"] = "instances"
    encoder: EncoderConfig | None = None
    """None: that of the checkpoint which is fine-tuned."""
    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""
    freeze_encoder: bool = False
    """Train the head alone on the features of the encoder."""
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset."""
