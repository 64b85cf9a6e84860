"""The FCAF3D head: perfect outputs, losses against public and plain ones, batches, pruning, learning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.box_overlap import box_iou, box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.features import PointFeatures
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.heads.detection.fcaf3d.head import FCAF3DHead
from ponderv2.heads.detection.fcaf3d.losses import focal_loss
from ponderv2.heads.detection.fcaf3d.network import FCAF3DOutputs
from ponderv2.heads.detection.fcaf3d.targets import location_targets
from tests.heads.detection import scenes
from tests.heads.detection.test_fcaf3d_targets import code_of, grids

CHANNELS = 16


def config_of(turned: bool = True, **settings) -> FCAF3DHeadConfig:
    defaults = {"cell": 0.2, "widths": (16, 24), "channels": 32, "yaw": turned}
    return FCAF3DHeadConfig(**(defaults | settings))


def perfect_outputs(boxes: list[Boxes], config: FCAF3DHeadConfig) -> FCAF3DOutputs:
    """Every location that should predict a box does."""
    location, level = grids(levels=len(config.widths))
    parts: dict[str, list[Tensor]] = {name: [] for name in ("code", "logits", "centerness", "scene")}
    for scene, truth in enumerate(boxes):
        target = location_targets(location, level, truth, config)
        found = target.box >= 0
        rows = box_rows(truth)[target.box]
        code = code_of(location, rows, config.yaw)
        parts["code"].append(torch.where(found[:, None], code, torch.ones_like(code)))
        logits = torch.full((len(location), 3), -20.0)
        logits[found, truth.category[target.box[found]]] = 20.0
        parts["logits"].append(logits)
        parts["centerness"].append(torch.logit(target.centerness, eps=1e-6))
        parts["scene"].append(torch.full((len(location),), scene))
    n = len(boxes)
    joined = {name: torch.cat(values) for name, values in parts.items()}
    return FCAF3DOutputs(location.repeat(n, 1), level.repeat(n), n_scenes=n, **joined)


@pytest.mark.parametrize("turned", [True, False])
def test_perfect_outputs_decode_to_the_truth(rng, turned):
    config = config_of(turned, min_locations=9)
    truth = [scenes.random_boxes(rng, n, turned) for n in (6, 1, 4)]
    outputs = perfect_outputs(truth, config)
    found = FCAF3DHead(config, CHANNELS, scenes.CLASSES).decode(outputs)
    for detections, boxes in zip(found, truth, strict=True):
        assert len(detections) == len(boxes)
        overlap = box_iou(box_rows(boxes), box_rows(detections.boxes))
        torch.testing.assert_close(overlap.amax(dim=1), torch.ones(len(boxes)), atol=1e-4, rtol=0.0)
        assert torch.equal(detections.boxes.category[overlap.argmax(dim=1)], boxes.category)
        assert torch.equal(detections.score, detections.score.sort(descending=True).values)


def test_perfect_outputs_have_no_loss_but_that_of_centreness(rng):
    config = config_of(min_locations=9)
    truth = [scenes.random_boxes(rng, n) for n in (6, 3)]
    outputs = perfect_outputs(truth, config)
    terms = FCAF3DHead(config, CHANNELS, scenes.CLASSES).losses(outputs, truth)
    assert float(terms["classification"]) < 1e-5
    assert float(terms["box"]) < 1e-4
    entropies = []
    for scene, boxes in enumerate(truth):
        rows = outputs.scene == scene
        target = location_targets(outputs.location[rows], outputs.level[rows], boxes, config)
        central = [float(c) for c, b in zip(target.centerness, target.box, strict=True) if b >= 0]
        entropies.append(
            sum(-c * math.log(c) - (1 - c) * math.log(1 - c) if c < 1 else 0.0 for c in central)
            / len(central)
        )
    torch.testing.assert_close(float(terms["centerness"]), sum(entropies) / 2, atol=1e-4, rtol=1e-4)


def test_boxes_that_are_a_little_off_cost_one_minus_their_iou(rng):
    config = config_of(min_locations=9)
    truth = [scenes.random_boxes(rng, 1) for _ in range(3)]
    outputs = perfect_outputs(truth, config)
    lifted = outputs.code + torch.tensor([0.0, 0.0, 0.0, 0.0, -0.1, 0.1, 0.0, 0.0])
    terms = FCAF3DHead(config, CHANNELS, scenes.CLASSES).losses(replace(outputs, code=lifted), truth)
    heights = [float(one.size[0, 2]) for one in truth]
    expected = sum(1 - (h - 0.1) / (h + 0.1) for h in heights) / 3
    assert math.isclose(float(terms["box"]), expected, rel_tol=1e-3)


def test_focal_loss_is_that_of_the_loop(rng):
    logits = 3 * torch.randn(40, 5, generator=rng, dtype=torch.float64)
    category = torch.randint(-1, 5, (40,), generator=rng)
    total = 0.0
    for row, own in enumerate(category.tolist()):
        for number in range(5):
            p = 1 / (1 + math.exp(-float(logits[row, number])))
            p, weight = (p, 0.25) if number == own else (1 - p, 0.75)
            total -= weight * (1 - p) ** 2 * math.log(p)
    torch.testing.assert_close(float(focal_loss(logits, category)), total)


def test_ignored_boxes_are_not_there_and_unknown_classes_are_refused(rng):
    config = config_of(min_locations=9)
    head = FCAF3DHead(config, CHANNELS, scenes.CLASSES)
    boxes = scenes.random_boxes(rng)
    outputs = perfect_outputs([boxes], config)
    ignored = replace(boxes, category=torch.where(boxes.category == 1, -1, boxes.category))
    with_ignored = head.losses(outputs, [ignored])
    without = head.losses(outputs, [boxes.take(boxes.category != 1)])
    assert {name: float(v) for name, v in with_ignored.items()} == {
        name: float(v) for name, v in without.items()
    }
    with pytest.raises(ValueError, match="class 3 found"):
        head.losses(outputs, [replace(boxes, category=boxes.category + 1)])


def test_without_yaw_boxes_are_hulls(rng):
    config = config_of(turned=False, min_locations=9)
    boxes = scenes.random_boxes(rng)
    corners = boxes.corners()
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    hulls = replace(boxes, size=high - low, yaw=torch.zeros(len(boxes)))
    terms = FCAF3DHead(config, CHANNELS, scenes.CLASSES).losses(perfect_outputs([hulls], config), [boxes])
    assert float(terms["box"]) < 1e-4


def same_outputs(one: FCAF3DOutputs, other: FCAF3DOutputs, scene: int) -> None:
    rows = one.scene == scene
    for name in ("location", "level", "logits", "centerness", "code"):
        torch.testing.assert_close(
            getattr(one, name)[rows], getattr(other, name), atol=1e-4, rtol=1e-4, msg=name
        )


@pytest.mark.parametrize("most_cells", [None, 700])
def test_scenes_of_a_batch_equal_each_alone(rng, most_cells):
    head = FCAF3DHead(config_of(most_cells=most_cells, widths=(16, 24, 24)), CHANNELS, scenes.CLASSES)
    features = scenes.batch([scenes.random_boxes(rng, n) for n in (6, 3)], rng, CHANNELS)
    head(features)  # statistics of the norms
    head.eval()
    with torch.no_grad():
        for linear in (head.network.predictor.classes, head.network.predictor.box):
            torch.nn.init.normal_(linear.weight, std=0.3, generator=rng)
            torch.nn.init.zeros_(linear.bias)
        together = head(features)
        for scene in range(2):
            alone = head(scenes.alone(features, scene))
            same_outputs(together, alone, scene)
            both = head.decode(together)[scene], head.decode(alone)[0]
            assert len(both[0]) == len(both[1]) > 0
            torch.testing.assert_close(both[0].score, both[1].score, atol=1e-4, rtol=1e-4)


def test_pruning_leaves_the_cells_with_the_best_parents(rng):
    features = scenes.batch([scenes.random_boxes(rng, n) for n in (6, 3)], rng, CHANNELS)
    head = FCAF3DHead(config_of(most_cells=500), CHANNELS, scenes.CLASSES).eval()
    torch.nn.init.normal_(head.network.predictor.classes.weight, std=0.3, generator=rng)
    with torch.no_grad():
        outputs = head(features)
        every = FCAF3DHead(config_of(most_cells=None), CHANNELS, scenes.CLASSES).eval()
        every.load_state_dict(head.state_dict())
        all_outputs = every(features)
    for scene in range(2):
        fine = (outputs.scene == scene) & (outputs.level == 0)
        coarse = (all_outputs.scene == scene) & (all_outputs.level == 1)
        children = (all_outputs.scene == scene) & (all_outputs.level == 0)
        assert int(fine.sum()) == 500 < int(children.sum())
        # The cell of the best score is on the coarse level; its children are never pruned.
        best = all_outputs.location[coarse][all_outputs.logits[coarse].amax(dim=1).argmax()]
        near = ((outputs.location[fine] - best).abs() < 0.15).all(dim=1)
        assert int(near.sum()) == 8


def test_fine_levels_see_the_features_of_the_encoder_at_their_own_resolution(rng):
    head = FCAF3DHead(config_of(), CHANNELS, scenes.CLASSES).eval()
    features = scenes.batch([scenes.random_boxes(rng, 4)], rng, CHANNELS)
    for parameter in head.network.up[0].norm2.parameters():
        torch.nn.init.zeros_(parameter)  # nothing comes from the coarser level
    with torch.no_grad():
        outputs = head(features)
    fine = outputs.logits[outputs.level == 0]
    assert float(fine.std(dim=0).min()) > 1e-4


def test_a_scene_that_is_moved_by_whole_cells_has_the_same_boxes_moved(rng):
    head = FCAF3DHead(config_of(), CHANNELS, scenes.CLASSES)
    features = scenes.batch([scenes.random_boxes(rng, 4)], rng, CHANNELS)
    head(features)
    head.eval()
    shift = torch.tensor([-8.0, 4.0, 0.4])
    moved = PointFeatures(features.feature, features.coord + shift, features.offset)
    with torch.no_grad():
        here, there = head(features), head(moved)
    torch.testing.assert_close(here.location + shift, there.location, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(here.code, there.code, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_scenes_without_points_or_boxes(rng, training):
    head = FCAF3DHead(config_of(), CHANNELS, scenes.CLASSES).train(training)
    some = scenes.batch([scenes.random_boxes(rng, 2)], rng, CHANNELS)
    with_empty = PointFeatures(some.feature, some.coord, torch.tensor([0, len(some.coord), len(some.coord)]))
    for features, n in ((with_empty, 3), (scenes.no_points(2, CHANNELS), 2)):
        head.zero_grad()
        outputs = head(features)
        terms = head.losses(outputs, [Boxes.empty()] * n)
        sum(terms.values()).backward()
        assert all(math.isfinite(float(term.detach())) for term in terms.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
        assert len(head.decode(outputs)) == n
    boxes = scenes.random_boxes(rng, 3)
    terms = head.losses(head(with_empty), [boxes, boxes, Boxes.empty()])
    assert all(math.isfinite(float(term.detach())) for term in terms.values())


def test_a_volume_is_refused():
    with pytest.raises(ValueError, match="features of points"):
        FCAF3DHead(config_of(), CHANNELS, scenes.CLASSES)(scenes.volume())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"turned": True}, id="turned"),
        pytest.param({"turned": False}, id="upright"),
        pytest.param(
            {
                "turned": True,
                "level_of_class": dict(zip(scenes.CLASSES, (1, 0, 0), strict=True)),
                "most_cells": None,
            },
            id="levels of classes",
        ),
    ],
)
def test_two_rooms_are_learnt(rng, settings):
    turned = settings["turned"]
    head = FCAF3DHead(config_of(**settings), CHANNELS, scenes.CLASSES)
    truth = [scenes.random_boxes(rng, n, turned) for n in (6, 5)]
    features = scenes.batch(truth, rng, CHANNELS)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, 45)
    first = None
    for _ in range(45):
        total = sum(head.losses(head(features), truth).values())
        first = float(total.detach()) if first is None else first
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
    assert float(total.detach()) < 0.6 * first
    head.eval()
    found = head.decode(head(features))
    assert scenes.recall(found, truth, iou=0.25, sure=0.1) > 0.9
    assert scenes.recall(found, truth, iou=0.5, sure=0.1) > 0.7
    assert scenes.precision(found, truth, iou=0.25, sure=0.3) > 0.7
