"""The step that is measured part by part is the step that is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operation_counts import OperationCounts
from benchmarks.step_parts import PARTS, one_step
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.models.pretext import PretextModel
from ponderv2.randomness import make_generator
from ponderv2.workflows.training_runs import seeded_weights
from tests.workflows.test_image_pretraining import config, fusion
from tests.workflows.tiny import rooms


@pytest.mark.parametrize("settings", [config(), fusion()], ids=["camera", "fusion"])
def test_a_measured_step_of_images_is_the_trained_one(settings, tmp_path: Path) -> None:
    scenes = PretrainDataset(open_folder(rooms(tmp_path / "rooms")), "train", settings.data)
    batch = scenes.collate([scenes.sample(0, 0)])

    def model() -> PretextModel:
        seeded_weights(0)
        return PretextModel(settings.model).train()

    expected = model()
    torch.manual_seed(0)  # of dropped paths
    loss = expected(batch, make_generator("step", 0)).losses.total()
    loss.backward()

    measured = model()
    optimiser = torch.optim.SGD(measured.parameters(), 1.0)
    taken: list[Tensor | None] = []
    optimiser.register_step_pre_hook(lambda *_: taken.extend(_gradients(measured)))
    torch.manual_seed(0)
    clock, found = one_step(measured, optimiser, batch, 0)
    assert found == float(loss.detach())
    assert set(clock.cpu_seconds) == set(PARTS) and min(clock.cpu_seconds.values()) >= 0
    for one, other in zip(taken, _gradients(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def _gradients(model: nn.Module) -> list[Tensor | None]:
    return [None if one.grad is None else one.grad.clone() for one in model.parameters()]


@pytest.mark.parametrize("groups", [1, 8])
def test_arithmetic_of_grouped_convolutions_is_counted_as_it_is_done(groups: int) -> None:
    """Each of 2 x 8 x 10 x 10 results sums 9 products per channel of its group; twice that going back."""
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    given = torch.randn(2, 8, 10, 10, requires_grad=True)
    counts = OperationCounts()
    with counts:
        result = layer(given)
        counts.finish("forward")
        result.sum().backward()
        counts.finish("backward")
    products = 2 * 2 * 8 * 10 * 10 * 9 * (8 // groups)
    assert counts.flops["forward"] == products and counts.flops["backward"] == 2 * products
    assert counts.largest["forward"] == 2 * 8 * 10 * 10 * 4
