"""The point backbone against the published implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import Tensor

from ponderv2.encoder.encoder import Prompt
from ponderv2.encoder.kinds import build_encoder
from ponderv2.encoder.sparse_unet import SparseUNet
from ponderv2.geometry.voxels import SparseVoxels, batch_index
from tests.golden.cases import Case, fill_weights, seeded_normal
from tests.golden.compare import (
    FEATURES,
    PARAMETER_GRADIENT,
    TRAINED_FEATURES,
    TRAINED_PARAMETER_GRADIENT,
    assert_parameter_gradients,
    assert_rows,
    skip_without,
)
from tests.golden.official_configs import encoder_config

KIND = "sparse_unet"


@pytest.fixture(scope="module")
def model(case: Case) -> SparseUNet:
    return build_encoder(encoder_config(case.config))


def run(case: Case, model: SparseUNet, mode: str) -> tuple[Tensor, Tensor]:
    """Features, and the gradient of the check sum with respect to the input; parameter gradients are left."""
    fill_weights(model, case)
    model.train(mode == "train").zero_grad()
    feature = case.tensor("in_feat").requires_grad_()
    offset = case.tensor("in_offset")
    voxels = SparseVoxels(feature, case.tensor("in_grid_coord"), batch_index(offset), len(offset))
    output = model.rows(voxels, _prompt(case, model))
    cotangent = seeded_normal("cotangent", tuple(output.shape))
    loss = (output * cotangent).sum() / math.sqrt(output.numel())
    loss.backward()
    assert feature.grad is not None
    if f"out_{mode}_loss" in case:
        expected = case.scalar(f"out_{mode}_loss")
        assert abs(float(loss.detach()) - expected) <= 1e-4 * max(abs(expected), 1.0)
    return output.detach(), feature.grad


def _prompt(case: Case, model: SparseUNet) -> Prompt | None:
    names = [name for name in case.arrays if name.startswith("in_context")]
    if not names:
        return None
    condition = case.meta.get("condition", case.config.get("condition"))
    if condition is None and "in_condition" in case:
        condition = str(case.arrays["in_condition"])
    known = model.config.conditions
    index = 0 if condition is None and len(known) == 1 else known.index(condition)
    return Prompt(index, case.tensor(names[0]).reshape(1, -1))


def test_evaluation_mode_equals_the_published_network(case: Case, model: SparseUNet) -> None:
    skip_without(case, "out_eval")
    output, feature_gradient = run(case, model, "eval")
    compared = assert_rows(case, "out_eval", output, FEATURES)
    compared += assert_rows(case, "out_eval_grad_feat", feature_gradient, PARAMETER_GRADIENT)
    assert_parameter_gradients(case, "out_eval", model, PARAMETER_GRADIENT)
    assert compared, f"{case.name} holds nothing to compare in evaluation mode"


def test_training_mode_equals_the_published_network(case: Case, model: SparseUNet) -> None:
    skip_without(case, "out_train")
    output, feature_gradient = run(case, model, "train")
    compared = assert_rows(case, "out_train", output, TRAINED_FEATURES)
    compared += assert_rows(case, "out_train_grad_feat", feature_gradient, TRAINED_PARAMETER_GRADIENT)
    assert_parameter_gradients(case, "out_train", model, TRAINED_PARAMETER_GRADIENT)
    if "out_train_running_names" not in case:
        assert compared, f"{case.name} holds nothing to compare in training mode"
        return
    state = model.state_dict()
    for name, expected in zip(
        case.arrays["out_train_running_names"], case.arrays["out_train_running_sum"], strict=True
    ):
        entries = state[str(name)].double()
        scale = max(float(entries.abs().sum()), 1.0)
        assert np.isclose(float(entries.sum()), expected, rtol=0, atol=1e-3 * scale), name
