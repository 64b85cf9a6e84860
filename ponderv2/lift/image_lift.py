"""What lifts of image features share: maps before, depths, volume convolutions after."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.features import Features, ImageFeatures, ImageMap
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.config import DepthBinsConfig, ImageLiftConfig
from ponderv2.lift.image_depth import build_depth_head, depth_cross_entropy
from ponderv2.lift.volume_frame import VolumeFrame
from ponderv2.scenes.batch import ImageBatch
from ponderv2.sparse.normalisation import BatchNorm


class ImageLift(nn.Module, ABC):
    """Features of images to a volume of the same width."""

    def __init__(self, config: ImageLiftConfig, depth: DepthBinsConfig | None, in_channels: int) -> None:
        super().__init__()
        self.corners = config.published_corners
        self.bins = depth
        self.pointwise = nn.Conv2d(in_channels, in_channels, 1) if config.pointwise else nn.Identity()
        self.depth_head = None if depth is None else build_depth_head(depth, in_channels)
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv3d(in_channels, in_channels, 3, padding=1), BatchNorm(in_channels), nn.ReLU()
                )
                for _ in range(config.n_convolutions)
            )
        )

    def with_depth(self, features: Features) -> ImageFeatures:
        """The maps as they are lifted, with their depths. Raises ValueError for features of points."""
        if not isinstance(features, ImageFeatures):
            raise ValueError("features of images are projected, those of points are not")
        maps: list[ImageMap] = []
        for one in features.maps:
            values = self.pointwise(one.feature)
            probability = None if self.depth_head is None else self.depth_head(one.feature).softmax(dim=1)
            maps.append(ImageMap(values, one.intrinsics, probability))
        return features.with_maps(maps)

    def depth_loss(self, features: Features, images: ImageBatch) -> Float[Tensor, ""]:
        """Weighted; 0 where the settings have no weight. Raises ValueError where no depth is known."""
        if self.bins is None or not self.bins.loss_weight:
            return images.image.new_zeros(())
        assert isinstance(features, ImageFeatures) and features.padded_size is not None
        loss = depth_cross_entropy(features.maps, images, features.padded_size, self.bins)
        return self.bins.loss_weight * loss

    def forward(self, features: Features, frame: VolumeFrame) -> SparseVolume:
        """Cells that an image shows, or all where convolutions follow. `features` as `with_depth` gives them.

        In single precision or better. Raises ValueError for features of points.
        """
        if not isinstance(features, ImageFeatures):
            raise ValueError("features of images are projected, those of points are not")
        with torch.autocast(features.feature.device.type, enabled=False):
            volume = self.lift(features, frame)
        if not len(self.convolutions):
            return volume
        values = self.convolutions(volume.dense())
        rows = values.permute(0, 2, 3, 4, 1).reshape(volume.n_cells, -1)
        number = torch.arange(volume.n_cells, device=rows.device)
        return SparseVolume(rows, number, volume.shape, volume.lower, volume.upper)

    @abstractmethod
    def lift(self, features: ImageFeatures, frame: VolumeFrame) -> SparseVolume:
        """The volume before the convolutions."""


def corner_of_map(one: ImageMap, padded_size: tuple[int, int] | None) -> tuple[float, float]:
    """How far left of and above the middle of a pixel of a map the centre of its first image pixel is."""
    rows, columns = one.feature.shape[2:]
    height, width = padded_size or (rows, columns)
    return 0.5 * columns / width - 0.5, 0.5 * rows / height - 0.5
