"""Farthest point sampling and ball query against textbook loops, and scenes of a batch against each alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.point_sampling import ball_query, farthest_points, padded_rows

COUNTS = (40, 0, 7, 23)


def scenes(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(sum(COUNTS), 3, generator=rng), torch.tensor(COUNTS).cumsum(0)


def textbook_farthest(points: Tensor, n: int) -> list[int]:
    chosen = [0]
    while len(chosen) < min(n, len(points)):
        nearest = [min(float((p - points[c]).square().sum()) for c in chosen) for p in points]
        chosen.append(max(range(len(points)), key=lambda i: nearest[i]))
    return chosen if len(points) else []


def textbook_ball(points: Tensor, center: Tensor, radius: float, n: int) -> list[int]:
    near = [i for i, p in enumerate(points) if float((p - center).square().sum()) < radius**2][:n]
    return (near + near[:1] * n)[:n] if near else [-1] * n


@pytest.mark.parametrize("n", [1, 10, 50])
def test_farthest_points_are_those_of_the_loop(rng, n):
    coord, offset = scenes(rng)
    chosen, ends = farthest_points(coord, offset, n)
    expected, start = [], 0
    for end in offset.tolist():
        expected.append([start + i for i in textbook_farthest(coord[start:end], n)])
        start = end
    assert chosen.tolist() == [i for one in expected for i in one]
    assert ends.tolist() == torch.tensor([len(one) for one in expected]).cumsum(0).tolist()


def test_points_at_one_place_are_chosen_once_each():
    coord = torch.zeros(5, 3)
    chosen, _ = farthest_points(coord, torch.tensor([5]), 4)
    assert sorted(set(chosen.tolist())) == sorted(chosen.tolist())


def test_the_first_of_a_farther_sampled_order_are_a_sampling(rng):
    coord, offset = scenes(rng)
    order, ends = farthest_points(coord, offset, 20)
    again, _ = farthest_points(coord[order], ends, 5)
    few, _ = farthest_points(coord, offset, 5)
    assert order[again].tolist() == few.tolist()


@pytest.mark.parametrize("n", [1, 4, 60])
def test_ball_query_finds_what_the_loop_finds(rng, n):
    coord, offset = scenes(rng)
    center, center_offset = torch.rand(9, 3, generator=rng), torch.tensor([4, 5, 7, 9])
    found = ball_query(coord, offset, center, center_offset, 0.3, n)
    starts, firsts = [0, *offset.tolist()], [0, *center_offset.tolist()]
    for scene in range(4):
        points = coord[starts[scene] : starts[scene + 1]]
        for i in range(firsts[scene], firsts[scene + 1]):
            expected = [j + starts[scene] if j >= 0 else -1 for j in textbook_ball(points, center[i], 0.3, n)]
            assert found[i].tolist() == expected
    assert (found == -1).any()
    assert (found >= 0).any()


def test_nothing_gives_nothing():
    none, no_points = torch.zeros(0, 3), torch.zeros(2, dtype=torch.long)
    assert farthest_points(none, no_points, 3)[0].tolist() == []
    assert farthest_points(none, no_points, 3)[1].tolist() == [0, 0]
    assert ball_query(none, no_points, torch.zeros(1, 3), torch.tensor([1, 1]), 1.0, 2).tolist() == [[-1, -1]]
    assert ball_query(torch.zeros(1, 3), torch.tensor([0, 1]), none, no_points, 1.0, 2).shape == (0, 2)
    assert padded_rows(torch.zeros(0, dtype=torch.long))[0].shape == (0, 0)


def test_sampling_has_no_gradient(rng):
    coord, offset = scenes(rng)
    chosen, _ = farthest_points(coord.requires_grad_(), offset, 5)
    assert not chosen.requires_grad
