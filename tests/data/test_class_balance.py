"""Class-balanced sampling on toy lists whose counts are known by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from ponderv2.data.class_balance import balanced_scenes
from ponderv2.errors import SceneError

NAMES = tuple(f"{index:02d}" for index in range(10))
CLASSES = {name: {0} for name in NAMES} | {"03": {0, 1}, "04": {0, 1}, "05": {0, 2}, "09": frozenset[int]()}
"""Nine scenes with class 0, two with class 1, one with class 2, none with class 3: 12 in all lists."""


def test_each_class_that_is_there_gets_as_many_draws() -> None:
    drawn = balanced_scenes(NAMES, CLASSES, 4, seed=0)
    assert len(drawn) == 3 * (12 // 4), "int(|list| * (1/4) / (|list| / 12)) for each of the three lists"
    assert {*drawn[3:6]} <= {"03", "04"} and drawn[6:] == ("05",) * 3
    assert "09" not in drawn


def test_draws_follow_the_seed_and_are_spread_over_each_list() -> None:
    many = tuple(f"{index:04d}" for index in range(4000))
    classes = {name: {0} if index % 4 else {0, 1} for index, name in enumerate(many)}
    drawn = balanced_scenes(many, classes, 2, seed=1)
    assert drawn == balanced_scenes(many, classes, 2, seed=1) != balanced_scenes(many, classes, 2, seed=2)
    assert len(drawn) == 5000
    rare = [name for name in drawn if len(classes[name]) == 2]
    assert 0.58 < len(rare) / len(drawn) < 0.67, "half of the draws, and a quarter of the other half"
    assert max(Counter(drawn).values()) < 14


def test_scenes_without_objects_are_refused_together() -> None:
    with pytest.raises(SceneError, match="none of 10 scenes has a box"):
        balanced_scenes(NAMES, {name: {-1} for name in NAMES}, 10, seed=0)
