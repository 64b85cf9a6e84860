"""Settings of scans of a LiDAR: accumulation, limits in space, rays to points. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig

Corner = tuple[float, float, float]


class SweepsConfig(StrictConfig):
    """Points of earlier LiDAR sweeps, brought into the frame of a scene, each with its age as `time`."""

    n_sweeps: PositiveInt = 10
    """The scene itself counted; fewer where it has fewer."""
    choice: Literal["latest", "random"] = "latest"
    """The latest ones, or as many drawn from all that the scene has; for evaluation always the latest."""
    close: NonNegativeFloat = 1.0
    """Points of sweeps with |x| and |y| below, in the frame of their sensor, are of the vehicle; metres."""
    close_in_scene: bool = False
    """Remove them from the points of the scene itself too, as the development kit of nuScenes does; not where
    each point gets a prediction."""


class ClipConfig(StrictConfig):
    """Points outside a box are moved to its border, each along the axes in which it is outside."""

    lower: Corner
    upper: Corner
    """Corners (x, y, z) in the frame of the scene, metres."""

    @model_validator(mode="after")
    def _ordered(self) -> ClipConfig:
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower {self.lower} must be below upper {self.upper}")
        return self


class PointRangeConfig(StrictConfig):
    """Points outside a box are removed in training, after augmentation. Predictions are for all points."""

    lower: Corner
    upper: Corner
    """Corners (x, y, z), metres (scene units), in the frame of the scene."""

    @model_validator(mode="after")
    def _has_a_volume(self) -> PointRangeConfig:
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower must be below upper on every axis, got {self.lower} and {self.upper}")
        return self


class LidarRaysConfig(StrictConfig):
    """Rays from cameras to the points of a LiDAR, in place of pixels with a depth: each has the depth of its
    point, the colour of its pixel and the class of its point."""

    closest: NonNegativeFloat = 3.0
    """Points nearer to the LiDAR than this in its x and y, metres, are left out: they show the vehicle."""
    farthest: PositiveFloat | None = None
    """So are those farther away."""
    occlusion: Literal["nearest", "none"] = "nearest"
    """Of the points in a cell of pixels the nearest, or all as in UniPAD, also those behind others."""
    cell: PositiveInt = 1
    """Edge of such a cell, pixels. The LiDAR sits higher than cameras and sees over things, so that a few
    points of what they hide remain between the sparse nearer ones unless cells are larger."""
    points: Literal["scan", "voxels"] = "scan"
    """All points of the scan, or one of each voxel that the encoder receives (published)."""
    color: bool = True
    """Without, no image is opened."""
    round_down: bool = False
    """True: a position has the colour of the pixel that it is rounded down to (PonderV2). False: that of the
    nearest one, and positions beyond the centres of the outermost pixels are left out."""
    top_up: bool = False
    """Where fewer than `n_pixels` points are seen, the rest are pixels with a colour alone, every fourth in
    columns and rows below the upper 40 % of the image (UniPAD). Without, there are fewer rays."""

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> LidarRaysConfig:
        if self.top_up and not self.color:
            raise ValueError("top_up adds pixels with a colour alone: set color to true")
        if self.cell > 1 and self.occlusion == "none":
            raise ValueError("cell is where occlusion takes the nearest point: set it to 1")
        return self
