"""The point backbone against the published implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import Tensor

from ponderv2.encoder.build import build_encoder
from ponderv2.encoder.sparse_unet import SparseUNet
from ponderv2.geometry.voxels import SparseVoxels, scene_of_each
from tests.golden.cases import (
    Case,
    assert_parameter_gradients,
    assert_relative_l2,
    assert_rows,
    fill_weights,
    seeded_normal,
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
    voxels = SparseVoxels(feature, case.tensor("in_grid_coord"), scene_of_each(offset), len(offset))
    output = model(voxels, **_prompt(case))
    cotangent = seeded_normal("cotangent", tuple(output.shape))
    loss = (output * cotangent).sum() / math.sqrt(output.numel())
    loss.backward()
    assert feature.grad is not None
    expected = case.scalar(f"out_{mode}_loss")
    assert abs(float(loss.detach()) - expected) <= 1e-4 * max(abs(expected), 1.0)
    return output.detach(), feature.grad


def _prompt(case: Case) -> dict:
    names = [name for name in case.arrays if name.startswith("in_context")]
    if not names:
        return {}
    condition = case.meta.get("condition", case.config.get("condition"))
    if condition is None and "in_condition" in case:
        condition = str(case.arrays["in_condition"])
    return {"context": case.tensor(names[0]).reshape(1, -1), "condition": condition}


def test_evaluation_mode_equals_the_published_network(case: Case, model: SparseUNet) -> None:
    output, feature_gradient = run(case, model, "eval")
    assert_rows(case, "out_eval", output, 1e-4)
    assert_relative_l2(feature_gradient, case.tensor("out_eval_grad_feat"), 5e-3, "out_eval_grad_feat")
    assert_parameter_gradients(case, "out_eval", model, 5e-3)


def test_training_mode_equals_the_published_network(case: Case, model: SparseUNet) -> None:
    output, feature_gradient = run(case, model, "train")
    assert_rows(case, "out_train", output, 1e-3)
    assert_relative_l2(feature_gradient, case.tensor("out_train_grad_feat"), 5e-2, "out_train_grad_feat")
    assert_parameter_gradients(case, "out_train", model, 5e-2)
    state = model.state_dict()
    for name, expected in zip(
        case.arrays["out_train_running_names"], case.arrays["out_train_running_sum"], strict=True
    ):
        entries = state[str(name)].double()
        scale = max(float(entries.abs().sum()), 1.0)
        assert np.isclose(float(entries.sum()), expected, rtol=0, atol=1e-3 * scale), name
