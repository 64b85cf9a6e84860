"""Models of point prompt training and the plain segmentor against the published implementation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from ponderv2.scenes.batch import Batch
from ponderv2.tasks.segmentation.model import SegmentationModel
from tests.golden.cases import Case, golden_state
from tests.golden.compare import assert_parameter_gradients, assert_rows
from tests.golden.official_configs import segmentation_config

KIND = "segmentation"
OUTPUTS = ("out_{mode}_seg_logits", "out_{mode}_logits", "out_{mode}")
OF_HEAD = ("proj_head.", "class_embedding", "logit_scale", "seg_heads.")


def own_name(official: str) -> str:
    """Our name of a published state entry."""
    name = official.replace("backbone.backbone.", "backbone.").replace(
        "backbone.embedding_table", "embedding_table"
    )
    return f"head.{name}" if name.startswith(OF_HEAD) else name.replace("backbone.final.", "head.final.")


def batch_of(case: Case) -> Batch:
    grid_coord, offset = case.tensor("in_grid_coord"), case.tensor("in_offset")
    condition = case.meta.get("condition", case.config.get("condition", ""))
    if "in_condition" in case:
        condition = str(case.arrays["in_condition"])
    return Batch(
        coord=case.tensor("in_coord") if "in_coord" in case else grid_coord.float(),
        grid_coord=grid_coord,
        feature=case.tensor("in_feat"),
        offset=offset,
        segment=case.tensor("in_segment"),
        units_per_metre=torch.ones(len(offset)),
        condition=condition if isinstance(condition, str) else condition[0],
        names=tuple(str(number) for number in range(len(offset))),
    )


@pytest.fixture
def model(case: Case) -> SegmentationModel:
    """The model with the weights of the case, under the published names; every name must fit, both ways."""
    model = SegmentationModel(segmentation_config(case.config))
    state = {own_name(name): value for name, value in golden_state(case).items()}
    kept = {name for name in model.state_dict() if name.endswith(("num_batches_tracked", "logit_scale"))}
    if "in_class_embedding" in case:
        state["head.class_embedding"] = case.tensor("in_class_embedding")
    assert set(model.state_dict()) - kept == set(state) - kept
    model.load_state_dict(state, strict=False)
    return model


def _compare_logits(case: Case, mode: str, logits: torch.Tensor, bound: float) -> bool:
    for pattern in OUTPUTS:
        name = pattern.format(mode=mode)
        if any(stored == name or stored.startswith(f"{name}__") for stored in case.arrays):
            assert_rows(case, name, logits, bound)
            return True
    return False


def test_evaluation_gives_the_published_scores(case: Case, model: SegmentationModel) -> None:
    with torch.no_grad():
        logits = model.eval().logits(batch_of(case))
    assert _compare_logits(case, "eval", logits, 1e-4), f"{case.name} has no scores: {sorted(case.arrays)}"


def test_a_training_step_gives_the_published_loss_and_gradients(case: Case, model: SegmentationModel) -> None:
    if "out_train_loss" not in case:
        pytest.skip(f"{case.name} has no training step")
    step = model.train()(batch_of(case))
    loss = step.losses.total()
    assert float(loss.detach()) == pytest.approx(case.scalar("out_train_loss"), rel=1e-3)
    _compare_logits(case, "train", step.logits, 1e-3)
    if "out_train_grad_names" in case:
        loss.backward()
        published = [str(name) for name in case.arrays["out_train_grad_names"]]
        assert_parameter_gradients(case, "out_train", _UnderPublishedNames(model, published), 5e-2)


class _UnderPublishedNames(nn.Module):
    """The parameters of a model as the published code calls them: check vectors are seeded by these names."""

    def __init__(self, model: SegmentationModel, published: list[str]) -> None:
        super().__init__()
        self.model, self.published = model, published

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        own = dict(self.model.named_parameters())
        return iter((name, own[own_name(name)]) for name in self.published)
