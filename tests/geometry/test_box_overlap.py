"""Overlaps of boxes against shapely's polygons, closed forms, Monte Carlo and finite differences."""

import math

import pytest
import torch
from shapely import Polygon, area, intersection
from torch import Tensor

from ponderv2.geometry import box_overlap
from ponderv2.geometry.box_overlap import (
    box_hulls,
    box_iou,
    box_rows,
    hull_iou,
    hull_pairs,
    matched_box_iou,
    matched_box_overlap,
    matched_hull_iou,
    matched_plane_iou,
    matched_plane_overlap,
    plane_iou,
    plane_overlap,
)
from ponderv2.geometry.boxes import Boxes


def random_rows(rng: torch.Generator, n: int, spread: float = 2.0) -> Tensor:
    """Rows of boxes in double precision, many of them overlapping."""
    center = spread * torch.randn(n, 3, generator=rng, dtype=torch.float64)
    size = 0.2 + 4.0 * torch.rand(n, 3, generator=rng, dtype=torch.float64)
    yaw = 20.0 * torch.rand(n, 1, generator=rng, dtype=torch.float64) - 10.0
    return torch.cat([center, size, yaw], dim=1)


def row(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> Tensor:
    return torch.tensor([[x, y, 0.0, length, width, 1.0, yaw]], dtype=torch.float64)


def polygons(rows: Tensor) -> list[Polygon]:
    """By the corners of `Boxes`, which have tests of their own."""
    unknown = torch.full((len(rows),), -1)
    boxes = Boxes(rows[:, :3], rows[:, 3:6], rows[:, 6], torch.zeros_like(rows[:, :3]), unknown, unknown)
    return [Polygon(corners) for corners in boxes.corners()[:, :4, :2].tolist()]


def shared_areas(first: Tensor, second: Tensor) -> Tensor:
    """By shapely."""
    return torch.from_numpy(area(intersection(polygons(first), polygons(second))))


def test_random_pairs_share_what_shapely_says(rng):
    first, second = random_rows(rng, 10_000), random_rows(rng, 10_000)
    expected = shared_areas(first, second)
    assert 0.3 < (expected > 0).double().mean() < 0.95
    torch.testing.assert_close(matched_plane_overlap(first, second), expected, rtol=0, atol=1e-10)


def test_pairs_that_touch_nest_or_share_edges_share_what_shapely_says(rng):
    """Small whole numbers and quarter turns: edges and corners coincide in most pairs."""
    n = 10_000

    def on_a_grid() -> Tensor:
        center = torch.randint(-2, 3, (n, 3), generator=rng).double()
        size = torch.randint(1, 5, (n, 3), generator=rng).double()
        turn = torch.randint(-8, 9, (n, 1), generator=rng).double() * math.pi / 4
        return torch.cat([center, size, turn], dim=1)

    first, second = on_a_grid(), on_a_grid()
    torch.testing.assert_close(
        matched_plane_overlap(first, second), shared_areas(first, second), rtol=0, atol=1e-10
    )


def test_the_overlap_does_not_depend_on_the_order(rng):
    first, second = random_rows(rng, 2000), random_rows(rng, 2000)
    for measure in (matched_plane_overlap, matched_box_overlap, matched_hull_iou):
        torch.testing.assert_close(measure(first, second), measure(second, first), rtol=0, atol=1e-12)


def test_float32_boxes_far_from_the_origin_overlap_exactly(rng):
    """Coordinates on a grid that float32 holds at 500 km: only arithmetic in float32 would be inexact."""
    n = 2000
    near = torch.cat([torch.randint(-24, 25, (n, 3), generator=rng) / 16.0, torch.zeros(n, 4)], dim=1)
    near[:, 3:6] = torch.randint(4, 64, (n, 3), generator=rng) / 16.0
    near[:, 6] = torch.rand(n, generator=rng) * 6.0
    far = near.clone()
    far[:, :3] += torch.tensor([524288.0, -262144.0, 65536.0])
    other = torch.randperm(n, generator=rng)
    for measure in (matched_plane_iou, matched_box_iou, matched_hull_iou):
        expected = measure(near, near[other])
        assert torch.equal(measure(far, far[other]), expected)
    assert torch.equal(box_iou(far[:80], far), box_iou(near[:80], near))
    expected = shared_areas(near.double(), near[other].double())
    torch.testing.assert_close(
        matched_plane_overlap(far, far[other]).double(), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("edge", [1e-9, 1e-4, 1e3, 1e6])
def test_the_iou_does_not_depend_on_the_scale(rng, edge):
    first, second = random_rows(rng, 500), random_rows(rng, 500)
    scaled = torch.cat([torch.full((6,), edge), torch.ones(1)]).double()
    for measure in (matched_plane_iou, matched_box_iou, matched_hull_iou):
        torch.testing.assert_close(
            measure(first * scaled, second * scaled), measure(first, second), rtol=0, atol=1e-9
        )


def test_known_overlaps():
    unit = row(0, 0, 2, 2)
    cases = [
        (row(0, 0, 2, 2), 4.0),  # the same
        (row(0, 0, 2, 2, math.pi / 2), 4.0),  # the same after a quarter turn
        (row(0, 0, 2, 2, math.pi / 4), 8.0 * (math.sqrt(2.0) - 1.0)),  # a regular octagon
        (row(0.2, -0.1, 0.4, 0.6, 0.3), 0.24),  # nested
        (row(0.2, -0.1, 40, 60, 0.3), 4.0),  # around it
        (row(2, 0, 2, 2), 0.0),  # an edge in common
        (row(2, 2, 2, 2), 0.0),  # a corner in common
        (row(1 + math.sqrt(2.0), 0, 2, 2, math.pi / 4), 0.0),  # a corner on an edge
        (row(1, 0, 2, 2), 2.0),
        (row(0, 0, 10, 1, math.pi / 2), 2.0),  # a bar across
        (row(0, 0, 0, 0), 0.0),
        (row(0, 0, 3, 0, 1.0), 0.0),
        (row(50, 0, 2, 2), 0.0),
    ]
    for other, expected in cases:
        for one, two in ((unit, other), (other, unit)):
            assert float(matched_plane_overlap(one, two)) == pytest.approx(expected, abs=1e-12)


def test_boxes_without_volume_have_an_iou_of_zero():
    flat = row(0, 0, 0, 0)
    for measure in (matched_plane_iou, matched_box_iou, matched_hull_iou):
        assert float(measure(flat, flat)) == 0.0 and float(measure(flat, row(0, 0, 1, 1))) == 0.0


def test_a_box_and_itself_have_an_iou_of_one(rng):
    boxes = random_rows(rng, 1000)
    turned = boxes + torch.tensor([0, 0, 0, 0, 0, 0, 2 * math.pi], dtype=torch.float64)
    for measure in (matched_plane_iou, matched_box_iou, matched_hull_iou):
        torch.testing.assert_close(measure(boxes, boxes), torch.ones(1000).double(), rtol=0, atol=1e-14)
        torch.testing.assert_close(measure(boxes, turned), torch.ones(1000).double(), rtol=0, atol=1e-12)


def test_ious_in_space_match_monte_carlo(rng):
    first, second = random_rows(rng, 12, spread=0.5), random_rows(rng, 12, spread=0.5)

    def inside(box: Tensor, points: Tensor) -> Tensor:
        turn = torch.tensor(
            [[box[6].cos(), -box[6].sin(), 0], [box[6].sin(), box[6].cos(), 0], [0, 0, 1]]
        ).double()
        return (((points - box[:3]) @ turn).abs() <= box[3:6] / 2).all(dim=1)

    n = 200_000
    for one, two, iou, shared in zip(
        first, second, matched_box_iou(first, second), matched_box_overlap(first, second), strict=True
    ):
        points = one[:3] + 8.0 * (torch.rand(n, 3, generator=rng, dtype=torch.float64) - 0.5)
        a, b = inside(one, points), inside(two, points)
        # Four standard deviations of the count.
        spread = 4.0 * math.sqrt(float((a & b).sum()) + 1.0)
        assert float(shared) == pytest.approx(512.0 / n * float((a & b).sum()), abs=512.0 / n * spread)
        union = float(one[3:6].prod() + two[3:6].prod() - shared)
        assert float(iou) == pytest.approx(float(shared) / union)


def test_hulls_are_those_of_the_corners(rng):
    rows = random_rows(rng, 50)
    unknown = torch.full((50,), -1)
    boxes = Boxes(rows[:, :3], rows[:, 3:6], rows[:, 6], torch.zeros(50, 3).double(), unknown, unknown)
    assert torch.equal(box_rows(boxes), rows)
    corners = boxes.corners()
    expected = torch.stack([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    torch.testing.assert_close(box_hulls(rows), expected)
    for i in range(0, 50, 7):
        low = torch.maximum(expected[i, 0], expected[:, 0])
        shared = (torch.minimum(expected[i, 1], expected[:, 1]) - low).clamp(min=0).prod(dim=1)
        volume = (expected[:, 1] - expected[:, 0]).prod(dim=1)
        torch.testing.assert_close(
            hull_iou(rows[i : i + 1], rows)[0], shared / (volume + volume[i] - shared), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("at_once", [7, 1 << 16])
def test_all_pairs_match_matched_pairs(rng, monkeypatch, spread, at_once):
    monkeypatch.setattr(box_overlap, "PAIRS_AT_ONCE", at_once)
    first, second = random_rows(rng, 40, spread), random_rows(rng, 25, spread)
    one, two = first.repeat_interleave(25, dim=0), second.repeat(40, 1)
    for all_pairs, matched in (
        (plane_overlap, matched_plane_overlap),
        (plane_iou, matched_plane_iou),
        (box_iou, matched_box_iou),
        (hull_iou, matched_hull_iou),
    ):
        assert torch.equal(all_pairs(first, second), matched(one, two).reshape(40, 25))
    assert plane_iou(first[:0], second).shape == (0, 25) and box_iou(first, second[:0]).shape == (40, 0)


def test_only_pairs_with_touching_hulls_of_one_group_are_formed_each_once(rng):
    def hulls(n: int) -> Tensor:
        low = torch.randint(-6, 7, (n, 2), generator=rng).double()
        return torch.stack([low, low + torch.randint(0, 7, (n, 2), generator=rng)], dim=1)

    first, second = hulls(60), hulls(45)
    group, other = torch.randint(3, (60,), generator=rng), torch.randint(3, (45,), generator=rng)
    expected = [
        (i, j)
        for i in range(60)
        for j in range(45)
        if group[i] == other[j]
        and bool((first[i, 0] <= second[j, 1]).all() and (second[j, 0] <= first[i, 1]).all())
    ]
    found = [
        pair
        for i, j in hull_pairs(first, second, group, other)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert sorted(found) == expected and 100 < len(expected) < 2000


@pytest.mark.parametrize("measure", [matched_plane_iou, matched_box_iou, matched_hull_iou])
def test_gradients_match_finite_differences(rng, measure):
    first, second = random_rows(rng, 40, spread=0.8), random_rows(rng, 40, spread=0.8)
    assert (measure(first, second) > 0).double().mean() > 0.5
    assert torch.autograd.gradcheck(
        measure, (first.requires_grad_(), second.requires_grad_()), eps=1e-7, atol=1e-5
    )


def test_the_gradient_of_level_boxes_is_the_closed_form():
    """Edges parallel to those of the other box: the usual case indoors, and all denominators are 0."""
    first = row(0.0, 0.0, 2.0, 1.0).requires_grad_()
    second = row(0.4, 0.25, 3.0, 1.2)
    matched_plane_overlap(first, second).sum().backward()
    # The overlap is [-1, 1] x [-0.35, 0.5]: its left, right and upper edges are those of the first.
    expected = torch.tensor([[0.0, 2.0, 0.0, 0.85, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert first.grad is not None
    torch.testing.assert_close(first.grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", [matched_plane_iou, matched_box_iou, matched_hull_iou])
def test_gradients_are_finite_where_boxes_coincide_touch_or_are_empty(measure):
    boxes = torch.cat(
        [
            row(0, 0, 2, 2),
            row(0, 0, 2, 2, math.pi / 2),
            row(0, 0, 2, 2, math.pi / 4),
            row(2, 0, 2, 2),
            row(2, 2, 2, 2),
            row(0, 0, 0, 0),
            row(0, 0, 2, 0),
            row(1, 0, 0, 1, math.pi),
            row(1e-17, 0, 2, 2, 1e-17),
            row(0, 0, 1e-3, 1e-120),
            row(300, 0, 2, 2),
        ]
    )
    n = len(boxes)
    for dtype in (torch.float64, torch.float32):
        first = boxes.to(dtype).repeat_interleave(n, dim=0).requires_grad_()
        second = boxes.to(dtype).repeat(n, 1).requires_grad_()
        measure(first, second).sum().backward()
        assert first.grad is not None and second.grad is not None
        assert bool(first.grad.isfinite().all()) and bool(second.grad.isfinite().all())
        usual = (first[:, 3:5] > 0.1).all(dim=1) & (second[:, 3:5] > 0.1).all(dim=1)
        assert float(first.grad[usual].abs().max()) < 10.0


def test_descent_on_the_loss_turns_a_box_onto_the_other():
    target = torch.tensor([[5.0, 3.0, 1.0, 4.0, 2.0, 1.5, 0.4]])
    box = torch.tensor([[5.6, 2.7, 1.2, 3.0, 2.5, 1.2, 0.9]]).requires_grad_()
    optimiser = torch.optim.Adam([box], lr=0.02)
    for step in range(400):
        optimiser.zero_grad()
        (1.0 - matched_box_iou(box, target)).sum().backward()
        optimiser.param_groups[0]["lr"] = 0.02 * (1.0 - step / 400)
        optimiser.step()
    assert float(matched_box_iou(box.detach(), target)) > 0.97
