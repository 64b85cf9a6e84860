"""Settings of the encoder of one convolution."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderStage


class OneConvolutionConfig(StrictConfig):
    """Images to feature maps of a quarter of their size."""

    needs: ClassVar[Literal["images"]] = "images"
    gives: ClassVar[Literal["images"]] = "images"
    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0

    kind: Literal["one_convolution"] = "one_convolution"
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 16

    @property
    def stages(self) -> tuple[EncoderStage, ...]:
        """The only one."""
        return (EncoderStage(("convolution.",)),)
