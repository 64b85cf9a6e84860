"""Losses and objects of PointGroup against the published implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.voxels import batch_index
from ponderv2.heads.config import GroupingConfig
from ponderv2.heads.instances import group_points, instance_centres, instance_losses, instance_targets
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.training.weights import strip_wrappers
from tests.golden.cases import Case, golden_state
from tests.golden.compare import assert_relative_l2
from tests.golden.official_configs import encoder_config

KIND = "PG-v1m1"


def settings(case: Case) -> InstancesModelConfig:
    """Official names -> ours; the published backbone stands inside a prompt-trained one."""
    official = case.config
    outer = official["backbone"]
    inner = outer.get("backbone", outer)
    shared = {name: outer[name] for name in ("conditions", "context_channels") if name in outer}
    ignored = tuple(one for one in official.get("segment_ignore_index", (-1, 0, 1)) if one >= 0)
    return InstancesModelConfig(
        encoder=encoder_config({**shared, **inner}),
        n_classes=official.get("semantic_num_classes", 20),
        ignored_classes=ignored,
        conditions=tuple(outer.get("conditions", ())),
        grouping=GroupingConfig(
            radius=official.get("cluster_thresh", 1.5),
            min_linked=official.get("cluster_min_points", 50),
            more_than=official.get("cluster_propose_points", 100),
        ),
    )


def given(case: Case, *names: str) -> Tensor:
    """The first of several arrays that is there."""
    for name in names:
        if name in case:
            return case.tensor(name)
    pytest.skip(f"{case.name} has none of {', '.join(names)}")


@pytest.fixture(scope="module")
def model(case: Case) -> InstancesModel:
    model = InstancesModel(settings(case))
    state = strip_wrappers(golden_state(case))
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert own == set(state)
    model.load_state_dict(state, strict=False)
    return model


@pytest.fixture(scope="module")
def batch(case: Case) -> Batch:
    """Scenes of a case; numbers of objects are told apart between scenes."""
    offset = case.tensor("in_offset")
    instance = case.tensor("in_instance")
    apart = torch.where(instance < 0, -1, instance + 100_000 * batch_index(offset))
    config = case.config["backbone"]
    condition = case.meta.get("condition", case.config.get("condition"))
    if condition is None:
        condition = str(case.arrays["in_condition"]) if "in_condition" in case else config["conditions"][0]
    return Batch(
        coord=case.tensor("in_coord").float(),
        grid_coord=case.tensor("in_grid_coord"),
        feature=case.tensor("in_feat"),
        offset=offset,
        segment=case.tensor("in_segment"),
        units_per_metre=torch.ones(len(offset)),
        condition=condition,
        names=tuple(f"scene{i}" for i in range(len(offset))),
        instance=apart,
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_losses_equal_the_published_ones(case: Case, model: InstancesModel, batch: Batch, mode: str) -> None:
    expected = {
        name: float(given(case, f"out_{mode}_{name}", *([f"out_{name}"] if mode == "train" else [])))
        for name in ("seg_loss", "bias_l1_loss", "bias_cosine_loss", "loss")
    }
    losses = model.train(mode == "train")(batch).losses
    own = (losses.cross_entropy, losses.offset, losses.direction, losses.total())
    for (name, value), result in zip(expected.items(), own, strict=True):
        assert float(result.detach()) == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_centres_equal_the_published_ones(case: Case, batch: Batch) -> None:
    centre = given(case, "in_instance_centroid", "out_instance_centroid")
    instance = instance_targets(batch.segment, batch.instance, settings(case).ignored_classes)
    inside = instance >= 0
    own = instance_centres(batch.coord, instance)
    assert torch.allclose(own[inside], centre[inside].float(), atol=1e-4)


def test_losses_of_given_predictions_equal_the_published_ones(case: Case, batch: Batch) -> None:
    """Behind the network, where rounding does not matter."""
    logits = given(case, "out_eval_seg_logits", "out_seg_logits", "in_seg_logits", "in_logit_pred")
    offset = given(case, "out_eval_bias_pred", "out_bias_pred", "in_bias_pred")
    instance = instance_targets(batch.segment, batch.instance, settings(case).ignored_classes)
    target = instance_centres(batch.coord, instance) - batch.coord
    losses = instance_losses(logits, offset, target, batch.segment, instance >= 0)
    expected = float(given(case, "out_eval_loss", "out_loss"))
    assert float(losses.total()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_objects_of_given_predictions_equal_the_published_ones(case: Case, batch: Batch) -> None:
    logits = given(case, "out_eval_seg_logits", "out_seg_logits", "in_seg_logits", "in_logit_pred")
    offset = given(case, "out_eval_bias_pred", "out_bias_pred", "in_bias_pred")
    masks = given(case, "out_eval_pred_masks", "out_pred_masks").bool()
    config = settings(case)
    position = (batch.coord + offset) / case.config.get("voxel_size", 0.02)
    scene = batch_index(batch.offset)
    found = group_points(position, logits, scene, config.ignored_classes, config.grouping)
    own = torch.stack([found.member == i for i in range(len(found.category))])
    order = torch.tensor([int(torch.nonzero(mask)[0]) for mask in masks]).argsort()
    assert torch.equal(own, masks[order])
    assert torch.equal(found.category, given(case, "out_eval_pred_classes", "out_pred_classes")[order])
    scores = given(case, "out_eval_pred_scores", "out_pred_scores")[order]
    assert_relative_l2(found.score, scores, 1e-4, "scores")
