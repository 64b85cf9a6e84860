"""Few labels: who keeps them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderv2.errors import SceneError
from ponderv2.scenes.config import LabelBudgetConfig
from ponderv2.scenes.label_budget import budget_scenes, spend_label_budget
from ponderv2.scenes.scene import PointCloud, Scene

NAMES = tuple(f"room{i:02d}" for i in range(12))


def scene(name: str = "room", n_labelled: int = 60) -> Scene:
    segment = torch.arange(100) % 7
    segment[n_labelled:] = -1
    zeros = torch.zeros(100, 3)
    return Scene(name, PointCloud(zeros, zeros, zeros, {"segment": segment}))


def kept(which: Scene, n: int, seed: int = 0) -> set[int]:
    spent = spend_label_budget(which, LabelBudgetConfig(points_per_scene=n, seed=seed), "segment")
    return set(torch.nonzero(spent.cloud.labels["segment"] >= 0)[:, 0].tolist())


def test_no_budget_changes_nothing() -> None:
    room = scene()
    assert spend_label_budget(room, LabelBudgetConfig(), "segment") is room


def test_kept_labels_are_the_true_ones() -> None:
    room = scene()
    spent = spend_label_budget(room, LabelBudgetConfig(points_per_scene=10), "segment").cloud.labels
    labelled = spent["labelled"] > 0
    assert int(labelled.sum()) == 10
    assert torch.equal(spent["segment"][labelled], room.cloud.labels["segment"][labelled])
    assert (spent["segment"][~labelled] == -1).all() and (spent["segment"][labelled] >= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 5))
def test_larger_budgets_hold_the_smaller_ones(few: int, many: int, seed: int) -> None:
    few, many = min(few, many), max(few, many)
    assert kept(scene(), few, seed) <= kept(scene(), many, seed)
    assert len(kept(scene(), many, seed)) == min(many, 60)


def test_choice_depends_on_seed_and_name_only() -> None:
    assert kept(scene(), 10) == kept(scene(), 10)
    assert kept(scene(), 10) != kept(scene(), 10, seed=1)
    assert kept(scene("kitchen"), 10) != kept(scene("attic"), 10)


def test_labelled_scenes_are_nested_and_stable() -> None:
    chosen = [budget_scenes(NAMES, LabelBudgetConfig(scenes=n)) for n in (1, 2, 4, 8, 12)]
    for few, many in pairwise(chosen):
        assert set(few) < set(many)
    assert [len(names) for names in chosen] == [1, 2, 4, 8, 12]
    assert chosen[-1] == NAMES == budget_scenes(NAMES, LabelBudgetConfig())
    assert budget_scenes(NAMES, LabelBudgetConfig(scenes=4, seed=1)) != chosen[2]


def test_scenes_can_be_named() -> None:
    assert budget_scenes(NAMES, LabelBudgetConfig(scenes=("room03", "room01"))) == ("room01", "room03")
    with pytest.raises(SceneError, match="atrium"):
        budget_scenes(NAMES, LabelBudgetConfig(scenes=("atrium",)))


def test_more_scenes_than_there_are_is_refused() -> None:
    with pytest.raises(SceneError, match="13 labelled scenes asked for, 12 there"):
        budget_scenes(NAMES, LabelBudgetConfig(scenes=13))
