"""Settings of the encoder of one convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from ponderv2.config import StrictConfig

if TYPE_CHECKING:
    from ponderv2.encoder.one_convolution.encoder import OneConvolution


class OneConvolutionConfig(StrictConfig):
    """Images to feature maps of a quarter of their size."""

    needs: ClassVar[Literal["images"]] = "images"
    gives: ClassVar[Literal["images"]] = "images"
    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0

    kind: Literal["one_convolution"] = "one_convolution"
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 16

    def build(self) -> OneConvolution:
        """The network, with new weights."""
        from ponderv2.encoder.one_convolution.encoder import OneConvolution

        return OneConvolution(self)
