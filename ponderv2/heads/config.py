"""Settings of task heads and their losses. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ponderv2.config import StrictConfig


class SegmentationLossConfig(StrictConfig):
    """Terms of the loss; 1 : 1 as published for fine-tuning, without Lovász as published from scratch."""

    cross_entropy: NonNegativeFloat = 1.0
    """Weight of the mean cross-entropy of the labelled points."""
    lovasz: NonNegativeFloat = 1.0
    """Weight of the Lovász-softmax term, which aims at intersection over union."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)


class LinearHeadConfig(StrictConfig):
    """A class per point by one linear layer."""

    kind: Literal["linear"] = "linear"
    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""
    normalise: bool = False
    """Batch normalisation of the features first: a fair linear probe of encoders whose scales differ."""


HeadConfig = LinearHeadConfig
"""The kinds of heads; a discriminated union by `kind` as soon as there are two."""
