"""Settings of the lift that adds pixels to the cells that they may show. Never imports torch."""

from __future__ import annotations

from typing import Literal

from ponderv2.lift.config import DepthBinsConfig, ImageLiftConfig


class FrustumPoolingConfig(ImageLiftConfig):
    """Every pixel adds its feature, times the probability of the depth, to the cell at each of its depths
    (Philion and Fidler 2020; the final runs of UniPAD)."""

    kind: Literal["frustum_pooling"] = "frustum_pooling"
    depth: DepthBinsConfig = DepthBinsConfig(n_bins=118, nearest=1.0, width=0.5, head="deep")

    @property
    def supervises_depth(self) -> bool:
        """Whether training needs the measured depths of the images."""
        return self.depth.loss_weight > 0
