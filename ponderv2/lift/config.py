"""Settings of the lift: the frame of a volume, how features get into it, the 3D CNN that refines it.

Never imports torch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig

Triple = tuple[float, float, float]
Cells = tuple[PositiveInt, PositiveInt, PositiveInt]


class CubeFrameConfig(StrictConfig):
    """A cube around the points of each scene: centred in x and y, its floor at the lowest point.

    The unit of length of the volume is the edge of the cube.
    """

    kind: Literal["cube"] = "cube"
    cube_size: PositiveFloat | None = None
    """Edge of the cube in scene units, so that all scenes have one scale. None: the scene's longest side."""
    cells: Cells = (128, 128, 32)
    """Cells of the volume along x, y, z."""
    box: Literal["cube", "bounds"] = "cube"
    """What the cells cover: the whole cube, or the bounding box of the points of each scene."""
    padding: NonNegativeFloat = 0.1
    """How much larger than the cube the volume is: its half side is (1 + padding) / 2."""
    margin: NonNegativeFloat = 0.05
    """Around the points of a scene with `box: bounds`, in edges of the cube."""


class RangeFrameConfig(StrictConfig):
    """One range for all scenes. Points beyond it are left out.

    The unit of length of the volume is the longest side of the range.
    """

    kind: Literal["range"] = "range"
    lower: Triple
    upper: Triple
    """Corners (x, y, z), metres (scene units, where scenes are scaled by augmentation), in the frame of the
    batch: its scenes are centred in x and y unless `data.centred` is false."""
    cells: Cells
    """Cells of the volume along x, y, z."""
    stretch: bool = False
    """True: each side of the range has unit length, so that directions and distances are those of a distorted
    space (published outdoors). False: one scale for all."""

    @model_validator(mode="after")
    def _has_a_volume(self) -> RangeFrameConfig:
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower must be below upper on every axis, got {self.lower} and {self.upper}")
        return self


FrameConfig = Annotated[CubeFrameConfig | RangeFrameConfig, Field(discriminator="kind")]


class DensifyConfig(StrictConfig):
    """Features of points averaged into the cells that hold them."""

    kind: Literal["densify"] = "densify"
    align_with_sampling: bool = True
    """True: a point lands in the cell that is read at its position. False: as published, some cells off."""
    grid_size: PositiveFloat = 0.02
    """Voxel edge in scene units that the published rule first rounds positions to; unused when aligned."""
    corners_are_centres: bool = False
    """True: the volume is read as if the centres of its outermost cells lay on its faces, up to half a cell
    beside where points are (published outdoors). Goes with a range."""

    needs: ClassVar[Literal["points"]] = "points"
    supervises_depth: ClassVar[bool] = False

    @property
    def needs_cube(self) -> bool:
        """Whether the volume has to cover a whole cube: the published rule knows no other range."""
        return not self.align_with_sampling


class DepthIntervalsConfig(StrictConfig):
    """Intervals of depth along the optical axis, equally wide."""

    n_bins: PositiveInt = 64
    nearest: NonNegativeFloat = 0.0
    """Where the first one begins, metres."""
    width: PositiveFloat = 1.0
    """Of an interval, metres."""

    @property
    def farthest(self) -> float:
        """Where the last one ends, metres."""
        return self.nearest + self.n_bins * self.width


class DepthBinsConfig(DepthIntervalsConfig):
    """Intervals of depth, and the network that tells them apart."""

    head: Literal["linear", "deep"] = "linear"
    """linear: a 1x1 convolution, the same for all maps. deep: residual blocks, and pooling at dilations,
    as in BEVDepth without deformable convolution."""
    pooling_channels: PositiveInt = 96
    """Of each branch of the deep one's pooling."""
    loss_weight: NonNegativeFloat = 0.0
    """Of the cross-entropy with measured depths; 0: the distribution is learned by rendering alone."""


class ImageLiftConfig(StrictConfig):
    """What lifts of image features share. The depth of every pixel is a distribution over intervals."""

    needs: ClassVar[Literal["images"]] = "images"
    needs_cube: ClassVar[bool] = False

    pointwise: bool = True
    """A 1x1 convolution of the maps before, the same for all."""
    n_convolutions: NonNegativeInt = 0
    """3x3x3 convolutions with bias, norm and ReLU of the volume; published: 0 in pre-training, then 3."""
    published_corners: bool = False
    """True: as in UniPAD, cells are where their lower corner is, pixels where their left upper one is, and
    depths where their interval begins; half a cell off. False: all are where their middle is."""


class UNet3DConfig(StrictConfig):
    """UNet3D-v1m2: norm, convolution, ReLU per level; skips are added."""

    kind: Literal["unet3d"] = "unet3d"
    f_maps: PositiveInt = 32
    """Width of the finest level; doubled at each coarser one."""
    n_levels: PositiveInt = 4
    out_channels: PositiveInt = 128


class DoubleConvUNet3DConfig(StrictConfig):
    """UNet3D-v1m1: two units per level; nearest upsampling; skips are concatenated."""

    kind: Literal["unet3d_double"] = "unet3d_double"
    f_maps: PositiveInt = 32
    n_levels: PositiveInt = 4
    out_channels: PositiveInt = 128


class ConvBlock3DConfig(StrictConfig):
    """SimpleConv3D-v1m1: one 3x3x3 convolution, norm, ReLU."""

    kind: Literal["conv3d"] = "conv3d"
    out_channels: PositiveInt = 32
