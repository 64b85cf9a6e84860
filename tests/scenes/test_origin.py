"""Far coordinates and far points: against the same numbers near zero, and against what was added to them."""

from __future__ import annotations

import numpy as np
import pytest

from ponderv2.scenes.origin import (
    APART,
    coarse_note,
    far_groups,
    far_outliers,
    middle_of,
    origin_of,
    outlier_note,
    size_note,
)

ROOM = np.random.default_rng(2).random((500, 3)) * [4.0, 3.0, 2.5]
UTM = np.array([555813.15, 5385888.54, 185.86])


@pytest.mark.parametrize("place", [1e2, 1e4, 1e6, 1e12, -1e5])
@pytest.mark.parametrize("count", [1, 20])
def test_far_points_are_found_and_nothing_else(place: float, count: int):
    far = np.full((count, 3), place) * np.random.default_rng(0).uniform(1, 2, (count, 3))
    both = np.concatenate([ROOM, far])
    assert np.array_equal(np.flatnonzero(far_outliers(both)), np.arange(500, 500 + count))
    assert np.array_equal(np.flatnonzero(far_outliers(both.astype(np.float32))), np.arange(500, 500 + count))


def test_zeros_among_far_coordinates_are_far():
    both = np.concatenate([ROOM + UTM, np.zeros((3, 3))])
    assert np.array_equal(np.flatnonzero(far_outliers(both)), [500, 501, 502])
    np.testing.assert_allclose(origin_of(both), middle_of(ROOM) + UTM, atol=1e-8)
    assert "3 points lie far from all others (the first: point 500 at 0, 0, 0 m)" in outlier_note(
        both, far_outliers(both)
    )


def test_long_buildings_few_points_and_missing_points_have_no_far_points():
    corridor = np.random.default_rng(0).random((1000, 3)) * [300.0, 2.0, 2.5]
    two_houses = np.concatenate([ROOM, ROOM + np.array([1000.0, 0, 0])])
    missing = np.concatenate([ROOM, [[np.nan, 0, 0], [np.inf, 0, 0]]])
    for cloud in (ROOM, ROOM * 10, corridor, two_houses, missing, ROOM[:1], ROOM[:2] * 1e9, np.zeros((0, 3))):
        assert not far_outliers(cloud).any()
    assert far_outliers(np.array([[0.0, 0, 0], [1, 0, 0], [1e9, 0, 0]])).tolist() == [False, False, True]


def test_groups_hold_every_point_once_and_belong_together():
    shed = ROOM[:40] * 0.5 + np.array([410.0, 1, 1])
    alone = np.random.default_rng(1).uniform(1e4, 1e9, (12, 3))
    cloud = np.concatenate([ROOM, shed, alone, ROOM[:300]])
    groups, singles = far_groups(cloud)
    everyone = np.concatenate([*groups, singles])
    assert np.array_equal(np.sort(everyone), np.arange(len(cloud)))
    assert np.array_equal(groups[0], [*range(500), *range(552, 852)])
    assert any(np.array_equal(one, np.arange(500, 540)) for one in groups)
    assert all(np.ptp(cloud[group], axis=0).max() <= 200 for group in groups[1:]) and len(singles) >= 10


def test_near_coordinates_keep_their_origin_and_far_ones_get_their_middle():
    assert not origin_of(ROOM).any() and not origin_of(ROOM + 100.0).any()
    np.testing.assert_allclose(origin_of(ROOM + UTM), middle_of(ROOM) + UTM, atol=1e-8)
    assert middle_of(np.array([[0.0, 0, 1], [2, 6, 5]])).tolist() == [1, 3, 1]
    assert APART < 50 and not origin_of(np.zeros((0, 3))).any()


def test_what_reaches_far_from_zero_but_begins_near_it_keeps_its_origin():
    scan = np.random.default_rng(0).uniform((-40, 20, -2), (300, 250, 12), (1000, 3))
    assert not origin_of(scan).any() and not origin_of(-scan).any()
    beyond = scan + np.array([0.0, 190.0, 0.0])
    np.testing.assert_allclose(origin_of(beyond), middle_of(beyond))
    np.testing.assert_allclose(origin_of(-beyond), middle_of(-beyond))


def test_positions_are_those_of_the_room_to_a_ten_thousandth_of_a_millimetre():
    back = ((ROOM + UTM - origin_of(ROOM + UTM)).astype(np.float32) + middle_of(ROOM)).astype(np.float64)
    assert np.abs(back - ROOM).max() < 3e-7
    assert np.abs((ROOM + UTM).astype(np.float32) - UTM - ROOM).max() > 0.1  # what happened without it


def test_coarse_numbers_of_a_file_are_reported():
    far = ROOM + UTM
    assert "steps of 0.5 m" in coarse_note(far.astype(np.float32))[0]
    assert not coarse_note(far) and not coarse_note(ROOM.astype(np.float32))
    assert not coarse_note((ROOM * 1000).astype(np.float32), 0.001)
    assert "half precision" in coarse_note(ROOM.astype(np.float16))[0]


def test_what_is_perhaps_in_millimetres_is_reported():
    assert (
        "4000 m large: is its unit the millimetre?"
        in size_note(np.r_[ROOM, [[0.0, 0, 0], [4, 3, 2]]] * 1000)[0]
    )
    assert not size_note(ROOM + UTM) and not size_note(np.r_[ROOM, [[1e6, 0, 0]]]) and not size_note(ROOM[:0])
