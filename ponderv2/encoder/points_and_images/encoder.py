"""Two encoders side by side."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ponderv2.encoder.encoder import Prompt
from ponderv2.encoder.image_backbone.encoder import ImageBackbone
from ponderv2.encoder.points_and_images.config import PointsAndImagesConfig
from ponderv2.encoder.sparse_unet import SparseUNet
from ponderv2.geometry.features import FusedFeatures, ImageFeatures
from ponderv2.scenes.batch import Batch


class PointsAndImages(nn.Module):
    """`points` and `images` have the names of encoders that were pre-trained alone."""

    def __init__(self, config: PointsAndImagesConfig) -> None:
        super().__init__()
        self.points = SparseUNet(config.points)
        self.images = ImageBackbone(config.images)
        self.widen = nn.Linear(config.points.out_channels, config.out_channels)

    @property
    def image_network(self) -> tuple[str, nn.Module]:
        """Its name in timm, and the network with the names of timm."""
        return self.images.image_network

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Of the branch of images, as the next two."""
        return self.images.stage_widths

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of the maps."""
        return self.images.map_widths

    def stage_maps(self, batch: Batch) -> ImageFeatures:
        """The stages of the network as they are. Raises ValueError without images."""
        return self.images.stage_maps(batch)

    def load_start_weights(self) -> tuple[nn.Module, ...]:
        """Of the branch of images; that of points has none. Raises PresetError and ResourceError."""
        return self.images.load_start_weights()

    def forward(self, batch: Batch, prompt: Prompt | None = None) -> FusedFeatures:
        """Features of the points and of the images of a batch. Raises ValueError without images."""
        points = self.points(batch, prompt)
        return FusedFeatures(replace(points, feature=self.widen(points.feature)), self.images(batch))
