"""Targets and codes of VoteNet: round trips, textbook loops, published tables."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES, MEAN_SIZES
from ponderv2.geometry.boxes import Boxes
from ponderv2.heads.detection.votenet.box_coding import heading_class, size_of, size_residual, yaw_of
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig
from ponderv2.heads.detection.votenet.losses import with_zero_slot
from ponderv2.heads.detection.votenet.targets import matches, vote_targets
from tests.heads.detection.scenes import random_boxes, surface_points


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_heading_is_its_nearest_direction_and_a_rest(rng, n):
    yaw = (torch.rand(500, generator=rng, dtype=torch.float64) - 0.5) * 4 * math.pi
    number, rest = heading_class(yaw, n)
    for i in range(len(yaw)):
        away = [math.remainder(float(yaw[i]) - k * 2 * math.pi / n, 2 * math.pi) for k in range(n)]
        nearest = min(range(n), key=lambda k: abs(away[k]))
        assert int(number[i]) == nearest
        assert math.isclose(float(rest[i]) * math.pi / n, away[nearest], abs_tol=1e-9)
    back = yaw_of(number, rest, n)
    torch.testing.assert_close(torch.sin(back), torch.sin(yaw))
    torch.testing.assert_close(torch.cos(back), torch.cos(yaw))
    assert (rest.abs() <= 1).all()
    assert (back.abs() <= math.pi + 1e-9).all()


def test_headings_survive_flips_and_turns_of_the_scene(rng):
    boxes = random_boxes(rng)
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    for transform in (flip, turn, turn @ flip):
        there = boxes.moved(transform)
        back = there.moved(torch.linalg.inv(transform))
        one, other = (yaw_of(*heading_class(some.yaw, 12), 12) for some in (boxes, back))
        torch.testing.assert_close(torch.sin(one - other), torch.zeros(len(boxes)), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(torch.cos(one - other), torch.ones(len(boxes)), atol=1e-5, rtol=0.0)
        decoded = yaw_of(*heading_class(there.yaw, 12), 12)
        heading = torch.stack([torch.cos(boxes.yaw), torch.sin(boxes.yaw)], dim=1) @ transform[:2, :2].T
        found = torch.stack([torch.cos(decoded), torch.sin(decoded)], dim=1)
        torch.testing.assert_close(found, heading, atol=1e-5, rtol=0.0)


def test_a_size_is_its_mean_and_a_rest(rng):
    mean = torch.tensor(MEAN_SIZES)
    size = mean * (0.5 + torch.rand(10, 3, generator=rng))
    torch.testing.assert_close(size_of(size_residual(size, mean), mean), size)
    assert (size_of(torch.full((10, 3), -5.0), mean) > 0).all()


def test_mean_sizes_are_found_by_the_names_of_classes():
    published = VoteNetHeadConfig(mean_sizes="sunrgbd")
    assert published.sizes(BOX_CLASSES) == MEAN_SIZES
    assert published.sizes(("desk", "bed")) == (MEAN_SIZES[5], MEAN_SIZES[0])
    assert VoteNetHeadConfig(mean_sizes="scannet").sizes(("toilet",)) == ((0.594, 0.591, 0.739),)
    with pytest.raises(ValueError, match="lacks the class 'lamp'"):
        published.sizes(("bed", "lamp"))
    with pytest.raises(ValueError, match="beyond far"):
        VoteNetHeadConfig(mean_sizes="sunrgbd", near=0.7)
    with pytest.raises(ValueError, match="greater than 0"):
        VoteNetHeadConfig(mean_sizes={"bed": (1.0, 0.0, 1.0)})


@pytest.mark.parametrize("most", [1, 3])
def test_votes_are_for_the_boxes_around_a_seed(rng, most):
    boxes = random_boxes(rng)
    inner = replace(boxes, size=boxes.size * 0.5, center=boxes.center + 0.1)
    every = Boxes(**{name: torch.cat([boxes.arrays[name], inner.arrays[name]]) for name in boxes.arrays})
    seed = surface_points(every, rng, n=20)
    vote = seed + 0.3 * torch.randn(seed.shape, generator=rng)
    target, inside = vote_targets(seed, vote, every, most)
    inside_table = every.contains(seed)
    several = 0
    for i in range(len(seed)):
        around = [b for b in range(len(every)) if bool(inside_table[b, i])][:most]
        assert bool(inside[i]) == bool(around)
        if around:
            best = min(around, key=lambda b: float((vote[i] - every.center[b]).abs().sum()))
            assert torch.equal(target[i], every.center[best])
        several += len(around) > 1
    assert (several > 0) == (most > 1)
    assert not inside.all()


def test_proposals_are_matched_with_the_nearest_centre_of_their_scene(rng):
    boxes = [random_boxes(rng, 4), Boxes.empty(), random_boxes(rng, 2)]
    cluster = torch.rand(90, 3, generator=rng) * torch.tensor([6.0, 6.0, 1.0])
    cluster[:4] = boxes[0].center + 0.1
    offset = torch.tensor([40, 60, 90])
    found = matches(cluster, offset, boxes, near=0.3, far=0.6)
    first = [0, 4, 4]
    for i in range(90):
        scene = 0 if i < 40 else 1 if i < 60 else 2
        distances = [math.dist(cluster[i].tolist(), c.tolist()) for c in boxes[scene].center]
        nearest = min(distances, default=math.inf)
        if distances:
            assert int(found.box[i]) == first[scene] + distances.index(nearest)
        assert bool(found.positive[i]) == (nearest < 0.3)
        assert bool(found.counted[i]) == (nearest < 0.3 or nearest > 0.6)
    assert 4 <= int(found.positive.sum()) < 90
    assert not found.counted.all()


def test_the_published_padding_makes_objects_at_the_origin(rng):
    boxes = random_boxes(rng, 3)
    mean = torch.tensor(MEAN_SIZES)
    padded = with_zero_slot(boxes, mean)
    assert len(padded) == 4
    cluster = torch.tensor([[0.1, 0.1, 0.1]])
    offset = torch.tensor([1])
    assert not matches(cluster, offset, [boxes], 0.3, 0.6).positive.any()
    found = matches(cluster, offset, [padded], 0.3, 0.6)
    assert found.positive.all()
    assert padded.center[found.box].tolist() == [[0.0, 0.0, 0.0]]
    many = boxes.take(torch.zeros(64, dtype=torch.long))
    assert len(with_zero_slot(many, mean)) == 64
