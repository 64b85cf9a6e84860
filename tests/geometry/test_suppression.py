"""Non-maximum suppression against the plain greedy loop over pairs."""

import math

import pytest
import torch
from torch import Tensor

from ponderv2.geometry import suppression
from ponderv2.geometry.box_overlap import box_iou, hull_iou, plane_iou
from ponderv2.geometry.suppression import CENTERPOINT_RADII, box_nms, circle_nms, hull_nms, plane_nms

MEASURES = {
    "plane": (plane_nms, plane_iou),
    "box": (box_nms, box_iou),
    "hull": (hull_nms, hull_iou),
}


def random_boxes(rng: torch.Generator, n: int, spread: float) -> tuple[Tensor, Tensor]:
    """Boxes and scores of few values, so that many are equal."""
    center = spread * torch.randn(n, 3, generator=rng)
    size = 0.3 + 3.0 * torch.rand(n, 3, generator=rng)
    rows = torch.cat([center, size, 6.0 * torch.rand(n, 1, generator=rng)], dim=1)
    return rows, torch.randint(40, (n,), generator=rng) / 40.0


def greedy(suppresses: Tensor, score: Tensor, group: Tensor) -> list[int]:
    """One box after the other."""
    order = sorted(range(len(score)), key=lambda i: (-float(score[i]), i))
    kept: list[int] = []
    for i in order:
        if not any(bool(suppresses[j, i]) and group[i] == group[j] for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("kind", list(MEASURES))
@pytest.mark.parametrize("candidates", [1, 16, 1024])
@pytest.mark.parametrize(("spread", "max_iou"), [(0.5, 0.5), (3.0, 0.2), (3.0, 0.0)])
def test_iou_suppression_is_the_greedy_loop(rng, monkeypatch, kind, candidates, spread, max_iou):
    monkeypatch.setattr(suppression, "CANDIDATES", candidates)
    monkeypatch.setattr(suppression, "FEWEST", min(candidates, 128))
    nms, iou = MEASURES[kind]
    boxes, score = random_boxes(rng, 150, spread)
    overlapping = iou(boxes.double(), boxes.double()) > max_iou
    group = torch.randint(3, (150,), generator=rng) * 7 - 1
    everyone = greedy(overlapping, score, torch.zeros(150))
    assert 1 < len(everyone) < 150
    assert nms(boxes, score, max_iou).tolist() == everyone
    by_class = greedy(overlapping, score, group)
    assert nms(boxes, score, max_iou, group).tolist() == by_class and by_class != everyone
    for n in (0, 1, 5, 40):
        assert nms(boxes, score, max_iou, group, at_most=n).tolist() == by_class[:n]


@pytest.mark.parametrize("candidates", [1, 16, 1024])
def test_circle_suppression_is_the_greedy_loop(rng, monkeypatch, candidates):
    monkeypatch.setattr(suppression, "CANDIDATES", candidates)
    monkeypatch.setattr(suppression, "FEWEST", min(candidates, 128))
    boxes, score = random_boxes(rng, 200, 4.0)
    # Whole numbers: many distances are exactly the radius, far from the origin too.
    boxes[:, :2] = boxes[:, :2].round() + torch.tensor([65536.0, -4096.0])
    away = (boxes[:, None, :2] - boxes[None, :, :2]).double()
    group = torch.randint(2, (200,), generator=rng)
    for radius in (0.0, 1.0, 2.0, 5.0):
        near = away.square().sum(dim=-1) <= radius**2
        assert circle_nms(boxes, score, radius, group).tolist() == greedy(near, score, group)
        assert circle_nms(boxes, score, radius).tolist() == greedy(near, score, torch.zeros(200))


def test_cars_nearer_than_the_radius_of_two_metres_are_one():
    """CenterPoint's setting is 4, in square metres."""

    def cars(apart: float) -> int:
        rows = torch.tensor([[10.0, 5.0, 0.0, 4.5, 1.9, 1.6, 0.0]]).repeat(2, 1)
        rows[1, 1] += apart
        return len(circle_nms(rows, torch.tensor([0.5, 0.6]), CENTERPOINT_RADII[0]))

    assert cars(1.9) == 1 and cars(2.1) == 2


def test_published_radii_are_square_roots():
    squares = [4.0, 12.0, 10.0, 1.0, 0.85, 0.175]
    assert [radius**2 for radius in CENTERPOINT_RADII] == pytest.approx(squares)
    assert [round(radius, 2) for radius in CENTERPOINT_RADII] == [2.0, 3.46, 3.16, 1.0, 0.92, 0.42]


def test_what_a_suppressed_box_overlaps_stays():
    """A chain in which each overlaps the next: every second one stays."""
    boxes = torch.zeros(3000, 7)
    boxes[:, 0] = torch.arange(3000)
    boxes[:, 3:6] = torch.tensor([1.5, 1.0, 1.0])
    score = -torch.arange(3000).float()
    for nms in (plane_nms, box_nms, hull_nms):
        assert torch.equal(nms(boxes, score, 0.1), torch.arange(0, 3000, 2))


def test_equal_scores_keep_the_earlier_one():
    box = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.7]]).repeat(5, 1)
    assert plane_nms(box, torch.full((5,), 0.5), 0.9).tolist() == [0]
    assert plane_nms(box, torch.tensor([0.1, 0.5, 0.2, 0.5, 0.5]), 0.9).tolist() == [1]


def test_a_turned_box_is_told_apart_by_its_yaw_but_not_by_its_hull():
    crossed = torch.tensor([[0.0, 0.0, 0.0, 4.0, 0.5, 1.0, math.pi / 4]]).repeat(2, 1)
    crossed[1, 6] = -math.pi / 4
    score = torch.tensor([0.9, 0.8])
    assert len(hull_nms(crossed, score, 0.25)) == 1 and len(box_nms(crossed, score, 0.25)) == 2


def test_boxes_in_a_stack_meet_in_the_plane_only():
    stack = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0]])
    score = torch.tensor([0.1, 0.2])
    assert plane_nms(stack, score, 0.5).tolist() == [1] and box_nms(stack, score, 0.5).tolist() == [1, 0]


def test_of_no_boxes_none_stay():
    nothing = torch.zeros(0, 7)
    for found in (plane_nms(nothing, torch.zeros(0), 0.5), circle_nms(nothing, torch.zeros(0), 1.0)):
        assert found.shape == (0,) and found.dtype == torch.long


def test_negative_limits_are_refused():
    with pytest.raises(ValueError, match="radius"):
        circle_nms(torch.zeros(1, 7), torch.zeros(1), -1.0)
    with pytest.raises(ValueError, match="IoU"):
        plane_nms(torch.zeros(1, 7), torch.zeros(1), -0.1)
