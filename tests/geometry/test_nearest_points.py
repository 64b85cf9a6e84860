"""Nearest points within reach against all distances."""

from __future__ import annotations

import pickle

import pytest
import torch

from ponderv2.geometry.nearest_points import NearestPoints

REACH = 0.2


def test_rows_match_all_distances(rng: torch.Generator) -> None:
    points, places = torch.rand(60, 3, generator=rng), 1.4 * torch.rand(200, 3, generator=rng)
    apart, row = torch.cdist(places.double(), points.double()).min(dim=1)
    found = NearestPoints.of(points, REACH).rows(places)
    assert torch.equal(found, torch.where(apart < REACH, row, -1))
    assert 0 < int((found < 0).sum()) < 200


def test_what_is_as_far_as_the_reach_is_not_found() -> None:
    found = NearestPoints.of(torch.zeros(1, 3), 0.5)
    assert found.rows(torch.tensor([[0.25, 0.0, 0.0], [0.5, 0.0, 0.0]])).tolist() == [0, -1]


def test_of_no_points_nothing_is_found() -> None:
    found = NearestPoints.of(torch.zeros(0, 3), REACH)
    assert len(found) == 0 and found.rows(torch.zeros(2, 3)).tolist() == [-1, -1]


def test_no_places_have_no_rows(rng: torch.Generator) -> None:
    found = NearestPoints.of(torch.rand(5, 3, generator=rng), REACH).rows(torch.zeros(0, 3))
    assert found.shape == (0,) and found.dtype == torch.int64


def test_it_can_be_pickled(rng: torch.Generator) -> None:
    """Worker processes receive it."""
    points = torch.rand(20, 3, generator=rng)
    copy = pickle.loads(pickle.dumps(NearestPoints.of(points, REACH)))
    assert copy.rows(points).tolist() == list(range(20))


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError):
        NearestPoints.of(torch.full((2, 3), float("nan")), REACH)
