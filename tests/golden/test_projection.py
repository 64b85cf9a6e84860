"""The 3D network on the volume against the published implementation."""

from __future__ import annotations

import math

import pytest

from ponderv2.lift.kinds import build_projection
from tests.golden.cases import Case, fill_weights, seeded_normal
from tests.golden.compare import (
    FEATURES,
    PARAMETER_GRADIENT,
    TRAINED_FEATURES,
    assert_parameter_gradients,
    assert_relative_l2,
    assert_rows,
    cells_first,
    skip_without,
)
from tests.golden.official_configs import projection_config

KIND = "projection"


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_volume_and_gradients_equal_the_published_network(case: Case, mode: str) -> None:
    skip_without(case, f"out_{mode}")
    official = case.config
    model = build_projection(projection_config(official), official["in_channels"])
    fill_weights(model, case)
    model.train(mode == "train")
    volume = case.tensor("in_volume").requires_grad_()
    output = model(volume)
    loss = (output * seeded_normal("cotangent", tuple(output.shape))).sum() / math.sqrt(output.numel())
    loss.backward()
    if f"out_{mode}_loss" in case:
        assert_relative_l2(loss, case.tensor(f"out_{mode}_loss"), 1e-4, "loss")
    bound = FEATURES if mode == "eval" else TRAINED_FEATURES
    compared = assert_rows(case, f"out_{mode}", cells_first(output), bound)
    assert volume.grad is not None
    compared += assert_rows(case, f"out_{mode}_grad_in", cells_first(volume.grad), 1e-3)
    assert_parameter_gradients(case, f"out_{mode}", model, PARAMETER_GRADIENT)
    assert compared, f"{case.name} holds nothing to compare in mode {mode}"
