"""An encoder of images with one convolution."""

from __future__ import annotations

import torch
from ponderv2.encoder.one_convolution.config import OneConvolutionConfig
from torch import nn

from ponderv2.encoder.encoder import Prompt
from ponderv2.geometry.features import ImageFeatures
from ponderv2.scenes.batch import Batch

STRIDE = 4


class OneConvolution(nn.Module):
    """4x4 pixels become one feature vector."""

    def __init__(self, config: OneConvolutionConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(config.in_channels, config.out_channels, STRIDE, STRIDE)

    def forward(self, batch: Batch, prompt: Prompt | None = None) -> ImageFeatures:
        """A map per image; its pixel centres lie at the middle of the pixels that it came from."""
        images = batch.images
        assert images is not None
        shift = torch.tensor(
            [[1 / STRIDE, 0, -0.5 + 0.5 / STRIDE], [0, 1 / STRIDE, -0.5 + 0.5 / STRIDE], [0, 0, 1.0]]
        )
        return ImageFeatures(
            feature=self.convolution(images.image).relu(),
            intrinsics=shift.to(images.intrinsics) @ images.intrinsics,
            world_to_camera=images.world_to_camera,
            view_scene=images.view_scene,
            n_scenes=batch.n_scenes,
        )
