"""Oriented boxes: points inside by brute force, corners, and motions by similarities and mirror images."""

import math
from dataclasses import replace

import pytest
import torch

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.transforms import (
    flip_matrix,
    rotation_matrix,
    scale_matrix,
    transform_points,
    translation_matrix,
)


def boxes(rng: torch.Generator, n: int = 7) -> Boxes:
    return Boxes(
        center=torch.randn(n, 3, generator=rng),
        size=torch.rand(n, 3, generator=rng) + 0.3,
        yaw=torch.rand(n, generator=rng) * 20.0 - 10.0,
        velocity=torch.randn(n, 3, generator=rng),
        category=torch.arange(n),
        instance=torch.arange(n) + 100,
    )


def upright_similarity(rng: torch.Generator) -> torch.Tensor:
    x, y, z, angle, factor = torch.rand(5, generator=rng).tolist()
    mirrored = flip_matrix(x < 0.5, y < 0.5)
    if z < 0.5:
        mirrored[2, 2] = -1.0
    turned = rotation_matrix((angle - 0.5) * 12.0, "z")
    shift = translation_matrix(torch.randn(3, generator=rng))
    return shift @ scale_matrix(0.5 + factor) @ mirrored @ turned


def test_a_level_box_contains_what_lies_between_its_faces(rng):
    box = Boxes.empty()
    assert len(box) == 0 and box.contains(torch.zeros(3, 3)).shape == (0, 3)
    one = boxes(rng).take(torch.tensor([2]))
    level = replace(one, yaw=torch.zeros(1))
    points = one.center + torch.randn(500, 3, generator=rng)
    expected = ((points - one.center).abs() <= one.size / 2).all(dim=1)
    assert 0 < expected.sum() < 500 and torch.equal(level.contains(points)[0], expected)


def test_a_quarter_turn_swaps_length_and_width(rng):
    one = boxes(rng)
    points = torch.randn(500, 3, generator=rng)
    turned = replace(one, size=one.size[:, [1, 0, 2]], yaw=one.yaw + math.pi / 2)
    assert torch.equal(one.contains(points), turned.contains(points))


def test_corners_are_on_the_border_and_the_first_is_ahead(rng):
    some = boxes(rng)
    corners = some.corners()
    for shrink, inside in ((0.999, True), (1.001, False)):
        near = some.center[:, None] + (corners - some.center[:, None]) * shrink
        assert all(bool((some.contains(near[i])[i] == inside).all()) for i in range(len(some)))
    heading = torch.stack([torch.cos(some.yaw), torch.sin(some.yaw)], dim=1)
    ahead = ((corners[:, 0, :2] - some.center[:, :2]) * heading).sum(dim=1)
    torch.testing.assert_close(ahead, some.size[:, 0] / 2)
    torch.testing.assert_close((corners[:, 0] - corners[:, 1]).norm(dim=1), some.size[:, 1])


@pytest.mark.parametrize("seed", range(20))
def test_moving_boxes_with_their_points_does_not_change_their_contents(seed):
    rng = torch.Generator().manual_seed(seed)
    some, transform = boxes(rng), upright_similarity(rng)
    points = torch.randn(2000, 3, generator=rng, dtype=torch.float64)
    moved = some.moved(transform)
    before, after = some.contains(points), moved.contains(transform_points(transform, points))
    assert before.sum() > 50 and (before != after).float().mean() < 1e-4
    corners = transform_points(transform, some.corners().reshape(-1, 3).double()).reshape(-1, 8, 3)
    distance = torch.cdist(corners, moved.corners().double())
    assert (distance.amin(dim=1) < 1e-5).all()  # the same eight, perhaps in another order
    tip = some.center.double() + some.velocity.double()
    moved_tip = moved.center.double() + moved.velocity.double()
    torch.testing.assert_close(transform_points(transform, tip), moved_tip, atol=1e-5, rtol=0)
    assert torch.equal(moved.category, some.category) and torch.equal(moved.instance, some.instance)


@pytest.mark.parametrize(
    "transform",
    [rotation_matrix(0.1, "x"), torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])), torch.zeros(4, 4)],
    ids=["tilted", "stretched", "flat"],
)
def test_what_a_yaw_cannot_express_is_refused(rng, transform):
    with pytest.raises(ValueError, match="turns about z only"):
        boxes(rng).moved(transform)


def test_an_unknown_velocity_stays_unknown(rng):
    some = boxes(rng)
    still = replace(some, velocity=torch.full_like(some.velocity, torch.nan))
    assert still.moved(upright_similarity(rng)).velocity.isnan().all()
