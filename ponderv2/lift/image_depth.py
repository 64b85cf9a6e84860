"""How likely each depth of a pixel is: heads on feature maps, and their comparison with measured depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.geometry.features import Features, ImageMap
from ponderv2.lift.config import DepthBinsConfig
from ponderv2.scenes.batch import ImageBatch
from ponderv2.sparse.normalisation import BatchNorm

DILATIONS = (1, 6, 12, 18)


@runtime_checkable
class EstimatesDepth(Protocol):
    """A lift that estimates the depth of pixels."""

    def with_depth(self, features: Features) -> Features:
        """The maps as they are lifted, each with its distribution of depth."""
        ...

    def depth_loss(self, features: Features, images: ImageBatch) -> Float[Tensor, ""]:
        """Weighted; of features with depth. Raises ValueError where the depth of images is not known."""
        ...


def build_depth_head(config: DepthBinsConfig, in_channels: int) -> nn.Module:
    """From a map to the logits of its intervals."""
    if config.head == "linear":
        return nn.Conv2d(in_channels, config.n_bins, 1)
    return DeepDepthHead(config, in_channels)


class DeepDepthHead(nn.Module):
    """3x3 convolution, three residual blocks, pooling at several dilations, 1x1 convolution."""

    def __init__(self, config: DepthBinsConfig, channels: int) -> None:
        super().__init__()
        self.entry = _unit(channels, channels, 3)
        self.blocks = nn.Sequential(*(_Residual(channels) for _ in range(3)))
        self.pooling = _DilatedPooling(channels, config.pooling_channels)
        self.last = nn.Conv2d(channels, config.n_bins, 1)

    def forward(self, x: Float[Tensor, "view channel row column"]) -> Float[Tensor, "view bin row column"]:
        return self.last(self.pooling(self.blocks(self.entry(x))))


def _unit(in_channels: int, out_channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(in_channels, out_channels, size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, BatchNorm(out_channels), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm(self.second(self.first(x))) + x).relu()


class _DilatedPooling(nn.Module):
    """Convolutions at several dilations and the mean of the map, side by side (ASPP, Chen et al. 2017)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_unit(channels, inner, 1 if d == 1 else 3, d) for d in DILATIONS)
        self.mean = _unit(channels, inner, 1)
        self.fuse = _unit(inner * (len(DILATIONS) + 1), channels, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, x: Float[Tensor, "view channel row column"]
    ) -> Float[Tensor, "view channel row column"]:
        mean = self.mean(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.dropout(self.fuse(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1)))


def depth_cross_entropy(
    maps: Sequence[ImageMap], images: ImageBatch, padded_size: tuple[int, int], config: DepthBinsConfig
) -> Float[Tensor, ""]:
    """Binary cross-entropy with the interval of the nearest measured depth in the cell of a pixel of a map.

    Summed over the intervals, averaged over the pixels of all maps (and processes) that have such a depth;
    0 where none has.
    """
    if images.depth is None:
        raise ValueError("depth is supervised and the images have none: set data.images.depth to true")
    rows, columns = (size - own for size, own in zip(padded_size, images.depth.shape[1:], strict=True))
    depth = F.pad(images.depth, (0, columns, 0, rows))
    total, count = depth.new_zeros(()), depth.new_zeros(())
    for one in maps:
        probability = one.depth_probability
        assert probability is not None
        nearest = _nearest_in_cells(depth, (probability.shape[2], probability.shape[3]))
        number = ((nearest - config.nearest) / config.width).floor().long()
        known = (nearest > 0) & (number >= 0) & (number < config.n_bins)
        # The binary cross-entropy of one-hot targets needs their own interval and the sum over all others.
        rest = (1.0 - probability.float()).clamp(min=1e-7).log().sum(1)
        own = probability.float().gather(1, number.clamp(0, config.n_bins - 1)[:, None])[:, 0]
        loss = -own.clamp(min=1e-7).log() - rest + (1.0 - own).clamp(min=1e-7).log()
        total, count = total + (loss * known).sum(), count + known.sum()
    return global_mean(total, count)


def _nearest_in_cells(
    depth: Float[Tensor, "view row column"], size: tuple[int, int]
) -> Float[Tensor, "view map_row map_column"]:
    """The smallest positive depth in each cell; 0 = none."""
    inverse = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-6), 0.0)
    largest = F.adaptive_max_pool2d(inverse[:, None], size)[:, 0]
    return torch.where(largest > 0, 1.0 / largest.clamp(min=1e-9), 0.0)
