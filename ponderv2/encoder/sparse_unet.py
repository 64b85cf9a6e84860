"""SpUNet, the point backbone: a residual U-Net of sparse convolutions, with the published parameter names."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.encoder import Prompt, voxels_of
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.segments import segment_mean
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.scenes.batch import Batch
from ponderv2.sparse.kernel_maps import Level, sorted_level
from ponderv2.sparse.layers import InverseConvolution, StridedConvolution, SubmanifoldConvolution
from ponderv2.sparse.normalisation import BatchNorm, relu_

UNetConfig = SparseUNetConfig | PromptedSparseUNetConfig
Convolution = SubmanifoldConvolution | StridedConvolution | InverseConvolution


class PromptedNorm(nn.Module):
    """y = norm_d(x) (1 + scale) + shift with (shift, scale) = Linear(SiLU(context)) and d the dataset."""

    def __init__(self, channels: int, config: PromptedSparseUNetConfig) -> None:
        super().__init__()

        def norm() -> BatchNorm:
            return BatchNorm(
                channels, eps=config.norm_eps, momentum=config.norm_momentum, affine=config.norm_affine
            )

        if config.norm_decouple:
            self.bns = nn.ModuleList([norm() for _ in config.conditions])
        else:
            self.bn = norm()
        if config.norm_adaptive:
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.context_channels, 2 * channels))
        self.decoupled, self.adaptive = config.norm_decouple, config.norm_adaptive

    def forward(self, x: Float[Tensor, "voxel channel"], prompt: Prompt) -> Float[Tensor, "voxel channel"]:
        x = self.bns[prompt.index](x) if self.decoupled else self.bn(x)
        if not self.adaptive:
            return x
        if prompt.context is None:
            raise ValueError("an adaptive normalisation needs the context vector of the dataset")
        shift, scale = self.modulation(prompt.context).chunk(2, dim=1)
        return x * (1.0 + scale) + shift


def normalise(
    norm: nn.Module, x: Float[Tensor, "voxel channel"], prompt: Prompt | None
) -> Float[Tensor, "voxel channel"]:
    """Apply a plain or a prompted normalisation."""
    return norm(x, prompt) if isinstance(norm, PromptedNorm) else norm(x)


def _block_norm(channels: int, config: UNetConfig) -> nn.Module:
    if isinstance(config, PromptedSparseUNetConfig):
        return PromptedNorm(channels, config)
    return BatchNorm(channels, eps=config.norm_eps, momentum=config.norm_momentum)


def _unit_norm(channels: int, config: UNetConfig) -> nn.Module:
    if isinstance(config, PromptedSparseUNetConfig) or config.unit_norm_momentum is None:
        return _block_norm(channels, config)
    return BatchNorm(channels, eps=config.norm_eps, momentum=config.unit_norm_momentum)


def _is_prompted(config: UNetConfig) -> bool:
    return isinstance(config, PromptedSparseUNetConfig)


class Unit(nn.Module):
    """Convolution, norm, ReLU; children are `0`, `1` in the plain and `conv`, `bn` in the prompted net."""

    def __init__(self, convolution: Convolution, config: UNetConfig) -> None:
        super().__init__()
        self.names = ("conv", "bn") if _is_prompted(config) else ("0", "1")
        self.add_module(self.names[0], convolution)
        self.add_module(self.names[1], _unit_norm(convolution.weight.shape[0], config))

    @property
    def convolution(self) -> nn.Module:
        return self.get_submodule(self.names[0])

    def activate(
        self, feature: Float[Tensor, "voxel channel"], prompt: Prompt | None
    ) -> Float[Tensor, "voxel channel"]:
        """Norm and ReLU of what the convolution returned."""
        return relu_(normalise(self.get_submodule(self.names[1]), feature, prompt))

    def forward(
        self, feature: Float[Tensor, "input in"], level: Level, prompt: Prompt | None
    ) -> Float[Tensor, "output out"]:
        """`level` is that of the input, for an inverse convolution that of the output."""
        result = self.convolution(feature, level)
        return self.activate(result[0] if isinstance(result, tuple) else result, prompt)


class ResidualBlock(nn.Module):
    """Two 3x3x3 submanifold convolutions and a shortcut: a 1x1x1 convolution where the width changes."""

    def __init__(self, in_channels: int, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.has_shortcut = in_channels != channels
        if self.has_shortcut:
            self._add_shortcut(
                SubmanifoldConvolution(in_channels, channels, 1), _unit_norm(channels, config), config
            )
        self.conv1 = SubmanifoldConvolution(in_channels, channels, 3)
        self.bn1 = _block_norm(channels, config)
        self.conv2 = SubmanifoldConvolution(channels, channels, 3)
        self.bn2 = _block_norm(channels, config)

    def _add_shortcut(self, convolution: nn.Module, norm: nn.Module, config: UNetConfig) -> None:
        if _is_prompted(config):
            self.proj_conv, self.proj_norm = convolution, norm
        else:
            self.proj = nn.ModuleList([convolution, norm])

    def _shortcut(self, x: Tensor, level: Level, prompt: Prompt | None) -> Tensor:
        if not self.has_shortcut:
            return x
        convolution, norm = self.proj if hasattr(self, "proj") else (self.proj_conv, self.proj_norm)
        return normalise(norm, convolution(x, level), prompt)

    def forward(
        self, x: Float[Tensor, "voxel in"], level: Level, prompt: Prompt | None
    ) -> Float[Tensor, "voxel out"]:
        inner = torch.relu_(normalise(self.bn1, self.conv1(x, level), prompt))
        inner = normalise(self.bn2, self.conv2(inner, level), prompt)
        return relu_(inner + self._shortcut(x, level, prompt))


class Stage(nn.ModuleDict):
    """Residual blocks of one level, called `block0`, `block1`, ..."""

    def __init__(self, in_channels: int, channels: int, n_blocks: int, config: UNetConfig) -> None:
        widths = [in_channels] + [channels] * n_blocks
        super().__init__({f"block{i}": ResidualBlock(widths[i], channels, config) for i in range(n_blocks)})

    def forward(
        self, x: Float[Tensor, "voxel in"], level: Level, prompt: Prompt | None
    ) -> Float[Tensor, "voxel out"]:
        for block in self.values():
            x = block(x, level, prompt)
        return x


class SparseUNet(nn.Module):
    """Stem of kernel 5, stages that halve the resolution, stages that restore it with skip connections.

    Model section 1 of PonderV2 (SpUNet-v1m1, -v1m2 and, with a prompted configuration, -v1m3).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, channels, layers, n = config.base_channels, config.channels, config.layers, config.n_stages
        entering = (base, *channels[: n - 1])  # width that enters each stage, and that of its skip
        self.conv_input = Unit(SubmanifoldConvolution(config.in_channels, base, 5), config)
        self.down, self.enc = nn.ModuleList(), nn.ModuleList()
        for s in range(n):
            self.down.append(Unit(StridedConvolution(entering[s], channels[s]), config))
            self.enc.append(Stage(channels[s], channels[s], layers[s], config))
        if not config.pool_scenes:
            self._add_decoder(entering)
        last = channels[n - 1] if config.pool_scenes else channels[-1]
        self.final = (
            SubmanifoldConvolution(last, config.n_classes, 1, bias=True)
            if config.n_classes
            else nn.Identity()
        )
        self._initialise()

    def _add_decoder(self, skips: tuple[int, ...]) -> None:
        config, n = self.config, self.config.n_stages
        self.up, self.dec = nn.ModuleList(), nn.ModuleList()
        for s in range(n):
            width = config.channels[-1 - s]
            self.up.append(Unit(InverseConvolution(config.channels[-2 - s], width), config))
            self.dec.append(Stage(width + skips[s], width, config.layers[-1 - s], config))

    def _initialise(self) -> None:
        """Submanifold convolutions and linears: normal, deviation 0.02. The others keep spconv's default."""
        for module in self.modules():
            if isinstance(module, SubmanifoldConvolution | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(self.config, PromptedSparseUNetConfig) and self.config.zero_init:
            for module in self.modules():
                if isinstance(module, PromptedNorm) and module.adaptive:
                    nn.init.zeros_(module.modulation[1].weight)  # type: ignore[arg-type]

    def forward(self, batch: Batch, prompt: Prompt | None = None) -> PointFeatures:
        """Features of every point of a batch. Raises ValueError as `rows`, and with `pool_scenes`."""
        if self.config.pool_scenes:
            raise ValueError("with pool_scenes there is one feature per scene and none per point")
        return PointFeatures(self.rows(voxels_of(batch), prompt), batch.coord, batch.offset)

    def rows(self, voxels: SparseVoxels, prompt: Prompt | None = None) -> Float[Tensor, "row out"]:
        """Features of every voxel in input order, or with `pool_scenes` of every scene.

        Raises ValueError for negative indices, voxels that occur twice, a prompted network without prompt.
        """
        if prompt is None and self.config.conditions:
            raise ValueError(f"expected the prompt of a condition out of {', '.join(self.config.conditions)}")
        finest, order = sorted_level(voxels.grid_coord, voxels.scene, voxels.n_scenes, self.config.pad)
        x = self.conv_input(voxels.feature[order], finest, prompt)
        skips, levels = [x], [finest]
        for down, enc in zip(self.down, self.enc, strict=True):
            x = down(x, levels[-1], prompt)
            levels.append(levels[-1].strided(2, 2)[1])
            x = enc(x, levels[-1], prompt)
            skips.append(x)
        if self.config.pool_scenes:
            return _mean_per_scene(self._classify(x, levels[-1]), levels[-1])
        for s in reversed(range(self.config.n_stages)):
            x = self.up[s](x, levels[s], prompt)
            x = self.dec[s](torch.cat([x, skips[s]], dim=1), levels[s], prompt)
        x = self._classify(x, finest)
        return x.index_select(
            0, torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
        )

    def _classify(self, x: Tensor, level: Level) -> Tensor:
        return self.final(x, level) if isinstance(self.final, SubmanifoldConvolution) else x


def _mean_per_scene(x: Float[Tensor, "voxel channel"], level: Level) -> Float[Tensor, "scene channel"]:
    counts = torch.bincount(level.indices[:, 0], minlength=level.n_scenes)
    return segment_mean(x, counts)
