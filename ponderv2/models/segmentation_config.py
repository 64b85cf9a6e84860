"""Settings of a model that gives every point a class."""

from __future__ import annotations

from typing import Literal

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderConfig
from ponderv2.heads.config import HeadConfig, SegmentationLossConfig


class SegmentationModelConfig(StrictConfig):
    """An encoder and a head."""

    kind: Literal["segmentation"] = "segmentation"
    encoder: EncoderConfig | None = None
    """None: that of the checkpoint which is fine-tuned."""
    head: HeadConfig = HeadConfig()
    losses: SegmentationLossConfig = SegmentationLossConfig()
    freeze_encoder: bool = False
    """Train the head alone on the features of the encoder (linear probe). Its normalisations use their stored
    statistics, also in training."""
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset: the prompt of a new dataset."""
