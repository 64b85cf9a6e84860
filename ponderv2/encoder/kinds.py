"""The kinds of encoders: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig
from ponderv2.encoder.points_and_images.config import PointsAndImagesConfig

if TYPE_CHECKING:
    from torch import nn

AnyEncoder = SparseUNetConfig | PromptedSparseUNetConfig | ImageBackboneConfig | PointsAndImagesConfig
EncoderConfig = Annotated[AnyEncoder, Field(discriminator="kind")]
"""Settings of any encoder; in a preset `encoder: {kind: sparse_unet, ...}`."""


def build_encoder(config: AnyEncoder) -> nn.Module:
    """The module, an `Encoder` (`encoder/encoder.py`), with new weights."""
    match config:
        case SparseUNetConfig() | PromptedSparseUNetConfig():
            from ponderv2.encoder.sparse_unet import SparseUNet

            return SparseUNet(config)
        case ImageBackboneConfig():
            from ponderv2.encoder.image_backbone.encoder import ImageBackbone

            return ImageBackbone(config)
        case PointsAndImagesConfig():
            from ponderv2.encoder.points_and_images.encoder import PointsAndImages

            return PointsAndImages(config)
        case _:
            assert_never(config)
