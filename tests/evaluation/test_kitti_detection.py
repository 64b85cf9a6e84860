"""Average precision of KITTI against its rules, followed box by box and score by score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from shapely import Polygon
from torch import Tensor

from ponderv2.datasets.kitti.labels import TYPES
from ponderv2.evaluation.kitti_detection import KittiMetrics, kitti_metrics, kitti_overlaps
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections


def boxes_of(rows: Tensor, category: list[int], fields: dict[str, Tensor]) -> Boxes:
    n = len(rows)
    return Boxes(
        rows[:, :3],
        rows[:, 3:6],
        rows[:, 6],
        torch.full((n, 3), torch.nan),
        torch.tensor(category, dtype=torch.long),
        torch.full((n,), -1),
        fields,
    )


def image_boxes(height: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(height), torch.zeros_like(height), height, height], dim=1)


def random_frame(rng: torch.Generator) -> tuple[Detections, Boxes]:
    """Cars, vans, ... of all difficulties, and detections near them."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    def whole(high: int, n: int) -> Tensor:
        return torch.randint(high, (n,), generator=rng)

    n = int(torch.randint(0, 9, (1,), generator=rng))
    rows = torch.cat(
        [uniform(n, 3) * torch.tensor([12.0, 12.0, 1.0]), uniform(n, 3) + 2.0, 6.0 * uniform(n, 1)], 1
    )
    kind = torch.tensor([0, 1, 3, 4, 5, 7])[whole(6, n)]
    names = ("Car", "Pedestrian", "Cyclist")
    category = [names.index(TYPES[k]) if TYPES[k] in names else -1 for k in kind.tolist()]
    fields = {
        "image_box": image_boxes(torch.tensor([20.0, 25.0, 30.0, 40.0, 60.0, 70.0, 80.0])[whole(7, n)]),
        "truncated": torch.tensor([0.0, 0.0, 0.1, 0.15, 0.3, 0.5, 0.9])[whole(7, n)],
        "occluded": torch.tensor([0, 0, 0, 1, 2, 3])[whole(6, n)],
        "source_category": kind,
    }
    m = int(torch.randint(4, 16, (1,), generator=rng)) if n else int(whole(3, 1))
    source = whole(max(n, 1), m)
    noise = torch.randn(m, 7, generator=rng) * torch.tensor([0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.05])
    found = (rows[source] if n else uniform(m, 7) + 1.0) + noise * uniform(m, 1)
    own = torch.tensor(category)[source].clamp(min=0) if n else whole(3, m)
    own = torch.where(uniform(m) < 0.85, own, whole(3, m))
    height = torch.tensor([20.0, 25.0, 39.0, 40.0, 60.0, 70.0, 80.0])[whole(7, m)]
    # Few values: many scores are equal.
    score = (1 + whole(15, m)) / 16.0
    return Detections(boxes_of(found, own.tolist(), {"image_box": image_boxes(height)}), score), boxes_of(
        rows, category, fields
    )


@dataclass
class Box:
    """One found or annotated box of the twin."""

    polygon: Polygon
    low: float
    high: float
    state: int
    score: float = 0.0
    taken: bool = False


def overlap(a: Box, b: Box, in_space: bool) -> float:
    shared = a.polygon.intersection(b.polygon).area
    size_a, size_b = a.polygon.area, b.polygon.area
    if in_space:
        shared *= max(0.0, min(a.high, b.high) - max(a.low, b.low))
        size_a, size_b = size_a * (a.high - a.low), size_b * (b.high - b.low)
    return shared / (size_a + size_b - shared)


def shape_of(boxes: Boxes, i: int) -> tuple[Polygon, float, float]:
    z, height = float(boxes.center[i, 2]), float(boxes.size[i, 2])
    corners = boxes.take(torch.tensor([i]))
    doubled = Boxes(
        corners.center.double(), corners.size.double(), corners.yaw.double(), corners.velocity.double(),
        corners.category, corners.instance,
    )  # fmt: skip
    return Polygon(doubled.corners()[0, :4, :2].tolist()), z - height / 2, z + height / 2


def boxes_of_frame(
    frame: tuple[Detections, Boxes], name: str, difficulty: int
) -> tuple[list[Box], list[Box]]:
    """0 counts, 1 is ignored, -1 is of no concern."""
    found, true = frame
    min_height = (40, 25, 25)[difficulty]
    detected, annotated = [], []
    for i in range(len(found)):
        box = found.boxes.fields["image_box"][i].tolist()
        state = 0 if ("Car", "Pedestrian", "Cyclist")[int(found.boxes.category[i])] == name else -1
        if box[3] - box[1] < min_height:
            state = 1
        detected.append(Box(*shape_of(found.boxes, i), state, float(found.score[i])))
    for i in range(len(true)):
        box = true.fields["image_box"][i].tolist()
        kind = TYPES[int(true.fields["source_category"][i])]
        hard = int(true.fields["occluded"][i]) > (0, 1, 2)[difficulty]
        hard = hard or round(float(true.fields["truncated"][i]), 2) > (0.15, 0.3, 0.5)[difficulty]
        hard = hard or box[3] - box[1] <= min_height
        state = -1
        if kind == name:
            state = 1 if hard else 0
        elif (name, kind) in (("Car", "Van"), ("Pedestrian", "Person_sitting")):
            state = 1
        annotated.append(Box(*shape_of(true, i), state))
    return detected, annotated


def taken_by_score(box: Box, detected: list[Box], in_space: bool, least: float) -> Box | None:
    """The surest free one that overlaps it enough."""
    best = None
    for one in detected:
        if one.state == -1 or one.taken or overlap(one, box, in_space) <= least:
            continue
        if best is None or one.score > best.score:
            best = one
    return best


def taken_by_overlap(box: Box, detected: list[Box], in_space: bool, least: float, limit: float) -> Box | None:
    """The free one that overlaps it most, if it counts; else the first that is ignored."""
    best, most = None, 0.0
    for one in detected:
        if one.state == -1 or one.taken or one.score < limit:
            continue
        iou = overlap(one, box, in_space)
        if iou <= least:
            continue
        if one.state == 0 and (iou > most or (best is not None and best.state == 1)):
            best, most = one, iou
        elif one.state == 1 and best is None:
            best = one
    return best


def limits_of(scores: list[float], n_true: int) -> list[float]:
    """Scores of the positions of recall."""
    limits, recall = [], 0.0
    for i, score in enumerate(scores):
        left = (i + 1) / n_true
        right = (i + 2) / n_true if i < len(scores) - 1 else left
        if right - recall < recall - left and i < len(scores) - 1:
            continue
        limits.append(score)
        recall += 1 / 40
    return limits


def precision_at(
    everything: list[tuple[list[Box], list[Box]]], in_space: bool, least: float, limit: float
) -> float:
    """Of all detections of at least that score."""
    hits = wrong = 0
    for detected, annotated in everything:
        for one in detected:
            one.taken = False
        for box in annotated:
            best = taken_by_overlap(box, detected, in_space, least, limit) if box.state != -1 else None
            if best is not None:
                best.taken = True
                hits += best.state == 0 and box.state == 0
        wrong += sum(one.state == 0 and not one.taken and one.score >= limit for one in detected)
    return hits / (hits + wrong) if hits + wrong else 0.0


def textbook(
    frames: list[tuple[Detections, Boxes]], name: str, difficulty: int, in_space: bool
) -> tuple[float, int]:
    """AP at 40 positions, and how many boxes count."""
    least = 0.7 if name == "Car" else 0.5
    everything = [boxes_of_frame(frame, name, difficulty) for frame in frames]
    n_true = sum(box.state == 0 for _, annotated in everything for box in annotated)
    scores = []
    for detected, annotated in everything:
        for box in annotated:
            best = taken_by_score(box, detected, in_space, least) if box.state != -1 else None
            if best is not None:
                best.taken = True
                scores += [best.score] if best.state == 0 and box.state == 0 else []
    limits = limits_of(sorted(scores, reverse=True), n_true)
    precision = [precision_at(everything, in_space, least, limit) for limit in limits] + [0.0] * 41
    return sum(max(precision[k:]) for k in range(1, 41)) / 40, n_true


def metrics_of(frames: list[tuple[Detections, Boxes]]) -> KittiMetrics:
    return kitti_metrics([kitti_overlaps(found, true) for found, true in frames])


def test_metrics_match_the_rules_box_by_box(rng):
    frames = [random_frame(rng) for _ in range(60)]
    metrics = metrics_of(frames)
    for number, name in enumerate(("Car", "Pedestrian", "Cyclist")):
        for difficulty in range(3):
            for measure, in_space in ((metrics.plane, False), (metrics.space, True)):
                expected, n_true = textbook(frames, name, difficulty, in_space)
                assert int(metrics.n_true[number, difficulty]) == n_true > 0
                assert float(measure[number, difficulty]) == pytest.approx(expected, abs=1e-12)
    assert 0.01 < float(metrics.space.mean()) < float(metrics.plane.mean()) < 0.9
    assert metrics.n_true[:, 0].lt(metrics.n_true[:, 1]).all()
    assert metrics.n_true[:, 1].lt(metrics.n_true[:, 2]).all()


def cars(n: int, kind: str = "Car", height: float = 50.0) -> Boxes:
    """In a row, far from each other."""
    rows = torch.tensor([[0.0, 0.0, 0.0, 4.0, 1.8, 1.6, 0.3]]).repeat(n, 1)
    rows[:, 0] = 10.0 * torch.arange(n)
    fields = {
        "image_box": image_boxes(torch.full((n,), height)),
        "truncated": torch.zeros(n),
        "occluded": torch.zeros(n, dtype=torch.long),
        "source_category": torch.full((n,), TYPES.index(kind)),
    }
    return boxes_of(rows, [0 if kind == "Car" else -1] * n, fields)


def found_at(boxes: Boxes, score: list[float], category: int = 0) -> Detections:
    found = boxes_of(
        torch.cat([boxes.center, boxes.size, boxes.yaw[:, None]], 1),
        [category] * len(boxes),
        {"image_box": boxes.fields["image_box"]},
    )
    return Detections(found, torch.tensor(score))


def test_annotated_boxes_found_as_they_are_score_one():
    true = cars(80)
    metrics = metrics_of([(found_at(true, [0.01 * i for i in range(80)]), true)])
    assert metrics.plane[0].tolist() == [1.0] * 3 and metrics.space[0].tolist() == [1.0] * 3
    assert bool(metrics.plane[1:].isnan().all())
    assert metrics.means()["ap_space_moderate"] == 1.0


def test_half_of_the_cars_found_score_half():
    true = cars(80)
    half = true.take(torch.arange(40))
    metrics = metrics_of([(found_at(half, [0.01 * (i + 1) for i in range(40)]), true)])
    # Recall 0.5 is position 20; recall 0 does not count.
    assert float(metrics.space[0, 1]) == pytest.approx(0.5)
    assert metrics.space_precision[0, 1].tolist() == [1.0] * 21 + [0.0] * 20


def test_vans_are_neither_missed_nor_wrong_and_trucks_are_wrong():
    true = cars(80)
    for kind, expected in (("Van", 1.0), ("Truck", 0.5)):
        other = cars(80, kind)
        frames = [(found_at(true, [0.5] * 80), true), (found_at(other, [0.9] * 80), other)]
        assert float(metrics_of(frames).space[0, 0]) == pytest.approx(expected)


def test_boxes_that_are_too_low_in_the_image_are_left_out():
    low = cars(40, height=30.0)
    metrics = metrics_of([(found_at(low, [0.5] * 40), low), (found_at(cars(1), [0.4]), cars(1))])
    assert metrics.n_true[0].tolist() == [1, 41, 41]
    assert metrics.space[0].tolist() == pytest.approx([0.0, 1.0, 1.0])


def test_boxes_without_their_fields_are_refused():
    true = cars(2)
    bare = Detections(boxes_of(torch.zeros(0, 7), [], {}), torch.zeros(0))
    with pytest.raises(ValueError, match=r"found boxes need the fields .*image_box"):
        kitti_overlaps(bare, true)


def test_frames_without_boxes_have_no_numbers():
    nothing = found_at(cars(0), [])
    metrics = metrics_of([(nothing, cars(0))])
    assert bool(metrics.plane.isnan().all()) and math.isnan(metrics.means()["ap_plane_easy"])
    # All is missed.
    assert float(metrics_of([(nothing, cars(3))]).plane[0, 0]) == 0.0


def test_a_box_takes_the_detection_that_overlaps_it_most_not_the_first():
    """The first detection overlaps both cars enough, the second one only the car that chooses first."""
    true = cars(2)
    true.center[:, 0] = torch.tensor([0.0, 0.5])
    at = cars(2)
    at.center[:, 0] = torch.tensor([0.5, -0.3])
    true.yaw[:], at.yaw[:] = 0.0, 0.0
    metrics = metrics_of([(found_at(at, [0.5, 0.6]), true)] * 40)
    assert metrics.space[0].tolist() == [1.0] * 3


def test_a_detection_that_is_too_low_takes_a_box_whatever_its_class():
    """As in the benchmark: a surer one of another class hides the one that is right."""
    true = cars(80)
    right, low = found_at(true, [0.5] * 80), found_at(cars(80, height=20.0), [0.9] * 80, category=1)
    both = Detections(
        boxes_of(
            torch.cat([true.center, true.size, true.yaw[:, None]], 1).repeat(2, 1),
            [0] * 80 + [1] * 80,
            {"image_box": torch.cat([right.boxes.fields["image_box"], low.boxes.fields["image_box"]])},
        ),
        torch.cat([right.score, low.score]),
    )
    assert float(metrics_of([(right, true)]).space[0, 1]) == 1.0
    assert float(metrics_of([(both, true)]).space[0, 1]) == 0.0


@pytest.mark.parametrize("n_found", [1, 44, 45, 46, 47, 48, 100])
def test_the_lowest_score_of_a_right_detection_is_always_a_position(n_found):
    true = cars(100)
    found = found_at(true.take(torch.arange(n_found)), [1.0 - 0.005 * i for i in range(n_found)])
    expected, _ = textbook([(found, true)], "Car", 1, in_space=True)
    assert float(metrics_of([(found, true)]).space[0, 1]) == pytest.approx(expected, abs=1e-12)
