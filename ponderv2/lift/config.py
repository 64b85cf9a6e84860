"""Settings of the lift: the frame of a volume, how features get into it, the network that smooths it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ponderv2.config import StrictConfig

if TYPE_CHECKING:
    from ponderv2.lift.projection import ConvBlock3D, DoubleConvUNet3D, UNet3D


class CubeFrameConfig(StrictConfig):
    """The cube [-0.5, 0.5]^3 that a scene is put into: centred in x and y, its lowest point at z = -0.5."""

    edge: PositiveFloat | None = None
    """Edge of the cube in scene units, so that all scenes have one scale. None: the scene's longest side."""


class DensifyConfig(StrictConfig):
    """The grid that point features are averaged into."""

    grid_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (128, 128, 32)
    """Cells along x, y, z."""
    grid_size: PositiveFloat = 0.02
    """Voxel edge in scene units that the published rule first rounds positions to; unused when aligned."""
    align_with_sampling: bool = True
    """True: a point lands in the cell that is read at its position. False: as published, some cells off."""
    box: Literal["cube", "bounds"] = "cube"
    """What the volume covers when aligned: the whole cube, or the points' bounding box of each scene."""
    padding: NonNegativeFloat = 0.1
    """How much the covered cube is larger than the unit cube: its half side is (1 + padding) / 2."""
    margin: NonNegativeFloat = 0.05
    """Cube units around the points of a scene with `box: bounds`."""


class UNet3DConfig(StrictConfig):
    """UNet3D-v1m2: norm, convolution, ReLU per level; skips are added."""

    kind: Literal["unet3d"] = "unet3d"
    f_maps: PositiveInt = 32
    """Width of the finest level; doubled at each coarser one."""
    n_levels: PositiveInt = 4
    out_channels: PositiveInt = 128

    def build(self, in_channels: int) -> UNet3D:
        """The network from `[scene, in_channels, z, y, x]` to `[scene, out_channels, z, y, x]`."""
        from ponderv2.lift.projection import UNet3D

        return UNet3D(self, in_channels)


class DoubleConvUNet3DConfig(StrictConfig):
    """UNet3D-v1m1: two units per level; nearest upsampling; skips are concatenated."""

    kind: Literal["unet3d_double"] = "unet3d_double"
    f_maps: PositiveInt = 32
    n_levels: PositiveInt = 4
    out_channels: PositiveInt = 128

    def build(self, in_channels: int) -> DoubleConvUNet3D:
        """The network from `[scene, in_channels, z, y, x]` to `[scene, out_channels, z, y, x]`."""
        from ponderv2.lift.projection import DoubleConvUNet3D

        return DoubleConvUNet3D(self, in_channels)


class ConvBlock3DConfig(StrictConfig):
    """SimpleConv3D-v1m1: one 3x3x3 convolution, norm, ReLU."""

    kind: Literal["conv3d"] = "conv3d"
    out_channels: PositiveInt = 32

    def build(self, in_channels: int) -> ConvBlock3D:
        """The network from `[scene, in_channels, z, y, x]` to `[scene, out_channels, z, y, x]`."""
        from ponderv2.lift.projection import ConvBlock3D

        return ConvBlock3D(self, in_channels)


ProjectionConfig = Annotated[
    UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig, Field(discriminator="kind")
]
