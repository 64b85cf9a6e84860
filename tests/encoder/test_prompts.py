"""The prompted U-Net against dense convolutions and norms written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.encoder.config import PromptedSparseUNetConfig
from ponderv2.encoder.encoder import Prompt
from ponderv2.encoder.kinds import build_encoder
from ponderv2.encoder.prompts import Prompts
from ponderv2.encoder.sparse_unet import SparseUNet
from ponderv2.errors import CheckpointError
from ponderv2.geometry.voxels import SparseVoxels
from tests.sparse.twins import random_voxels

NAMES = ("ScanNet", "S3DIS", "Structured3D")
SMALL = PromptedSparseUNetConfig(
    in_channels=5, base_channels=4, channels=(6, 8, 7, 5), layers=(1, 2, 1, 1), context_channels=9, pad=8
)
SIZE = 12
"""Voxels along each edge of the dense grids: a multiple of 4, so that halving drops nothing."""


class DenseTwin:
    """The same network on full grids; every value outside the occupied voxels is set to zero again."""

    def __init__(self, model: SparseUNet, context: Tensor, dataset: int, training: bool) -> None:
        self.state = dict(model.state_dict(keep_vars=True))
        self.context, self.dataset, self.training = context, dataset, training

    def norm(self, x: Tensor, occupied: Tensor, name: str) -> Tensor:
        """Statistics of this dataset; shift is the first half of the modulation, scale the second."""
        own = f"{name}.bns.{self.dataset}"
        rows = x.permute(0, 2, 3, 4, 1)[occupied[:, 0]]
        if self.training:
            mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        else:
            mean, variance = self.state[f"{own}.running_mean"], self.state[f"{own}.running_var"]
        rows = (rows - mean) / torch.sqrt(variance + 1e-3)
        rows = rows * self.state[f"{own}.weight"] + self.state[f"{own}.bias"]
        silu = self.context * torch.sigmoid(self.context)
        changes = silu @ self.state[f"{name}.modulation.1.weight"].T + self.state[f"{name}.modulation.1.bias"]
        n = rows.shape[1]
        rows = rows * (1 + changes[:, n:]) + changes[:, :n]
        return (
            torch.zeros_like(x.permute(0, 2, 3, 4, 1))
            .masked_scatter(occupied.permute(0, 2, 3, 4, 1), rows)
            .permute(0, 4, 1, 2, 3)
        )

    def submanifold(self, x: Tensor, occupied: Tensor, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        if weight.shape[1] == 1:  # read by memory, not transposed
            matrix = weight.reshape(weight.shape[-1], weight.shape[0])
            return torch.einsum("bcxyz,cd->bdxyz", x, matrix) * occupied
        return F.conv3d(x, weight.permute(0, 4, 1, 2, 3), padding=weight.shape[1] // 2) * occupied

    def block(self, x: Tensor, occupied: Tensor, name: str) -> Tensor:
        inner = self.norm(self.submanifold(x, occupied, f"{name}.conv1"), occupied, f"{name}.bn1").relu()
        inner = self.norm(self.submanifold(inner, occupied, f"{name}.conv2"), occupied, f"{name}.bn2")
        if f"{name}.proj_conv.weight" in self.state:
            x = self.norm(self.submanifold(x, occupied, f"{name}.proj_conv"), occupied, f"{name}.proj_norm")
        return (inner + x).relu()

    def stage(self, x: Tensor, occupied: Tensor, name: str) -> Tensor:
        number = 0
        while f"{name}.block{number}.conv1.weight" in self.state:
            x = self.block(x, occupied, f"{name}.block{number}")
            number += 1
        return x

    def __call__(self, x: Tensor, occupied: Tensor) -> Tensor:
        x = self.norm(self.submanifold(x, occupied, "conv_input.conv"), occupied, "conv_input.bn").relu()
        skips, masks = [x], [occupied]
        for s in range(2):
            weight = self.state[f"down.{s}.conv.weight"].permute(0, 4, 1, 2, 3)
            coarse = F.max_pool3d(masks[-1].to(x.dtype), 2) > 0
            x = self.norm(F.conv3d(x, weight, stride=2) * coarse, coarse, f"down.{s}.bn").relu()
            x = self.stage(x, coarse, f"enc.{s}")
            skips.append(x)
            masks.append(coarse)
        for s in (1, 0):
            weight = self.state[f"up.{s}.conv.weight"].permute(4, 0, 1, 2, 3)
            x = F.conv_transpose3d(x, weight, stride=2) * masks[s]
            x = self.norm(x, masks[s], f"up.{s}.bn").relu()
            x = self.stage(torch.cat([x, skips[s]], dim=1), masks[s], f"dec.{s}")
        return x


@pytest.fixture
def model(rng: torch.Generator) -> SparseUNet:
    """Double precision, with random statistics, scales and modulations."""
    network = build_encoder(SMALL).double()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=rng, dtype=torch.float64)
            value.copy_(noise + 0.5 if name.endswith("running_var") else noise - 0.5)
    return network


def grids(rng: torch.Generator) -> tuple[SparseVoxels, Tensor, Tensor]:
    grid_coord, scene = random_voxels(rng, n_scenes=2, size=SIZE, density=0.2)
    feature = torch.randn(len(scene), 5, generator=rng, dtype=torch.float64)
    dense = torch.zeros(2, SIZE, SIZE, SIZE, 5, dtype=torch.float64)
    occupied = torch.zeros(2, SIZE, SIZE, SIZE, 1, dtype=torch.bool)
    place = (scene, *grid_coord.unbind(1))
    dense[place], occupied[place] = feature, True
    voxels = SparseVoxels(feature, grid_coord, scene, 2)
    return voxels, dense.permute(0, 4, 1, 2, 3), occupied.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("condition", NAMES)
def test_the_whole_network_equals_its_dense_twin(
    model: SparseUNet, rng: torch.Generator, condition: str, training: bool
) -> None:
    voxels, dense, occupied = grids(rng)
    context = torch.randn(1, 9, generator=rng, dtype=torch.float64)
    twin = DenseTwin(model, context, NAMES.index(condition), training)
    expected = twin(dense, occupied).permute(0, 2, 3, 4, 1)
    found = model.train(training).rows(voxels, Prompt(NAMES.index(condition), context))
    x, y, z = voxels.grid_coord.unbind(1)
    torch.testing.assert_close(found, expected[voxels.scene, x, y, z])


def test_only_the_statistics_of_the_batch_s_dataset_move(model: SparseUNet, rng: torch.Generator) -> None:
    voxels, _, _ = grids(rng)
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    model.train().rows(voxels, Prompt(1, torch.zeros(1, 9, dtype=torch.float64)))
    moved = {
        name
        for name, value in model.state_dict().items()
        if "running" in name and (value != before[name]).any()
    }
    assert moved == {name for name in before if ".bns.1." in name}


def test_there_is_one_prompted_norm_for_each_convolution() -> None:
    """59 in the published network."""
    full = build_encoder(PromptedSparseUNetConfig())
    norms = {name for name, _ in full.named_parameters() if name.endswith("modulation.1.bias")}
    convolutions = [
        value for name, value in full.named_parameters() if name.endswith("weight") and value.dim() == 5
    ]
    assert len(norms) == len(convolutions) == 59


def test_a_dataset_has_its_index_in_both_orders() -> None:
    prompts = Prompts(names=("a", "b", "c"), rows=("c", "b"))
    assert prompts.known == ("b", "c")
    assert (prompts.index("c"), prompts.row("c")) == (2, 0)
    assert not prompts.knows("a")
    with pytest.raises(ValueError, match="knows the datasets b, c, not 'a'"):
        prompts.index("a")


def test_a_fixed_prompt_takes_the_place_of_the_dataset() -> None:
    prompts = Prompts(NAMES, NAMES, fixed="S3DIS")
    assert prompts.index("rooms") == prompts.row("ScanNet") == 1
    assert prompts.choose(None, "ScanNet") == "S3DIS" and prompts.choose("ScanNet") == "ScanNet"


def test_without_prompts_every_dataset_is_known_and_number_0() -> None:
    prompts = Prompts()
    assert not prompts and prompts.knows("rooms") and prompts.index("rooms") == 0
    assert prompts.choose(None, "rooms") == "rooms" and prompts.choose(None) == ""


def test_the_prompt_of_data_is_its_own_else_that_of_scannet_else_the_first() -> None:
    assert Prompts(NAMES).choose(None, "S3DIS") == "S3DIS"
    assert Prompts(NAMES).choose(None, "rooms") == "ScanNet"
    assert Prompts(("a", "b")).choose(None, "rooms") == "a"
    with pytest.raises(CheckpointError, match="knows the datasets a, b, not 'rooms'"):
        Prompts(("a", "b")).choose("rooms")
