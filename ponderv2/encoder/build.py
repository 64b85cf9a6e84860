"""From the settings of an encoder or a projection to the module."""

from __future__ import annotations

from typing import assert_never

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.sparse_unet import SparseUNet
from ponderv2.lift.config import ConvBlock3DConfig, DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.projection import ConvBlock3D, DoubleConvUNet3D, UNet3D


def build_encoder(config: SparseUNetConfig | PromptedSparseUNetConfig) -> SparseUNet:
    """A module from SparseVoxels (and context, condition) to features `[voxel, config.out_channels]`."""
    match config:
        case SparseUNetConfig() | PromptedSparseUNetConfig():
            return SparseUNet(config)
        case _:
            assert_never(config)


def build_projection(
    config: UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig, in_channels: int
) -> UNet3D | DoubleConvUNet3D | ConvBlock3D:
    """A module from `[B, in_channels, Z, Y, X]` to `[B, config.out_channels, Z, Y, X]`."""
    match config:
        case UNet3DConfig():
            return UNet3D(config, in_channels)
        case DoubleConvUNet3DConfig():
            return DoubleConvUNet3D(config, in_channels)
        case ConvBlock3DConfig():
            return ConvBlock3D(config, in_channels)
        case _:
            assert_never(config)
