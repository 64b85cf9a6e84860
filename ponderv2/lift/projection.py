"""The 3D CNNs between lift and renderer, published as `proj_net`. Any spatial size; published parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ponderv2.geometry.volumes import ChannelMap, FeatureVolume, SparseVolume
from ponderv2.lift.config import ConvBlock3DConfig, DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.sparse_input_conv import is_mostly_empty, sparse_conv, sparse_input_conv
from ponderv2.lift.volume_layers import max_pool2, normed_convolution
from ponderv2.sparse.normalisation import BatchNorm, relu_

Volume = Float[Tensor, "scene in z y x"] | SparseVolume
"""Dense, or the occupied cells alone."""


class _Projection(nn.Module, ABC):
    """A network on volumes, whose last layer may be a pointwise convolution."""

    final_conv: nn.Conv3d | None

    @abstractmethod
    def before_last(self, x: Volume) -> Float[Tensor, "scene inner z y x"]:
        """What the pointwise convolution gets; without one, the result."""

    def forward(self, x: Volume) -> Float[Tensor, "scene out z y x"]:
        values = self.before_last(x)
        return values if self.final_conv is None else self.final_conv(values)

    def project(self, volume: SparseVolume | FeatureVolume, deferred: bool = False) -> FeatureVolume:
        """Other features of all cells. `deferred` leaves the last convolution to the cells that are read."""
        x = volume if isinstance(volume, SparseVolume) else volume.values
        last = None
        if deferred and self.final_conv is not None:
            assert self.final_conv.bias is not None
            values = self.before_last(x)
            last = ChannelMap(self.final_conv.weight.flatten(1), self.final_conv.bias)
        else:
            values = self(x)
        return FeatureVolume(values, volume.lower, volume.upper, volume.corners_are_centres, last)


class _Unit(nn.Module):
    """Batch norm, 3x3x3 convolution without bias, ReLU (order "bcr")."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.batchnorm = BatchNorm(in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Volume) -> Float[Tensor, "scene out z y x"]:
        if isinstance(x, SparseVolume):
            if is_mostly_empty(x, together=self.training):
                return sparse_input_conv(x, self.batchnorm, self.conv.weight)
            x = x.dense()
        return relu_(normed_convolution(x, self.batchnorm, self.conv.weight))


class _Encoder(nn.Module):
    """Halve the resolution (not at the finest level), then the basic module."""

    def __init__(self, basic_module: nn.Module, pool: bool) -> None:
        super().__init__()
        self.basic_module = basic_module
        self.pool = pool

    def forward(self, x: Volume) -> Float[Tensor, "scene out z2 y2 x2"]:
        if self.pool and isinstance(x, Tensor):
            x = max_pool2(x)
        return self.basic_module(x)


class _Upsampling(nn.Module):
    """Transposed convolution to exactly the size of the skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose3d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(
        self, x: Float[Tensor, "scene in z y x"], size: torch.Size
    ) -> Float[Tensor, "scene out z2 y2 x2"]:
        return self.upsample(x, output_size=list(size))


class _AddingDecoder(nn.Module):
    """Upsample, add the skip, basic module."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsampling = _Upsampling(in_channels, out_channels)
        self.basic_module = _Unit(out_channels, out_channels)

    def forward(
        self, skip: Float[Tensor, "scene out z2 y2 x2"], x: Float[Tensor, "scene in z y x"]
    ) -> Float[Tensor, "scene out z2 y2 x2"]:
        return self.basic_module(self.upsampling(x, skip.shape[2:]).add_(skip))


class UNet3D(_Projection):
    """UNet3D-v1m2: one unit per level, max pooling down, transposed convolution up, skips added."""

    def __init__(self, config: UNet3DConfig, in_channels: int) -> None:
        super().__init__()
        widths = [config.f_maps * 2**level for level in range(config.n_levels)]
        entering = [in_channels, *widths[:-1]]
        self.encoders = nn.ModuleList(
            _Encoder(_Unit(entering[i], widths[i]), pool=i > 0) for i in range(config.n_levels)
        )
        self.decoders = nn.ModuleList(
            _AddingDecoder(widths[i], widths[i - 1]) for i in range(config.n_levels - 1, 0, -1)
        )
        self.final_conv = nn.Conv3d(widths[0], config.out_channels, 1)

    def before_last(self, x: Volume) -> Float[Tensor, "scene inner z y x"]:
        return _unet(self.encoders, self.decoders, x)


class _DoubleUnit(nn.Module):
    """Two units; on the way down the first one widens to half of the result only."""

    def __init__(self, in_channels: int, out_channels: int, down: bool) -> None:
        super().__init__()
        middle = max(out_channels // 2, in_channels) if down else out_channels
        self.SingleConv1 = _Unit(in_channels, middle)
        self.SingleConv2 = _Unit(middle, out_channels)

    def forward(self, x: Volume) -> Float[Tensor, "scene out z y x"]:
        return self.SingleConv2(self.SingleConv1(x))


class _ConcatenatingDecoder(nn.Module):
    """Nearest-neighbour upsampling to the size of the skip, [skip, x], basic module."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.basic_module = _DoubleUnit(in_channels, out_channels, down=False)

    def forward(
        self, skip: Float[Tensor, "scene out z2 y2 x2"], x: Float[Tensor, "scene in z y x"]
    ) -> Float[Tensor, "scene out z2 y2 x2"]:
        upsampled = functional.interpolate(x, size=list(skip.shape[2:]), mode="nearest")
        return self.basic_module(torch.cat([skip, upsampled], dim=1))


class DoubleConvUNet3D(_Projection):
    """UNet3D-v1m1: two units per level, nearest-neighbour upsampling, skips concatenated."""

    def __init__(self, config: DoubleConvUNet3DConfig, in_channels: int) -> None:
        super().__init__()
        widths = [config.f_maps * 2**level for level in range(config.n_levels)]
        entering = [in_channels, *widths[:-1]]
        self.encoders = nn.ModuleList(
            _Encoder(_DoubleUnit(entering[i], widths[i], down=True), pool=i > 0)
            for i in range(config.n_levels)
        )
        self.decoders = nn.ModuleList(
            _ConcatenatingDecoder(widths[i] + widths[i - 1], widths[i - 1])
            for i in range(config.n_levels - 1, 0, -1)
        )
        self.final_conv = nn.Conv3d(widths[0], config.out_channels, 1)

    def before_last(self, x: Volume) -> Float[Tensor, "scene inner z y x"]:
        return _unet(self.encoders, self.decoders, x)


def _unet(encoders: nn.ModuleList, decoders: nn.ModuleList, volume: Volume) -> Tensor:
    x: Tensor = encoders[0](volume)
    skips = [x]
    for encoder in encoders[1:]:
        x = encoder(x)
        skips.append(x)
    for decoder, skip in zip(decoders, reversed(skips[:-1]), strict=True):
        x = decoder(skip, x)
    return x


class ConvBlock3D(_Projection):
    """SimpleConv3D-v1m1: convolution with bias, batch norm, ReLU."""

    def __init__(self, config: ConvBlock3DConfig, in_channels: int) -> None:
        super().__init__()
        self.final_conv = None
        self.conv = nn.Sequential(
            nn.Conv3d(in_channels, config.out_channels, 3, padding=1),
            BatchNorm(config.out_channels),
            nn.ReLU(inplace=True),
        )

    def before_last(self, x: Volume) -> Float[Tensor, "scene out z y x"]:
        if not isinstance(x, SparseVolume):
            return self.conv(x)
        if not is_mostly_empty(x):
            return self.conv(x.dense())
        convolution, norm, relu = self.conv
        assert isinstance(convolution, nn.Conv3d) and convolution.bias is not None
        return relu(norm(sparse_conv(x, convolution.weight, convolution.bias)))
