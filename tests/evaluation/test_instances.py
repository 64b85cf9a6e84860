"""Average precision of objects, compared with a slow version that follows the benchmark point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ponderv2.evaluation.instances import (
    PredictedInstances,
    average_precision,
    instance_metrics,
    instance_overlaps,
)

Scene = tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, int, float]]]
"""Class and object of each point; predictions as mask, class, score."""


def slow_ap(scenes: list[Scene], category: int, threshold: float, ignored: tuple[int, ...]) -> float:
    """One class at one threshold, by sets of points; NaN without true objects."""
    outcomes: list[tuple[float, int]] = []
    missed = n_large = 0
    for segment, instance, predictions in scenes:
        void = {i for i, c in enumerate(segment) if c == -1 or c in ignored}
        guesses = [(set(np.nonzero(m)[0].tolist()), s) for m, c, s in predictions if c == category]
        guesses = [one for one in guesses if len(one[0]) >= 100]
        numbers = sorted({int(n) for n, c in zip(instance, segment, strict=True) if n >= 0 and c == category})
        truths = [set(np.nonzero((instance == n) & (segment == category))[0].tolist()) for n in numbers]
        large = [truth for truth in truths if len(truth) >= 100]
        n_large += len(large)
        spent: set[int] = set()
        for truth in large:
            outcomes_of_truth = claims(truth, guesses, spent, threshold)
            outcomes += outcomes_of_truth
            missed += not outcomes_of_truth
        for points, score in guesses:
            if not any(overlap(points, truth) > threshold for truth in truths):
                excused = len(points & void) + sum(len(points & t) for t in truths if len(t) < 100)
                outcomes += [(score, 0)] if excused / len(points) <= threshold else []
    return slow_area(outcomes, missed) if n_large else math.nan


def overlap(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other)


def claims(
    truth: set[int], guesses: list[tuple[set[int], float]], spent: set[int], threshold: float
) -> list[tuple[float, int]]:
    """What becomes of the predictions of one true object: (score, right); only the first one is spent."""
    best: float | None = None
    worse: list[tuple[float, int]] = []
    for i, (points, score) in enumerate(guesses):
        if i in spent or overlap(points, truth) <= threshold:
            continue
        if best is None:
            best = score
            spent.add(i)
        else:
            worse.append((min(best, score), 0))
            best = max(best, score)
    return [] if best is None else [*worse, (best, 1)]


def slow_area(outcomes: list[tuple[float, int]], missed: int) -> float:
    """The integral, one cut-off after the other."""
    n_true = sum(hit for _, hit in outcomes) + missed
    curve = []
    for cut in sorted({score for score, _ in outcomes}):
        accepted = [hit for score, hit in outcomes if score >= cut]
        curve.append((sum(accepted) / len(accepted), sum(accepted) / n_true))
    curve.append((1.0, 0.0))
    recall = [curve[0][1], *(r for _, r in curve), 0.0]
    return sum(p * (recall[i] - recall[i + 2]) / 2 for i, (p, _) in enumerate(curve))


def random_scene(rng: np.random.Generator, n_classes: int) -> Scene:
    """Runs of points as objects, some small, some void; predictions are shifted, cut, doubled or invented."""
    n_points = 2500
    segment, instance = np.full(n_points, -1), np.full(n_points, -1)
    place = number = 0
    predictions: list[tuple[np.ndarray, int, float]] = []
    while place < n_points - 400:
        size = int(rng.integers(60, 400))
        category = int(rng.integers(-1, n_classes))
        segment[place : place + size] = category
        if rng.random() < 0.9:
            instance[place : place + size] = number
        number += 1
        for _ in range(int(rng.integers(0, 4))):
            mask = np.zeros(n_points, dtype=bool)
            start = max(0, place + int(rng.integers(-60, 60)))
            mask[start : start + max(20, size + int(rng.integers(-80, 80)))] = True
            mask &= rng.random(n_points) < rng.choice([1.0, 0.9, 0.6])
            guess = max(0, category) if rng.random() < 0.8 else int(rng.integers(0, n_classes))
            predictions.append((mask, guess, float(rng.choice([0.3, 0.5, 0.9, rng.random()]))))
        place += size + int(rng.integers(0, 30))
    order = rng.permutation(len(predictions))
    return segment, instance, [predictions[i] for i in order]


def overlaps(scene: Scene, ignored: tuple[int, ...]):
    segment, instance, predictions = scene
    masks = [mask for mask, _, _ in predictions]
    found = PredictedInstances.of_masks(
        torch.from_numpy(np.array(masks, dtype=bool).reshape(len(masks), len(segment))),
        torch.tensor([category for _, category, _ in predictions], dtype=torch.long),
        torch.tensor([score for _, _, score in predictions], dtype=torch.float64),
    )
    return instance_overlaps(found, torch.from_numpy(segment), torch.from_numpy(instance), ignored)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignored", [(), (0, 2)])
def test_average_precision_equals_the_slow_version(seed: int, ignored: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, 5) for _ in range(2)]
    metrics = instance_metrics([overlaps(scene, ignored) for scene in scenes], 6)
    thresholds = [0.5 + 0.05 * i for i in range(9)]
    for category in range(6):
        if category in ignored:
            assert math.isnan(metrics.ap[category]) and not metrics.n_true[category]
            continue
        slow = [slow_ap(scenes, category, t, ignored) for t in (*thresholds, 0.25)]
        expected = {"ap": np.mean(slow[:9]), "ap50": slow[0], "ap25": slow[9]}
        for name, value in expected.items():
            assert float(getattr(metrics, name)[category]) == pytest.approx(value, abs=1e-12, nan_ok=True)


def blocks(*runs: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Class and object of points, from runs of (length, class, object)."""
    return (
        np.concatenate([np.full(n, c) for n, c, _ in runs]),
        np.concatenate([np.full(n, i) for n, _, i in runs]),
    )


def mask(n_points: int, start: int, end: int) -> np.ndarray:
    points = np.zeros(n_points, dtype=bool)
    points[start:end] = True
    return points


def ap50(scene: Scene, ignored: tuple[int, ...] = ()) -> float:
    return float(instance_metrics([overlaps(scene, ignored)], 2).ap50[1])


def test_exact_predictions_have_one_and_missing_ones_zero() -> None:
    segment, instance = blocks((200, 1, 0), (300, 1, 1))
    both = [(mask(500, 0, 200), 1, 0.9), (mask(500, 200, 500), 1, 0.1)]
    assert ap50((segment, instance, both)) == 1.0
    assert ap50((segment, instance, [])) == 0.0


def test_half_of_the_objects_found_is_an_area_of_a_half() -> None:
    """Curve of (precision, recall): (1, 1/2), (1, 0); both points are (1/2 - 0) / 2 wide."""
    segment, instance = blocks((200, 1, 0), (300, 1, 1))
    assert ap50((segment, instance, [(mask(500, 0, 200), 1, 0.9)])) == 0.5


def test_overlap_must_exceed_the_threshold() -> None:
    segment, instance = blocks((200, 1, 0), (300, 0, 1))
    assert ap50((segment, instance, [(mask(500, 0, 100), 1, 0.9)])) == 0.0
    assert ap50((segment, instance, [(mask(500, 0, 101), 1, 0.9)])) == 1.0


def test_of_two_predictions_of_one_object_the_less_certain_is_wrong() -> None:
    """Curve: (1/2, 1), (1, 1), (1, 0), widths 0, 1/2, 1/2: at full recall the wrong one costs nothing."""
    segment, instance = blocks((200, 1, 0), (300, 0, 1))
    twice = [(mask(500, 0, 190), 1, 0.3), (mask(500, 0, 200), 1, 0.8)]
    assert ap50((segment, instance, twice)) == 1.0
    worse = [(mask(500, 0, 190), 1, 0.8), (mask(500, 250, 450), 1, 0.9)]
    assert ap50((segment, instance, worse)) == pytest.approx(0.5 * 0.5 + 0.0 * 0.5 + 0.0)


def test_predictions_on_void_and_on_small_objects_are_excused() -> None:
    """Wrong ones of higher score cost; those mostly on wall (ignored), nothing, or a small object do not."""
    segment, instance = blocks((200, 1, 0), (300, 0, 1), (300, -1, -1), (99, 1, 5))
    right = (mask(899, 0, 200), 1, 0.5)
    assert ap50((segment, instance, [right, (mask(899, 200, 500), 1, 0.9)])) == pytest.approx(0.25)
    assert ap50((segment, instance, [right, (mask(899, 200, 500), 1, 0.9)]), (0,)) == 1.0
    assert ap50((segment, instance, [right, (mask(899, 500, 800), 1, 0.9)])) == 1.0
    assert ap50((segment, instance, [right, (mask(899, 799, 899), 1, 0.9)])) == 1.0


def test_a_number_that_spans_two_classes_is_two_objects() -> None:
    """As in the benchmark's files, whose points hold 1000 times the class plus the number.

    Taken as one object of 500 points, its larger part would overlap the prediction by 2/5 only.
    """
    segment, instance = blocks((200, 1, 7), (300, 0, 7))
    scene: Scene = (segment, instance, [(mask(500, 0, 200), 1, 0.9)])
    on_disk = segment * 1000 + instance + 1
    assert len(np.unique(on_disk)) == 2
    metrics = instance_metrics([overlaps(scene, ())], 2)
    assert metrics.n_true.tolist() == [1, 1] and metrics.ap50.tolist() == [0.0, 1.0]


def test_scenes_are_pooled_not_averaged() -> None:
    """One object found among three in two scenes: area 1/3, not the mean 3/4 of scenes."""
    first: Scene = (*blocks((200, 1, 0)), [(mask(200, 0, 200), 1, 0.9)])
    second: Scene = (*blocks((200, 1, 0), (200, 1, 1)), [])
    metrics = instance_metrics([overlaps(first, ()), overlaps(second, ())], 2)
    assert float(metrics.ap[1]) == pytest.approx(1 / 3)
    assert metrics.n_true.tolist() == [0, 3] and metrics.means()["ap50"] == pytest.approx(1 / 3)


def test_no_scene_has_no_number() -> None:
    assert all(math.isnan(value) for value in instance_metrics([], 3).means().values())


@pytest.mark.parametrize("seed", range(5))
def test_area_equals_the_slow_integral(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcomes = [(float(rng.integers(0, 12)) / 12, int(rng.random() < 0.5)) for _ in range(40)]
    fast = average_precision(
        torch.tensor([bool(hit) for _, hit in outcomes]),
        torch.tensor([score for score, _ in outcomes], dtype=torch.float64),
        7,
    )
    assert fast == pytest.approx(slow_area(outcomes, 7), abs=1e-12)
