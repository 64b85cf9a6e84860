"""Levels of cells, the neck that refines them from coarse to fine, and what every cell predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponderv2.geometry.features import PointFeatures
from ponderv2.heads.detection.fcaf3d.cells import CellGrid, pooled_cells
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.sparse.generated_levels import children, interpolated_at_children, pruned, rows_at
from ponderv2.sparse.kernel_maps import Level
from ponderv2.sparse.layers import GenerativeConvolution, StridedConvolution, SubmanifoldConvolution
from ponderv2.sparse.normalisation import BatchNorm

CLASS_PRIOR = 0.01
"""Probability of every class before training."""
LARGEST_LOG = 10.0
"""Of a distance in metres: exp of more than this would overflow sooner or later."""


@dataclass(frozen=True)
class FCAF3DOutputs:
    """What the cells of all levels predict, the finest level first."""

    location: Float[Tensor, "location 3"]
    """Centre of each cell, metres, in the frame of its scene."""
    level: Int[Tensor, " location"]
    scene: Int[Tensor, " location"]
    logits: Float[Tensor, "location class"]
    centerness: Float[Tensor, " location"]
    """Before the sigmoid."""
    code: Float[Tensor, "location value"]
    """Distances to the faces at -x, +x, -y, +y, -z, +z, metres; with yaw, two further values as in
    `box_coding`."""
    n_scenes: int


class Block(nn.Module):
    """Two 3x3x3 convolutions and the identity beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = SubmanifoldConvolution(channels, channels, 3)
        self.norm1 = BatchNorm(channels)
        self.conv2 = SubmanifoldConvolution(channels, channels, 3)
        self.norm2 = BatchNorm(channels)

    def forward(self, x: Float[Tensor, "voxel channel"], level: Level) -> Float[Tensor, "voxel channel"]:
        inner = torch.relu(self.norm1(self.conv1(x, level)))
        return torch.relu(x + self.norm2(self.conv2(inner, level)))


class Down(nn.Module):
    """To the next coarser level."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = StridedConvolution(in_channels, channels)
        self.norm = BatchNorm(channels)
        self.block = Block(channels)

    def forward(
        self, x: Float[Tensor, "voxel channel"], level: Level
    ) -> tuple[Float[Tensor, "coarse out"], Level]:
        x, coarse = self.conv(x, level)
        return self.block(torch.relu(self.norm(x)), coarse), coarse


class Up(nn.Module):
    """To the next finer level: all children of every cell."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.generate = GenerativeConvolution(in_channels, channels)
        self.norm1 = BatchNorm(channels)
        self.conv = SubmanifoldConvolution(channels, channels, 3)
        self.norm2 = BatchNorm(channels)

    def forward(
        self, x: Float[Tensor, "voxel channel"], level: Level
    ) -> tuple[Float[Tensor, "child out"], Level]:
        x, finer = self.generate(x, level)
        x = nn.functional.elu(self.norm1(x))
        return nn.functional.elu(self.norm2(self.conv(x, finer))), finer


class Predictor(nn.Module):
    """What cells of all levels share, and the scale that each level learns."""

    def __init__(self, config: FCAF3DHeadConfig, n_classes: int) -> None:
        super().__init__()
        self.centerness = nn.Linear(config.channels, 1)
        self.box = nn.Linear(config.channels, 8 if config.yaw else 6)
        self.classes = nn.Linear(config.channels, n_classes)
        self.scale = nn.Parameter(torch.ones(len(config.widths)))
        for linear in (self.centerness, self.box, self.classes):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
        nn.init.constant_(self.classes.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))

    def forward(
        self, x: Float[Tensor, "voxel channel"], level: int
    ) -> tuple[Float[Tensor, "voxel class"], Float[Tensor, " voxel"], Float[Tensor, "voxel value"]]:
        """Logits, centreness before the sigmoid and the code of the box; in float32."""
        box = self.box(x).float()
        distances = (self.scale[level] * box[:, :6]).clamp(max=LARGEST_LOG).exp()
        return (
            self.classes(x).float(),
            self.centerness(x)[:, 0].float(),
            torch.cat([distances, box[:, 6:]], dim=1),
        )


class FCAF3DNetwork(nn.Module):
    """Features of points to what the cells of all levels predict."""

    def __init__(self, config: FCAF3DHeadConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config, widths = config, config.widths
        self.entry = nn.Linear(in_channels, widths[0], bias=False)
        self.entry_norm = BatchNorm(widths[0])
        self.entry_block = Block(widths[0])
        self.down = nn.ModuleList(Down(*pair) for pair in pairwise(widths))
        self.up = nn.ModuleList(Up(coarse, fine) for fine, coarse in pairwise(widths))
        self.out = nn.ModuleList(
            nn.ModuleList([SubmanifoldConvolution(width, config.channels, 3), BatchNorm(config.channels)])
            for width in widths
        )
        self.predictor = Predictor(config, n_classes)

    def forward(self, features: PointFeatures) -> FCAF3DOutputs:
        """Of every cell that is left of each level."""
        n_levels = len(self.config.widths)
        pooled, level, grid = pooled_cells(features, self.config.cell, n_levels)
        skips = [self.entry_block(torch.relu(self.entry_norm(self.entry(pooled))), level)]
        levels = [level]
        for down in self.down:
            skip, level = down(skips[-1], levels[-1])
            skips.append(skip)
            levels.append(level)
        x, level = skips[-1], levels[-1]
        found = [self._predictions(x, level, grid, n_levels - 1)]
        for number in reversed(range(n_levels - 1)):
            logits = found[-1].logits
            keep = self._kept_children(logits, level)
            x, level = self.up[number](x, level)
            x = _plus(x, level, skips[number], levels[number])
            if keep is not None:
                x, level = x[keep], pruned(level, keep)
            found.append(self._predictions(x, level, grid, number))
        return _concatenated(found[::-1])

    def _predictions(self, x: Tensor, level: Level, grid: CellGrid, number: int) -> FCAF3DOutputs:
        convolution, norm = self.out[number]  # pyright: ignore[reportGeneralTypeIssues]
        logits, centerness, code = self.predictor(nn.functional.elu(norm(convolution(x, level))), number)
        return FCAF3DOutputs(
            location=grid.centers(level, 2**number),
            level=torch.full((len(level),), number, device=x.device),
            scene=level.indices[:, 0].long(),
            logits=logits,
            centerness=centerness,
            code=code,
            n_scenes=level.n_scenes,
        )

    @torch.no_grad()
    def _kept_children(self, logits: Tensor, level: Level) -> Bool[Tensor, " child"] | None:
        """Which children are left; None for all of them."""
        most = self.config.most_cells
        if most is None or len(level) == 0:
            return None
        scene = children(level)[0].indices[:, 0].long()
        counts = torch.bincount(scene, minlength=level.n_scenes)
        if int(counts.max()) <= most:
            return None
        return best_of_groups(
            interpolated_at_children(logits.amax(dim=1, keepdim=True), level)[:, 0], scene, most
        )


def best_of_groups(
    score: Float[Tensor, " row"], group: Int[Tensor, " row"], most: int
) -> Bool[Tensor, " row"]:
    """Which rows are among the `most` with the highest scores of their group; of equal ones the first."""
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    counts = torch.bincount(group) if len(group) else group
    rank = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    return torch.empty_like(group, dtype=torch.bool).index_copy_(0, order, rank < most)


def _plus(x: Tensor, level: Level, skip: Tensor, of_skip: Level) -> Tensor:
    """The features of the encoder are added where both levels have a cell."""
    row = rows_at(of_skip, level)
    padded = torch.cat([skip, skip.new_zeros(1, skip.shape[1])])
    return x + padded.index_select(0, torch.where(row < 0, len(skip), row))


def _concatenated(parts: list[FCAF3DOutputs]) -> FCAF3DOutputs:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    names = ("location", "level", "scene", "logits", "centerness", "code")
    return FCAF3DOutputs(**{name: joined(name) for name in names}, n_scenes=parts[0].n_scenes)
