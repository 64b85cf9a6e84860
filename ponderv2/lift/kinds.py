"""The kinds of lifts and projections: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from ponderv2.lift.config import ConvBlock3DConfig, DensifyConfig, DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.fused.config import FusedConfig
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig

if TYPE_CHECKING:
    from torch import nn

    from ponderv2.lift.projection import ConvBlock3D, DoubleConvUNet3D, UNet3D

AnyLift = DensifyConfig | ProjectedSamplingConfig | FrustumPoolingConfig | FusedConfig
LiftConfig = Annotated[AnyLift, Field(discriminator="kind")]
"""Settings of any lift; in a preset `lift: {kind: projected_sampling, ...}`."""

AnyProjection = UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig
ProjectionConfig = Annotated[AnyProjection, Field(discriminator="kind")]
"""Settings of the network that smooths a volume."""


def build_lift(config: AnyLift, in_channels: int = 0) -> nn.Module:
    """The module from `Features` of that width, in a `VolumeFrame`, to a `SparseVolume` of the same width.

    Lifts that learn nothing take any width.
    """
    match config:
        case DensifyConfig():
            from ponderv2.lift.densify import Densify

            return Densify(config)
        case ProjectedSamplingConfig():
            from ponderv2.lift.projected_sampling.lift import ProjectedSampling

            return ProjectedSampling(config, in_channels)
        case FrustumPoolingConfig():
            from ponderv2.lift.frustum_pooling.lift import FrustumPooling

            return FrustumPooling(config, in_channels)
        case FusedConfig():
            from ponderv2.lift.fused.lift import Fused

            return Fused(config, in_channels)
        case _:
            assert_never(config)


def build_projection(config: AnyProjection, in_channels: int) -> UNet3D | DoubleConvUNet3D | ConvBlock3D:
    """The network from `[scene, in_channels, z, y, x]` to `[scene, config.out_channels, z, y, x]`."""
    from ponderv2.lift.projection import ConvBlock3D, DoubleConvUNet3D, UNet3D

    match config:
        case UNet3DConfig():
            return UNet3D(config, in_channels)
        case DoubleConvUNet3DConfig():
            return DoubleConvUNet3D(config, in_channels)
        case ConvBlock3DConfig():
            return ConvBlock3D(config, in_channels)
        case _:
            assert_never(config)
