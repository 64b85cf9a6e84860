"""Block masking: how many, which, and that only features go."""

from __future__ import annotations

import pytest
import torch

from ponderv2.encoder.config import MaskConfig
from ponderv2.encoder.masking import hidden_blocks, mask_blocks, new_mask_token
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.scenes.batch import Batch


def blocks_in_a_row(counts: list[int], size: int = 4) -> SparseVoxels:
    """For each scene N blocks along x, three voxels in each."""
    coord, scene = [], []
    for number, count in enumerate(counts):
        for block in range(count):
            for step in range(3):
                coord.append([block * size + step, 1, 2])
                scene.append(number)
    grid_coord = torch.tensor(coord)
    return SparseVoxels(torch.rand(len(coord), 2), grid_coord, torch.tensor(scene), len(counts))


def kept_blocks(voxels: SparseVoxels, config: MaskConfig, rng: torch.Generator) -> list[int]:
    hidden = hidden_blocks(voxels, config, rng)
    return [int((~hidden[voxels.scene == scene]).sum()) // 3 for scene in range(voxels.n_scenes)]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_each_scene_keeps_the_rounded_share_halves_to_even(rng: torch.Generator, ratio: float) -> None:
    counts = [1, 2, 3, 5, 7, 10, 25]
    kept = kept_blocks(blocks_in_a_row(counts), MaskConfig(block_size=4, ratio=ratio), rng)
    assert kept == [round(count * (1.0 - ratio)) for count in counts]


def test_blocks_are_hidden_as_a_whole(rng: torch.Generator) -> None:
    voxels = blocks_in_a_row([6, 9])
    hidden = hidden_blocks(voxels, MaskConfig(block_size=4, ratio=0.5), rng)
    assert torch.equal(hidden.view(-1, 3), hidden.view(-1, 3)[:, :1].expand(-1, 3))


def test_every_block_is_hidden_equally_often(rng: torch.Generator) -> None:
    voxels = blocks_in_a_row([8])
    share = torch.stack(
        [hidden_blocks(voxels, MaskConfig(block_size=4, ratio=0.25), rng) for _ in range(800)]
    )
    torch.testing.assert_close(
        share.double().mean(0), torch.full((24,), 0.25, dtype=torch.float64), atol=0.06, rtol=0
    )


def batch_of(voxels: SparseVoxels) -> Batch:
    n = len(voxels.feature)
    return Batch(
        coord=torch.zeros(n, 3),
        grid_coord=voxels.grid_coord,
        feature=voxels.feature,
        offset=torch.bincount(voxels.scene, minlength=voxels.n_scenes).cumsum(0),
        segment=torch.full((n,), -1),
        units_per_metre=torch.ones(voxels.n_scenes),
        condition="",
        names=("a",) * voxels.n_scenes,
    )


def test_only_features_change_and_the_token_learns(rng: torch.Generator) -> None:
    voxels = blocks_in_a_row([6, 9])
    token = new_mask_token(2).requires_grad_()
    assert float(token.detach().abs().max()) <= 0.02
    config = MaskConfig(block_size=4, ratio=0.5)
    hidden = hidden_blocks(voxels, config, torch.Generator().manual_seed(3))
    batch = batch_of(voxels)
    masked = mask_blocks(batch, token, config, torch.Generator().manual_seed(3))
    assert torch.equal(masked.grid_coord, batch.grid_coord)
    assert torch.equal(masked.feature[~hidden], voxels.feature[~hidden])
    assert torch.equal(masked.feature[hidden], token.expand(int(hidden.sum()), 2))
    masked.feature.sum().backward()
    assert token.grad is not None
    torch.testing.assert_close(token.grad, torch.full((1, 2), float(hidden.sum())))


def test_the_generator_alone_decides() -> None:
    voxels, config = blocks_in_a_row([20, 20]), MaskConfig(block_size=4, ratio=0.5)
    first = hidden_blocks(voxels, config, torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    assert torch.equal(first, hidden_blocks(voxels, config, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, hidden_blocks(voxels, config, torch.Generator().manual_seed(4)))


def test_with_a_generator_per_scene_a_scene_does_not_depend_on_its_batch() -> None:
    config = MaskConfig(block_size=4, ratio=0.5)
    both, second = blocks_in_a_row([12, 20]), blocks_in_a_row([20])
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    in_batch = hidden_blocks(both, config, generators)[both.scene == 1]
    alone = hidden_blocks(second, config, [torch.Generator().manual_seed(2)])
    assert torch.equal(in_batch, alone)
