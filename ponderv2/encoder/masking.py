"""Block masking: blocks of voxels get one learned vector (mask token) or are removed; pixels are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.encoder.config import MaskConfig
from ponderv2.encoder.encoder import voxels_of
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.scenes.batch import Batch

Generators = torch.Generator | Sequence[torch.Generator]

TOKEN_DEVIATION = 0.02
"""Standard deviation of the initial mask token; its normal distribution is truncated there (published)."""


def new_mask_token(channels: int) -> Float[Tensor, "1 channel"]:
    """The initial mask token."""
    token = torch.empty(1, channels)
    return torch.nn.init.trunc_normal_(token, std=TOKEN_DEVIATION, a=-TOKEN_DEVIATION, b=TOKEN_DEVIATION)


def mask_blocks(
    batch: Batch, token: Float[Tensor, "1 channel"] | None, config: MaskConfig, generator: Generators
) -> Batch:
    """In every scene keep round(n_blocks (1 - ratio)) random blocks, halves to even; hide the others.

    `generator` is a CPU generator, or one for each scene: a scene then loses the same blocks in every batch.
    A block is the cube of voxels with equal trunc(grid_coord / block_size). Where hidden voxels are removed,
    `token` is None and every scene keeps at least one block.
    """
    hidden = hidden_blocks(voxels_of(batch), config, generator)
    if token is None:
        return batch.where(~hidden)
    return replace(batch, feature=torch.where(hidden[:, None], token.to(batch.feature.dtype), batch.feature))


@torch.no_grad()
def hide_pixels(batch: Batch, config: MaskConfig, generators: Sequence[torch.Generator]) -> Batch:
    """In every image keep round(n_blocks (1 - ratio)) random blocks of pixels, halves to even; hide the rest.

    Blocks at the right and at the bottom may be cut. One generator for each scene.
    Raises ValueError for a batch without images.
    """
    images = batch.images
    if images is None:
        raise ValueError("there are no images to hide blocks of: set data.images")
    rows, columns = images.image.shape[2:]
    blocks = (-(-rows // config.block_size), -(-columns // config.block_size))
    n_blocks = blocks[0] * blocks[1]
    kept = int(torch.round(torch.tensor(n_blocks * (1.0 - config.ratio), dtype=torch.float64)))
    visible = torch.zeros(len(images.image), n_blocks, dtype=torch.bool)
    for view, scene in enumerate(images.view_scene.tolist()):
        visible[view, torch.randperm(n_blocks, generator=generators[scene])[:kept]] = True
    whole = visible.view(-1, *blocks)
    for axis in (1, 2):
        whole = whole.repeat_interleave(config.block_size, dim=axis)
    whole = whole[:, :rows, :columns].to(images.image.device)
    return replace(
        batch, images=replace(images, visible=whole, image=images.image * whole[:, None].to(images.image))
    )


@torch.no_grad()
def hidden_blocks(voxels: SparseVoxels, config: MaskConfig, generator: Generators) -> Bool[Tensor, " voxel"]:
    """Which voxels lie in hidden blocks."""
    scene, member = _blocks(voxels, config.block_size)
    counts = torch.bincount(scene, minlength=voxels.n_scenes)
    noise = _noise(counts.tolist(), generator).to(scene.device)
    kept = torch.round(counts.double() * (1.0 - config.ratio)).long()
    if config.hide == "remove":
        kept = kept.clamp(min=1)
    # Blocks are sorted by scene; sorting by scene + noise shuffles them within their scene.
    order = torch.argsort(scene + noise, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[scene[order]]
    return (rank >= kept[scene])[member]


def _noise(counts: list[int], generator: Generators) -> Float[Tensor, " block"]:
    """One number per block; blocks are sorted by scene."""
    if isinstance(generator, torch.Generator):
        return torch.rand(sum(counts), generator=generator, dtype=torch.float64)
    draws = [
        torch.rand(n, generator=one, dtype=torch.float64) for n, one in zip(counts, generator, strict=True)
    ]
    return torch.cat(draws)


def _blocks(voxels: SparseVoxels, size: int) -> tuple[Int[Tensor, " block"], Int[Tensor, " voxel"]]:
    """The scene of every block, ascending, and the block of every voxel."""
    cell = torch.div(voxels.grid_coord, size, rounding_mode="trunc")
    block, member = torch.unique(torch.cat([voxels.scene[:, None], cell], 1), dim=0, return_inverse=True)
    return block[:, 0], member
