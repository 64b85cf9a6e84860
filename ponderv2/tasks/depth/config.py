"""Settings of depth: a model that predicts the depth of every pixel of an image. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from ponderv2.config import StrictConfig
from ponderv2.lift.config import DepthIntervalsConfig
from ponderv2.models.config import EncoderModelConfig


class DepthLossConfig(StrictConfig):
    """Weights of the terms, each a mean over measured pixels."""

    cross_entropy: NonNegativeFloat = 1.0
    """With the two intervals whose middles are next to the measured depth, shared by distance."""
    log_depth: NonNegativeFloat = 1.0
    """Absolute difference of the logarithms of expected and measured depth."""


class DepthModelConfig(EncoderModelConfig):
    """An encoder of images and a linear layer on its maps, read out bilinearly at every pixel.

    The layer tells intervals of depth apart (softmax); the depth of a pixel is the expected middle of an
    interval (Bhat et al. 2021; the linear probe of DINOv2, Oquab et al. 2023).
    """

    kind: Literal["depth"] = "depth"
    reads: Literal["network", "maps"] = "network"
    """The stages of the 2D network, before any layer that joins them, or the maps that the encoder makes of
    them."""
    intervals: DepthIntervalsConfig = DepthIntervalsConfig(n_bins=40, nearest=1.0, width=1.5)
    """Pixels whose measured depth lies in none of them are neither trained on nor measured."""
    n_pixels: PositiveInt = 2048
    """Measured pixels of an image, at most, that a training step compares."""
    losses: DepthLossConfig = DepthLossConfig()

    def without_files(self) -> DepthModelConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self
