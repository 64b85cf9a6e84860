"""The kinds of lifts and projections: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from ponderv2.lift.config import ConvBlock3DConfig, DensifyConfig, DoubleConvUNet3DConfig, UNet3DConfig

if TYPE_CHECKING:
    from torch import nn

    from ponderv2.lift.projection import ConvBlock3D, DoubleConvUNet3D, UNet3D

AnyLift = DensifyConfig
LiftConfig = AnyLift
"""Settings of any lift: a union chosen by `kind` as soon as there is a second one."""

AnyProjection = UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig
ProjectionConfig = Annotated[AnyProjection, Field(discriminator="kind")]
"""Settings of the network that smooths a volume."""


def build_lift(config: AnyLift) -> nn.Module:
    """The module from `Features`, in a `VolumeFrame`, to a `SparseVolume`."""
    match config:
        case DensifyConfig():
            from ponderv2.lift.densify import Densify

            return Densify(config)
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
