"""The 3D network on the volume against the published implementation."""

from __future__ import annotations

import math

import pytest
from torch import Tensor

from ponderv2.encoder.build import build_projection
from tests.golden.cases import (
    Case,
    assert_parameter_gradients,
    assert_relative_l2,
    assert_rows,
    fill_weights,
    seeded_normal,
)
from tests.golden.official_configs import projection_config

KIND = "projection"


def rows(volume: Tensor) -> Tensor:
    """Cells in (scene, z, y, x) order, channels last."""
    return volume.detach().permute(0, 2, 3, 4, 1).reshape(-1, volume.shape[1])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_volume_and_gradients_equal_the_published_network(case: Case, mode: str) -> None:
    official = case.config
    model = build_projection(projection_config(official), official["in_channels"])
    fill_weights(model, case)
    model.train(mode == "train")
    volume = case.tensor("in_volume").requires_grad_()
    output = model(volume)
    loss = (output * seeded_normal("cotangent", tuple(output.shape))).sum() / math.sqrt(output.numel())
    loss.backward()
    assert_relative_l2(loss, case.tensor(f"out_{mode}_loss"), 1e-4, "loss")
    bound = 1e-4 if mode == "eval" else 1e-3
    assert_rows(case, f"out_{mode}", rows(output), bound)
    assert volume.grad is not None
    assert_rows(case, f"out_{mode}_grad_in", rows(volume.grad), 1e-3)
    assert_parameter_gradients(case, f"out_{mode}", model, 5e-3)
