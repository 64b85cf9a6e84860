"""Volumes of points and of images, summed, then refined together."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.features import Features, FusedFeatures
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.densify import Densify
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.frustum_pooling.lift import FrustumPooling
from ponderv2.lift.fused.config import FusedConfig
from ponderv2.lift.projected_sampling.lift import ProjectedSampling
from ponderv2.lift.volume_frame import VolumeFrame
from ponderv2.scenes.batch import ImageBatch
from ponderv2.sparse.normalisation import BatchNorm


class Fused(nn.Module):
    """`images` has the names of a lift that was pre-trained alone."""

    def __init__(self, config: FusedConfig, in_channels: int) -> None:
        super().__init__()
        self.points = Densify(config.points)
        if isinstance(config.images, FrustumPoolingConfig):
            self.images = FrustumPooling(config.images, in_channels)
        else:
            self.images = ProjectedSampling(config.images, in_channels)
        self.refine = nn.Sequential(
            nn.Conv3d(in_channels, in_channels, 3, padding=1), BatchNorm(in_channels), nn.ReLU()
        )

    def with_depth(self, features: Features) -> FusedFeatures:
        """As of the lift of images. Raises ValueError where a branch is missing."""
        if not isinstance(features, FusedFeatures):
            raise ValueError("features of points and of images are summed, one of them is missing")
        return replace(features, images=self.images.with_depth(features.images))

    def depth_loss(self, features: Features, images: ImageBatch) -> Float[Tensor, ""]:
        """As of the lift of images."""
        assert isinstance(features, FusedFeatures)
        return self.images.depth_loss(features.images, images)

    def forward(self, features: Features, frame: VolumeFrame) -> SparseVolume:
        """All cells. `features` as `with_depth` gives them. Raises ValueError where a branch is missing."""
        if not isinstance(features, FusedFeatures):
            raise ValueError("features of points and of images are summed, one of them is missing")
        points = self.points(features.points, frame)
        images = self.images(features.images, frame)
        values = self.refine(points.dense() + images.dense().to(points.rows.dtype))
        rows = values.permute(0, 2, 3, 4, 1).reshape(points.n_cells, -1)
        return replace(points, rows=rows, number=torch.arange(points.n_cells, device=rows.device))
