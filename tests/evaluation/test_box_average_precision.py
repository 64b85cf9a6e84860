"""Average precision of boxes against the textbook: one detection after the other, IoU by shapely."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from shapely import Polygon

from ponderv2.evaluation.box_average_precision import BoxMetrics, box_matches, box_metrics
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections

N_CLASSES = 4


def boxes_of(rows: list[tuple[float, ...]], category: list[int]) -> Boxes:
    """Boxes by centre, size and yaw."""
    numbers = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    n = len(numbers)
    return Boxes(
        numbers[:, :3],
        numbers[:, 3:6],
        numbers[:, 6],
        torch.full((n, 3), torch.nan),
        torch.tensor(category, dtype=torch.long),
        torch.arange(n),
    )


def random_scene(rng: torch.Generator) -> tuple[Detections, Boxes]:
    """Annotated boxes, some ignored, and detections near them: good, doubled, or of another class."""
    n_true = int(torch.randint(0, 7, (1,), generator=rng))
    rows = torch.cat(
        [
            3.0 * torch.rand(n_true, 3, generator=rng),
            0.5 + torch.rand(n_true, 3, generator=rng),
            6.0 * torch.rand(n_true, 1, generator=rng),
        ],
        dim=1,
    )
    category = torch.randint(-1, 3, (n_true,), generator=rng)
    n = (
        int(torch.randint(0, 25, (1,), generator=rng))
        if n_true
        else int(torch.randint(0, 3, (1,), generator=rng))
    )
    source = torch.randint(max(n_true, 1), (n,), generator=rng)
    found = rows[source] if n_true else 1.0 + torch.rand(n, 7, generator=rng)
    found = found + 0.15 * torch.randn(n, 7, generator=rng) * torch.rand(n, 1, generator=rng)
    found[:, 3:6] = found[:, 3:6].clamp(min=0.05)
    kind = torch.randint(0, 3, (n,), generator=rng)
    if n_true:
        own = torch.rand(n, generator=rng) < 0.8
        kind = torch.where(own & (category[source] >= 0), category[source], kind)
    # Few values, so that many scores are equal.
    score = torch.randint(12, (n,), generator=rng) / 12.0
    true = boxes_of([tuple(row) for row in rows.tolist()], category.tolist())
    detected = boxes_of([tuple(row) for row in found.tolist()], kind.tolist())
    return Detections(detected, score), true


def shapely_iou(a: Boxes, i: int, b: Boxes, j: int) -> float:
    def parts(boxes: Boxes, k: int) -> tuple[Polygon, float, float]:
        z, height = float(boxes.center[k, 2]), float(boxes.size[k, 2])
        return Polygon(boxes.corners()[k, :4, :2].tolist()), z - height / 2, z + height / 2

    (one, low, high), (other, other_low, other_high) = parts(a, i), parts(b, j)
    shared = one.intersection(other).area * max(0.0, min(high, other_high) - max(low, other_low))
    return shared / (one.area * (high - low) + other.area * (other_high - other_low) - shared)


def textbook(
    scenes: list[tuple[Detections, Boxes]], category: int, threshold: float
) -> tuple[float, float, list[tuple[float, float]]]:
    """AP, final recall and the curve of one class, one detection after the other."""
    listed = [
        (float(found.score[i]), scene, i)
        for scene, (found, _) in enumerate(scenes)
        for i in range(len(found))
        if int(found.boxes.category[i]) == category
    ]
    listed.sort(key=lambda entry: -entry[0])
    n_true = sum(int((true.category == category).sum()) for _, true in scenes)
    taken: set[tuple[int, int]] = set()
    curve: list[tuple[float, float]] = []
    hits = 0
    for accepted, (_, scene, i) in enumerate(listed, start=1):
        found, true = scenes[scene]
        best, most = -1, -1.0
        for j in range(len(true)):
            if int(true.category[j]) == category:
                iou = shapely_iou(found.boxes, i, true, j)
                if iou > most:
                    best, most = j, iou
        if most > threshold and (scene, best) not in taken:
            taken.add((scene, best))
            hits += 1
        curve.append((hits / accepted, hits / n_true if n_true else math.nan))
    if not n_true:
        return (0.0 if curve else math.nan), math.nan, curve
    # Pascal VOC: the area under max over r' >= r of the precision at r'.
    area, before = 0.0, 0.0
    for index, (_, recall) in enumerate(curve):
        area += (recall - before) * max(precision for precision, _ in curve[index:])
        before = recall
    return area, before, curve


def metrics_of(scenes: list[tuple[Detections, Boxes]]) -> BoxMetrics:
    return box_metrics([box_matches(found, true) for found, true in scenes], N_CLASSES)


def test_metrics_match_the_textbook(rng):
    scenes = [random_scene(rng) for _ in range(40)]
    metrics = metrics_of(scenes)
    for category in range(N_CLASSES):
        for column, threshold in enumerate((0.25, 0.5)):
            ap, recall, curve = textbook(scenes, category, threshold)
            assert float(metrics.ap[category, column]) == pytest.approx(ap, abs=1e-12, nan_ok=True)
            assert float(metrics.recall[category, column]) == pytest.approx(recall, abs=1e-12, nan_ok=True)
            found = metrics.curves[category][column]
            expected = torch.tensor(curve, dtype=torch.float64).reshape(-1, 2)
            torch.testing.assert_close(found.precision, expected[:, 0])
            torch.testing.assert_close(found.recall, expected[:, 1], equal_nan=True)
    assert bool(metrics.ap[3].isnan().all()) and 0.1 < float(metrics.ap[:3].mean()) < 0.9


def test_annotated_boxes_found_as_they_are_score_one(rng):
    scenes = []
    for _ in range(10):
        true = random_scene(rng)[1]
        found = true.take(true.category >= 0)
        scenes.append((Detections(found, torch.rand(len(found), generator=rng)), true))
    assert metrics_of(scenes).means() == {"map25": 1.0, "mar25": 1.0, "map50": 1.0, "mar50": 1.0}


UNIT = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0)


def moved(x: float) -> tuple[float, ...]:
    """The unit box moved along x: IoU (1 - x) / (1 + x)."""
    return (x, *UNIT[1:])


def found_of(rows: list[tuple[float, ...]], score: list[float], category: int = 0) -> Detections:
    return Detections(boxes_of(rows, [category] * len(rows)), torch.tensor(score))


def test_a_second_detection_of_a_taken_box_gets_no_second_choice():
    """It overlaps another annotated box that nobody found, but less."""
    true = boxes_of([UNIT, moved(0.45)], [0, 0])
    # IoU of the second one: 0.82 with the first box, 0.48 with the other.
    metrics = metrics_of([(found_of([UNIT, moved(0.1)], [0.9, 0.8]), true)])
    assert float(metrics.recall[0, 0]) == 0.5 and float(metrics.ap[0, 0]) == 0.5


def test_an_overlap_of_exactly_the_threshold_is_not_enough():
    half = (0.0, 0.0, 0.0, 1.0, 1.0, 0.5, 0.0)
    assert float(metrics_of([(found_of([half], [0.9]), boxes_of([UNIT], [0]))]).ap[0, 1]) == 0.0
    more = (0.0, 0.0, 0.0, 1.0, 1.0, 0.5001, 0.0)
    assert float(metrics_of([(found_of([more], [0.9]), boxes_of([UNIT], [0]))]).ap[0, 1]) == 1.0


def test_classes_that_are_only_annotated_or_only_predicted_count_as_zero():
    scene = (found_of([UNIT], [0.9], category=1), boxes_of([UNIT, moved(5.0)], [0, 2]))
    right = (found_of([UNIT], [0.9], category=2), boxes_of([UNIT], [2]))
    metrics = metrics_of([scene, right])
    assert metrics.ap[:3, 0].tolist() == [0.0, 0.0, 0.5] and bool(metrics.ap[3].isnan().all())
    assert metrics.means()["map25"] == pytest.approx(0.5 / 3)
    assert metrics.means()["mar25"] == pytest.approx(0.25) and metrics.n_true.tolist() == [1, 0, 2, 0]


def test_a_detection_on_an_ignored_box_is_wrong_and_the_box_is_not_missed():
    true = boxes_of([UNIT, moved(5.0)], [-1, 0])
    metrics = metrics_of([(found_of([moved(5.0), UNIT], [0.5, 0.9]), true)])
    assert metrics.n_true.tolist() == [1, 0, 0, 0] and float(metrics.ap[0, 0]) == 0.5


def test_without_anything_all_numbers_are_unknown():
    for scenes in ([], [(Detections.empty(), Boxes.empty())]):
        metrics = metrics_of(scenes)
        assert bool(metrics.ap.isnan().all()) and math.isnan(metrics.means()["map25"])


def test_classes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"predicted classes are expected in 0..3, received 9..9"):
        metrics_of([(found_of([UNIT], [0.5], category=9), boxes_of([UNIT], [0]))])
    with pytest.raises(ValueError, match="annotated classes"):
        metrics_of([(found_of([UNIT], [0.5]), boxes_of([UNIT], [4]))])


def test_the_order_of_scenes_decides_only_between_equal_scores(rng):
    scenes = [random_scene(rng) for _ in range(20)]
    distinct = [(replace(found, score=torch.rand(len(found), generator=rng)), true) for found, true in scenes]
    torch.testing.assert_close(
        metrics_of(distinct).ap, metrics_of(distinct[::-1]).ap, equal_nan=True, rtol=0, atol=1e-12
    )
