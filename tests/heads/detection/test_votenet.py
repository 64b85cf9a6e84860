"""The VoteNet head: perfect outputs, losses in closed form, batches, learning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.box_overlap import box_iou, box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.features import PointFeatures
from ponderv2.heads.detection.votenet.box_coding import heading_class, size_residual
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig, VoteNetLossConfig
from ponderv2.heads.detection.votenet.head import VoteNetHead
from ponderv2.heads.detection.votenet.network import VoteNetOutputs
from tests.heads.detection import scenes

CHANNELS = 16


def config_of(turned: bool = True, **settings) -> VoteNetHeadConfig:
    defaults = {
        "mean_sizes": dict(zip(scenes.CLASSES, scenes.SIZES, strict=True)),
        "n_headings": 12 if turned else 1,
        "n_seeds": 256,
        "n_proposals": 96,
        "radius": 0.4,
        "channels": 64,
    }
    return VoteNetHeadConfig(**(defaults | settings))


def perfect_outputs(boxes: list[Boxes], config: VoteNetHeadConfig, rng: torch.Generator) -> VoteNetOutputs:
    """A proposal for each box, and one far from all; every seed votes for its box."""
    points = [scenes.surface_points(truth, rng) for truth in boxes]
    votes = []
    for point, truth in zip(points, boxes, strict=True):
        inside = truth.contains(point)
        vote = point.clone()
        vote[inside.any(dim=0)] = truth.center[inside.long().argmax(dim=0)][inside.any(dim=0)]
        votes.append(vote)
    far = torch.tensor([[50.0, 50.0, 50.0, 1.0, 1.0, 1.0, 0.0]])
    rows = torch.cat([torch.cat([box_rows(truth), far]) for truth in boxes])
    category = torch.cat([torch.cat([truth.category, torch.tensor([-1])]) for truth in boxes])
    n_sizes, each, mean = len(scenes.SIZES), torch.arange(len(rows)), torch.tensor(scenes.SIZES)
    number, rest = heading_class(rows[:, 6], config.n_headings)

    def sure(label: Tensor, n: int) -> Tensor:
        return 40.0 * torch.nn.functional.one_hot(label.clamp(min=0), n).float()

    heading_residual = torch.randn(len(rows), config.n_headings, generator=rng)
    heading_residual[each, number] = rest
    sizes = torch.randn(len(rows), n_sizes, 3, generator=rng)
    sizes[each, category] = size_residual(rows[:, 3:6], mean[category])
    ends = torch.tensor([len(point) for point in points]).cumsum(0)
    return VoteNetOutputs(
        point=torch.cat(points),
        point_offset=ends,
        seed=torch.cat(points),
        vote=torch.cat(votes),
        seed_offset=ends,
        cluster=rows[:, :3],
        center=rows[:, :3],
        offset=torch.tensor([len(truth) + 1 for truth in boxes]).cumsum(0),
        objectness=sure((category >= 0).long(), 2),
        heading=sure(number, config.n_headings),
        heading_residual=heading_residual,
        size=sure(category, n_sizes),
        size_residual=sizes,
        logits=sure(category, 3),
    )


@pytest.mark.parametrize("turned", [True, False])
def test_perfect_outputs_decode_to_the_truth(rng, turned):
    config = config_of(turned)
    truth = [scenes.random_boxes(rng, n, turned) for n in (6, 1, 4)]
    found = VoteNetHead(config, CHANNELS, scenes.CLASSES).decode(perfect_outputs(truth, config, rng))
    for detections, boxes in zip(found, truth, strict=True):
        # Every survivor is an object of every class, with the probability of it.
        assert len(detections) == 3 * len(boxes)
        sure = detections.take(detections.score > 0.5)
        assert len(sure) == len(boxes)
        overlap = box_iou(box_rows(boxes), box_rows(sure.boxes))
        torch.testing.assert_close(overlap.amax(dim=1), torch.ones(len(boxes)), atol=1e-4, rtol=0.0)
        matched = sure.boxes.take(overlap.argmax(dim=1))
        assert torch.equal(matched.category, boxes.category)
        torch.testing.assert_close(torch.cos(matched.yaw - boxes.yaw), torch.ones(len(boxes)))


def test_perfect_outputs_have_no_loss(rng):
    config = config_of(losses=VoteNetLossConfig(iou=1.0))
    truth = [scenes.random_boxes(rng, n) for n in (6, 3)]
    terms = VoteNetHead(config, CHANNELS, scenes.CLASSES).losses(perfect_outputs(truth, config, rng), truth)
    assert set(terms) == {
        *("vote", "objectness", "center", "heading_class", "heading_residual"),
        *("size_class", "size_residual", "classification", "iou"),
    }
    for name, term in terms.items():
        assert float(term) < 1e-4, name


def test_losses_of_outputs_that_are_a_little_off(rng):
    config = config_of(losses=VoteNetLossConfig(iou=1.0))
    truth = [scenes.random_boxes(rng, n) for n in (6, 3)]
    head = VoteNetHead(config, CHANNELS, scenes.CLASSES)
    perfect = perfect_outputs(truth, config, rng)

    def term(name: str, **changed) -> float:
        return float(head.losses(replace(perfect, **changed), truth)[name])

    away = torch.tensor([0.1, -0.2, 0.05])
    assert math.isclose(term("vote", vote=perfect.vote + away), 10 * 0.35, rel_tol=0.03)
    # Both ways, and nobody asks for the centre of a proposal that is no object.
    assert math.isclose(term("center", center=perfect.center + 0.1), 10 * 2 * 0.03, rel_tol=1e-4)
    assert math.isclose(
        term("size_residual", size_residual=perfect.size_residual + 0.1), 10 / 3 * 3 * 0.005, rel_tol=1e-4
    )
    assert math.isclose(
        term("heading_residual", heading_residual=perfect.heading_residual + 2.0), 10 * 1.5, rel_tol=1e-4
    )
    n_objects, n_proposals = 9, 11
    even = torch.zeros_like(perfect.objectness)
    between = perfect.cluster.clone()
    between[0, 2] += 0.45
    expected = 5 * math.log(2) * (0.8 * (n_objects - 1) + 0.2 * 2) / (n_proposals - 1)
    assert math.isclose(term("objectness", objectness=even, cluster=between), expected, rel_tol=1e-5)
    expected = 5 * math.log(2) * (0.8 * n_objects + 0.2 * 2) / n_proposals
    assert math.isclose(term("objectness", objectness=even), expected, rel_tol=1e-5)
    assert math.isclose(
        term("classification", logits=torch.zeros_like(perfect.logits)), math.log(3), rel_tol=1e-5
    )
    lifted = perfect.center + torch.tensor([0.0, 0.0, 0.1])
    heights = torch.cat([one.size[:, 2] for one in truth])
    iou = ((heights - 0.1) / (heights + 0.1)).mean()
    assert math.isclose(term("iou", center=lifted), 1 - float(iou), rel_tol=1e-3)


def test_boxes_with_few_points_and_unlikely_ones_are_dropped(rng):
    config = config_of()
    truth = [scenes.random_boxes(rng, 6)]
    outputs = perfect_outputs(truth, config, rng)
    head = VoteNetHead(config, CHANNELS, scenes.CLASSES)
    away = outputs.point.clone()
    larger = replace(truth[0], size=truth[0].size * 1.01)
    in_first = larger.contains(outputs.point)[0].nonzero()[:, 0]
    away[in_first[4:]] += 100.0
    assert len(head.decode(replace(outputs, point=away))[0]) == 3 * 5
    unlikely = outputs.objectness.clone()
    unlikely[:2] = torch.tensor([3.0, 0.0])  # softmax .047
    assert len(head.decode(replace(outputs, objectness=unlikely))[0]) == 3 * 4


def test_proposals_of_one_object_leave_the_surest(rng):
    config = config_of()
    truth = [scenes.random_boxes(rng, 6)]
    outputs = perfect_outputs(truth, config, rng)
    twice = {}
    names = (
        "center",
        "cluster",
        "objectness",
        "heading",
        "heading_residual",
        "size",
        "size_residual",
        "logits",
    )
    for name in names:
        twice[name] = getattr(outputs, name).repeat(2, *[1] * (getattr(outputs, name).dim() - 1))
    twice["objectness"][:7] *= 0.05
    found = VoteNetHead(config, CHANNELS, scenes.CLASSES).decode(
        replace(outputs, **twice, offset=torch.tensor([14]))
    )[0]
    assert len(found) == 3 * 6
    assert float(found.score[:6].min()) > 0.99


def test_proposals_of_two_classes_at_one_place_both_stay(rng):
    config = config_of()
    outputs = perfect_outputs([scenes.random_boxes(rng, 2)], config, rng)
    same = {name: getattr(outputs, name)[[0, 0, 2]] for name in ("center", "size", "size_residual")}
    turned = {name: getattr(outputs, name)[[0, 0, 2]] for name in ("heading", "heading_residual")}
    found = VoteNetHead(config, CHANNELS, scenes.CLASSES).decode(replace(outputs, **same, **turned))[0]
    sure = found.take(found.score > 0.5)
    assert sorted(sure.boxes.category.tolist()) == [0, 1]


def test_ignored_boxes_are_not_there_and_unknown_classes_are_refused(rng):
    config = config_of()
    head = VoteNetHead(config, CHANNELS, scenes.CLASSES)
    boxes = scenes.random_boxes(rng)
    outputs = perfect_outputs([boxes], config, rng)
    ignored = replace(boxes, category=torch.where(boxes.category == 1, -1, boxes.category))
    with_ignored = head.losses(outputs, [ignored])
    without = head.losses(outputs, [boxes.take(boxes.category != 1)])
    for name, term in with_ignored.items():
        torch.testing.assert_close(term, without[name])
    with pytest.raises(ValueError, match="class 3 found"):
        head.losses(outputs, [replace(boxes, category=boxes.category + 1)])


def test_scenes_of_a_batch_equal_each_alone(rng):
    head = VoteNetHead(config_of(min_objectness=0.0, min_points=0), CHANNELS, scenes.CLASSES)
    features = scenes.batch([scenes.random_boxes(rng, n) for n in (6, 1, 3)], rng, CHANNELS)
    head(features)  # statistics of the norms
    head.eval()
    with torch.no_grad():
        together = head(features)
        for scene in range(3):
            alone = head(scenes.alone(features, scene))
            rows = slice(int(together.offset[scene - 1]) if scene else 0, int(together.offset[scene]))
            for name in ("cluster", "center", "objectness", "heading", "size_residual", "logits"):
                torch.testing.assert_close(
                    getattr(together, name)[rows], getattr(alone, name), atol=1e-4, rtol=1e-4
                )
            both = head.decode(together)[scene], head.decode(alone)[0]
            assert len(both[0]) == len(both[1]) > 0
            torch.testing.assert_close(both[0].score, both[1].score, atol=1e-4, rtol=1e-4)


def test_proposals_are_spread_over_votes_in_training_and_over_seeds_afterwards(rng):
    head = VoteNetHead(config_of(n_proposals=8), CHANNELS, scenes.CLASSES)
    features = scenes.batch([scenes.random_boxes(rng, 4)], rng, CHANNELS)
    torch.nn.init.normal_(head.network.vote.weight, std=0.5, generator=rng)
    with torch.no_grad():
        trained = head(features)
        evaluated = head.eval()(features)
    # Seeds are in the order of farthest points, so the first of them are the farthest.
    assert torch.equal(evaluated.cluster, evaluated.vote[:8])
    assert not torch.equal(trained.cluster, trained.vote[:8])


@pytest.mark.parametrize("training", [True, False])
def test_scenes_without_points_or_boxes(rng, training):
    head = VoteNetHead(config_of(losses=VoteNetLossConfig(iou=1.0)), CHANNELS, scenes.CLASSES).train(training)
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


def test_a_scene_of_few_points_has_as_many_seeds(rng):
    head = VoteNetHead(config_of(), CHANNELS, scenes.CLASSES)
    outputs = head(PointFeatures(torch.randn(5, CHANNELS), torch.rand(5, 3), torch.tensor([2, 5])))
    assert outputs.offset.tolist() == outputs.seed_offset.tolist() == [2, 5]


def test_a_volume_is_refused():
    with pytest.raises(ValueError, match="features of points"):
        VoteNetHead(config_of(), CHANNELS, scenes.CLASSES)(scenes.volume())


@pytest.mark.parametrize("turned", [True, False])
def test_two_rooms_are_learnt(rng, turned):
    channels = 64
    head = VoteNetHead(config_of(turned), channels, scenes.CLASSES)
    truth = [scenes.random_boxes(rng, n, turned) for n in (6, 5)]
    features = scenes.batch(truth, rng, channels)
    steps = 120
    optimiser = torch.optim.AdamW(head.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, steps)
    for _ in range(steps):
        total = sum(head.losses(head(features), truth).values())
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    head.eval()
    found = head.decode(head(features))
    assert scenes.recall(found, truth, iou=0.25, sure=0.3) > 0.9
    assert scenes.precision(found, truth, iou=0.25, sure=0.5) > 0.6
