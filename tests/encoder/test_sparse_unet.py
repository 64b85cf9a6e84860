"""The point backbone: order, scenes, variants and initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.encoder.encoder import Prompt
from ponderv2.encoder.kinds import build_encoder
from ponderv2.encoder.sparse_unet import PromptedNorm, ResidualBlock, SparseUNet
from ponderv2.geometry.voxels import SparseVoxels
from ponderv2.sparse import kernel_maps
from ponderv2.sparse.layers import SubmanifoldConvolution
from tests.sparse.twins import random_level, random_voxels, to_dense

SMALL = {"base_channels": 4, "channels": (6, 8, 8, 5), "layers": (1, 1, 1, 1)}


def small_voxels(rng: torch.Generator, n_scenes: int = 2) -> SparseVoxels:
    grid_coord, scene = random_voxels(rng, n_scenes=n_scenes, size=9)
    return SparseVoxels(torch.randn(len(scene), 6, generator=rng), grid_coord, scene, n_scenes)


def permuted(voxels: SparseVoxels, order: Tensor) -> SparseVoxels:
    return SparseVoxels(voxels.feature[order], voxels.grid_coord[order], voxels.scene[order], voxels.n_scenes)


@pytest.fixture
def small() -> SparseUNet:
    return build_encoder(SparseUNetConfig(**SMALL)).eval()


def test_order_of_voxels_is_kept(rng: torch.Generator, small: SparseUNet) -> None:
    voxels = small_voxels(rng)
    order = torch.randperm(len(voxels.scene), generator=rng)
    assert torch.equal(small.rows(voxels)[order], small.rows(permuted(voxels, order)))


def test_a_scene_alone_gives_what_it_gives_in_a_batch(rng: torch.Generator, small: SparseUNet) -> None:
    voxels = small_voxels(rng)
    mine = voxels.scene == 1
    alone = SparseVoxels(
        voxels.feature[mine], voxels.grid_coord[mine], torch.zeros_like(voxels.scene[mine]), 1
    )
    torch.testing.assert_close(small.rows(voxels)[mine], small.rows(alone))


def test_moving_a_scene_by_whole_coarse_voxels_changes_nothing(
    rng: torch.Generator, small: SparseUNet
) -> None:
    voxels = small_voxels(rng)
    moved = SparseVoxels(voxels.feature, voxels.grid_coord + torch.tensor([4, 8, 12]), voxels.scene, 2)
    torch.testing.assert_close(small.rows(voxels), small.rows(moved))


def test_kernel_maps_are_found_once_per_level(
    rng: torch.Generator, small: SparseUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = kernel_maps.Level._neighbours
    monkeypatch.setattr(
        kernel_maps.Level,
        "_neighbours",
        lambda self, size: made.append((len(self), size)) or original(self, size),
    )
    small.rows(small_voxels(rng))
    assert len(made) == len(set(made)) == 4  # kernels 5 and 3 of the finest level, 3 of two coarser ones


def test_every_parameter_gets_a_gradient(rng: torch.Generator) -> None:
    model = build_encoder(SparseUNetConfig(**SMALL, n_classes=7))
    output = model.rows(small_voxels(rng))
    assert output.shape[1] == model.config.out_channels == 7
    output.square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_residual_block_matches_dense_convolutions(rng: torch.Generator) -> None:
    level = random_level(rng)
    block = ResidualBlock(5, 4, SparseUNetConfig(**SMALL)).double()
    x = torch.randn(len(level), 5, generator=rng, dtype=torch.float64)
    occupied = to_dense(torch.ones(len(level), 1, dtype=torch.float64), level) > 0

    def dense(y: Tensor, convolution: SubmanifoldConvolution) -> Tensor:
        kernel = convolution.weight.permute(0, 4, 1, 2, 3)
        return torch.nn.functional.conv3d(y, kernel, padding=1) * occupied

    def rows(y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 4, 1)[occupied[:, 0]]

    inner = block.bn1(rows(dense(to_dense(x, level), block.conv1))).relu()
    inner = block.bn2(rows(dense(to_dense(inner, level), block.conv2)))
    convolution, norm = block.proj
    shortcut = norm(x @ convolution.weight.reshape(5, 4))
    torch.testing.assert_close(block(x, level, None), (inner + shortcut).relu())


def test_pointwise_weights_are_read_by_memory_not_transposed(rng: torch.Generator) -> None:
    layer = SubmanifoldConvolution(3, 2, 1, bias=True)
    level = random_level(rng)
    x = torch.randn(len(level), 3, generator=rng)
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(layer.pointwise_matrix().T)
        linear.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x, level), linear(x))
    assert not torch.equal(layer.pointwise_matrix(), layer.weight.reshape(2, 3).T)


def test_pooled_output_is_the_mean_per_scene(rng: torch.Generator) -> None:
    model = build_encoder(SparseUNetConfig(**SMALL, pool_scenes=True, n_classes=3)).eval()
    assert model.rows(small_voxels(rng, 3)).shape == (3, 3)
    bare = build_encoder(SparseUNetConfig(**SMALL, pool_scenes=True)).eval()
    voxels = small_voxels(rng, 2)
    both = bare.rows(voxels)
    assert both.shape == (2, bare.config.out_channels) == (2, 8)
    first = permuted(voxels, (voxels.scene == 0).nonzero()[:, 0])
    torch.testing.assert_close(
        both[:1], bare.rows(SparseVoxels(first.feature, first.grid_coord, first.scene, 1))
    )


def test_initial_weights_are_the_published_ones() -> None:
    model = build_encoder(
        SparseUNetConfig(base_channels=32, channels=(32, 64, 64, 48), layers=(1, 1, 1, 1), n_classes=5)
    )
    stem, down = model.conv_input.convolution, model.down[1].convolution
    assert abs(float(stem.weight.detach().std()) - 0.02) < 1e-3
    bound = (8 * 32) ** -0.5
    assert 0.95 * bound < float(down.weight.detach().abs().max()) <= bound
    assert torch.all(model.final.bias == 0)


def test_prompted_norm_is_batch_norm_with_scale_and_shift(rng: torch.Generator) -> None:
    config = PromptedSparseUNetConfig(context_channels=5)
    norm = PromptedNorm(4, config)
    x, context = torch.randn(10, 4, generator=rng), torch.randn(1, 5, generator=rng)
    linear = norm.modulation[1]
    shift, scale = (torch.nn.functional.silu(context) @ linear.weight.T + linear.bias).split(4, dim=1)
    plain = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x, Prompt(1, context)), plain * (1 + scale) + shift)
    assert [int(bn.num_batches_tracked) for bn in norm.bns] == [0, 1, 0]


def test_condition_selects_the_normalisation(rng: torch.Generator) -> None:
    config = PromptedSparseUNetConfig(**SMALL, context_channels=5, conditions=("a", "b"))
    model = build_encoder(config)
    voxels, context = small_voxels(rng), torch.randn(1, 5, generator=rng)
    model.rows(voxels, Prompt(1, context)).sum().backward()
    assert model.conv_input.bn.bns[0].weight.grad is None
    assert model.conv_input.bn.bns[1].weight.grad is not None
    with pytest.raises(ValueError, match="condition"):
        model.rows(voxels)
    with pytest.raises(ValueError, match="context"):
        model.rows(voxels, Prompt(0))


def test_zero_init_starts_as_plain_batch_norm(rng: torch.Generator) -> None:
    model = build_encoder(PromptedSparseUNetConfig(**SMALL, context_channels=5, zero_init=True)).eval()
    voxels = small_voxels(rng)
    one = model.rows(voxels, Prompt(1, torch.randn(1, 5, generator=rng)))
    two = model.rows(voxels, Prompt(1, torch.randn(1, 5, generator=rng)))
    assert torch.equal(one, two)


def test_stages_of_odd_number_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        SparseUNetConfig(channels=(8, 8, 8), layers=(1, 1, 1))
    with pytest.raises(ValueError, match="even"):
        SparseUNetConfig(channels=(8, 8), layers=(1, 1, 1, 1))


@pytest.mark.parametrize(
    "config",
    [
        SparseUNetConfig(n_classes=3),
        SparseUNetConfig(pool_scenes=True),
        PromptedSparseUNetConfig(channels=(8, 8, 8, 8), layers=(1, 2, 1, 1)),
    ],
    ids=["classes", "pooled", "prompted"],
)
def test_the_stages_name_every_parameter_once_in_the_order_of_the_data(config) -> None:
    names = [name for name, _ in SparseUNet(config).named_parameters()]
    found = [[name for name in names if name.startswith(stage.prefixes)] for stage in config.stages]
    assert all(found) and sorted(name for stage in found for name in stage) == sorted(names)
    assert [stage.prefixes[0] for stage in config.stages][:3] == ["conv_input.", "down.0.", "down.1."]
    decoding = [stage.prefixes[0].split(".")[0] for stage in config.stages if stage.decodes]
    assert set(decoding) <= {"up", "final"} and bool(decoding) != config.pool_scenes
