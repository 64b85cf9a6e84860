"""Settings of the lift that projects the cells of a volume into the images. Never imports torch."""

from __future__ import annotations

from typing import Literal

from ponderv2.lift.config import DepthBinsConfig, ImageLiftConfig


class ProjectedSamplingConfig(ImageLiftConfig):
    """The feature of a cell is that of the pixels that show it, times how likely their depth is that of the
    cell, summed over cameras and maps (UVTR; the ablation of UniPAD)."""

    kind: Literal["projected_sampling"] = "projected_sampling"
    depth: DepthBinsConfig | None = DepthBinsConfig()
    """None: every cell along a pixel gets its whole feature."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over the cameras that see a cell. The published code sums."""

    @property
    def supervises_depth(self) -> bool:
        """Whether training needs the measured depths of the images."""
        return self.depth is not None and self.depth.loss_weight > 0
