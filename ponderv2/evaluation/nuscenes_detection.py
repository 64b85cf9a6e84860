"""The nuScenes detection score: average precision by distance of centres, errors of what was found, NDS.

Computed as nuscenes-devkit 1.2.0 does with its settings of 2019 (Caesar et al. 2020, arXiv 1903.11027), which
the tests compare with. All boxes are those of the world (`datasets/nuscenes/world_boxes.py`): z is vertical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray
from torch import Tensor

from ponderv2.datasets.nuscenes.classes import DETECTION_NAMES
from ponderv2.datasets.nuscenes.detection_rules import CYCLES, RACK, RANGE, default_attributes
from ponderv2.datasets.nuscenes.world_boxes import KeyPose, boxes_in_world
from ponderv2.evaluation.box_conventions import convention_warnings, size_errors, yaw_errors
from ponderv2.evaluation.nuscenes_matching import BoxTable, by_score, match
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Metres between centres of a match; average precision is the mean over these."""
ERROR_DISTANCE = 2.0
"""Metres; errors are those of matches nearer than this."""
ERRORS = ("ate", "ase", "aoe", "ave", "aae")
"""Of translation (m), size (1 - IoU), orientation (rad), velocity (m/s) and attribute (share)."""
WITHOUT = {"traffic_cone": ("aoe", "ave", "aae"), "barrier": ("ave", "aae")}
"""Errors that a class does not have."""
RECALLS = np.linspace(0.0, 1.0, 101)
FIRST = 11
"""Index of the first recall that counts: above 10 %."""
LEAST_PRECISION = 0.1
AP_WEIGHT = 5.0
"""Of mean average precision in NDS, where each error has weight 1."""
HALF_TURN = ("barrier",)
"""Classes without front and back."""


@dataclass(frozen=True)
class DetectionSample:
    """One key frame in the world frame: what is there, and what was found."""

    truth: Boxes
    """With those of no class (-1). `fields` that count where they are there: attribute, n_lidar and n_radar
    (of a box without any point nothing is expected), source_category (bicycle racks)."""
    found: Detections
    """`boxes.fields` may hold the attribute; otherwise it follows from class and speed."""
    ego_to_world: Float[Tensor, "4 4"]
    """Of the vehicle: ranges are counted from it."""

    @staticmethod
    def of_scene(truth: Boxes, found: Detections, pose: KeyPose) -> DetectionSample:
        """Of boxes in the frame of the scene of a key frame."""
        there = boxes_in_world(found.boxes, pose.scene_to_world)
        return DetectionSample(
            boxes_in_world(truth, pose.scene_to_world), Detections(there, found.score), pose.ego_to_world
        )


@dataclass(frozen=True)
class DetectionScore:
    """Per class, in the order of DETECTION_NAMES. Classes that do not occur have AP 0 and errors 1."""

    ap: Float64[Tensor, "class distance"]
    """0..1, for each of DISTANCES."""
    errors: Float64[Tensor, "class error"]
    """In the order of ERRORS, smaller is better; nan where a class has no such error."""
    n_true: Int[Tensor, " class"]
    """Boxes that count: within range, with points, cycles in no rack."""
    n_found: Int[Tensor, " class"]
    """Predictions within range."""
    warnings: tuple[str, ...]
    """Conventions that would explain the errors, if boxes were meant so."""

    @property
    def mean_ap(self) -> float:
        """Over distances and all ten classes."""
        return float(self.ap.mean())

    @property
    def mean_errors(self) -> dict[str, float]:
        """By name, over the classes that have such an error."""
        return {name: float(self.errors[:, at].nanmean()) for at, name in enumerate(ERRORS)}

    @property
    def nds(self) -> float:
        """(5 mAP + sum of max(0, 1 - error)) / 10."""
        right = sum(max(0.0, 1.0 - error) for error in self.mean_errors.values())
        return (AP_WEIGHT * self.mean_ap + right) / (AP_WEIGHT + len(ERRORS))

    def metrics(self) -> dict[str, float]:
        """nds, map, mate, mase, maoe, mave, maae."""
        return {
            "nds": self.nds,
            "map": self.mean_ap,
            **{f"m{name}": error for name, error in self.mean_errors.items()},
        }


def detection_score(samples: Sequence[DetectionSample]) -> DetectionScore:
    """The score of all samples together, which come in the order of the submission: it decides ties.

    Raises ValueError for predictions of no class or whose numbers (but velocities) are not finite.
    """
    found, true = found_table(samples), true_table(samples)
    ap = np.zeros((len(DETECTION_NAMES), len(DISTANCES)))
    errors = np.ones((len(DETECTION_NAMES), len(ERRORS)))
    matched: list[tuple[BoxTable, BoxTable]] = []
    for category, name in enumerate(DETECTION_NAMES):
        own, expected = found.take(found.category == category), true.take(true.category == category)
        partner = match(own, expected, DISTANCES)
        order = by_score(own.score)
        for column, row in enumerate(partner[:, order]):
            ap[category, column] = average_precision(row >= 0, len(expected))
        row = partner[DISTANCES.index(ERROR_DISTANCE)]
        hits = order[row[order] >= 0]
        pair = own.take(hits), expected.take(row[hits])
        matched.append(pair)
        if len(hits):
            confidence = _at_recalls(row[order] >= 0, len(expected), own.score[order])
            errors[category] = [_mean_error(one, own.score[hits], confidence) for one in _errors(name, *pair)]
        for error in WITHOUT.get(name, ()):
            errors[category, ERRORS.index(error)] = np.nan
    headings = np.array([_heading(sample.ego_to_world) for sample in samples])
    return DetectionScore(
        ap=torch.from_numpy(ap),
        errors=torch.from_numpy(errors),
        n_true=torch.from_numpy(np.bincount(true.category, minlength=len(DETECTION_NAMES))),
        n_found=torch.from_numpy(np.bincount(found.category, minlength=len(DETECTION_NAMES))),
        warnings=convention_warnings(
            {
                name: pair
                for name, pair in zip(DETECTION_NAMES, matched, strict=True)
                if "aoe" not in WITHOUT.get(name, ())
            },
            headings,
            HALF_TURN,
        ),
    )


def average_precision(right: Bool[ndarray, " found"], n_true: int) -> float:
    """Of predictions by score: mean of precision above 0.1 over recalls above 0.1; 0 without a match."""
    if not right.any():
        return 0.0
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    above = np.maximum(_at_recalls(right, n_true, precision)[FIRST:] - LEAST_PRECISION, 0.0)
    return float(above.mean()) / (1.0 - LEAST_PRECISION)


def _at_recalls(
    right: Bool[ndarray, " found"], n_true: int, values: Float64[ndarray, " found"]
) -> Float64[ndarray, "101"]:
    """Values of a curve over recall, linear between predictions, 0 beyond the last."""
    return np.interp(RECALLS, np.cumsum(right) / n_true, values, right=0)


def _errors(name: str, found: BoxTable, true: BoxTable) -> list[Float64[ndarray, " match"]]:
    """Of each match, in the order of ERRORS; nan = not known."""
    away = found.center[:, :2] - true.center[:, :2]
    speed = found.velocity - true.velocity
    period = np.pi if name in HALF_TURN else 2 * np.pi
    attribute = np.where(true.attribute < 0, np.nan, found.attribute != true.attribute)
    return [
        np.sqrt((away**2).sum(axis=1)),
        size_errors(found.size, true.size),
        yaw_errors(found.yaw, true.yaw, period),
        np.sqrt((speed**2).sum(axis=1)),
        attribute,
    ]


def _mean_error(
    error: Float64[ndarray, " match"],
    score: Float64[ndarray, " match"],
    confidence: Float64[ndarray, "101"],
) -> float:
    """Mean over recalls above 0.1 of the mean error of all surer matches; 1 if recall stays below that."""
    known = ~np.isnan(error)
    count = np.cumsum(known)
    running = (
        np.divide(np.nancumsum(error), count, out=np.zeros(len(error)), where=count > 0)
        if known.any()
        else np.ones(len(error))
    )
    curve = np.interp(confidence[::-1], score[::-1], running[::-1])[::-1]
    last = int(np.flatnonzero(confidence)[-1]) if confidence.any() else 0
    return 1.0 if last < FIRST else float(curve[FIRST : last + 1].mean())


def found_table(samples: Sequence[DetectionSample]) -> BoxTable:
    """Predictions that count, in order. Raises ValueError."""
    detections = [sample.found for sample in samples]
    boxes = [one.boxes for one in detections]
    for one in detections:
        _check(one)
    attribute = [_attribute(one) for one in boxes]
    table = _table(boxes, attribute, [one.score for one in detections])
    return table.take(_counts(table, samples))


def true_table(samples: Sequence[DetectionSample]) -> BoxTable:
    """Annotated boxes that count, in order: of a class, within range, with a point, cycles in no rack."""
    boxes = [sample.truth for sample in samples]
    absent = [torch.full((len(one),), -1, dtype=torch.long) for one in boxes]
    attribute = [one.fields.get("attribute", none) for one, none in zip(boxes, absent, strict=True)]
    points = [
        one.fields.get("n_lidar", none) + one.fields.get("n_radar", 0 * none)
        for one, none in zip(boxes, absent, strict=True)
    ]
    table = _table(boxes, attribute, [torch.zeros(len(one)) for one in boxes])
    return table.take(_counts(table, samples) & (_joined(points, np.int64) != 0))


def _check(one: Detections) -> None:
    category = one.boxes.category
    if len(category) and not 0 <= int(category.min()) <= int(category.max()) < len(DETECTION_NAMES):
        raise ValueError(f"expected classes 0..{len(DETECTION_NAMES) - 1}, got {category.unique().tolist()}")
    numbers = [one.boxes.center, one.boxes.size, one.boxes.yaw[:, None], one.score[:, None]]
    if not all(bool(torch.isfinite(values).all()) for values in numbers):
        raise ValueError("expected finite centres, sizes, yaws and scores")
    if bool((one.boxes.size <= 0).any()):
        raise ValueError(f"expected sizes above 0, got {float(one.boxes.size.min())}")


def _attribute(boxes: Boxes) -> Int[Tensor, " box"]:
    if "attribute" in boxes.fields:
        return boxes.fields["attribute"]
    return default_attributes(boxes.category, boxes.velocity)


def _table(boxes: Sequence[Boxes], attribute: Sequence[Tensor], score: Sequence[Tensor]) -> BoxTable:
    return BoxTable(
        sample=np.repeat(np.arange(len(boxes)), [len(one) for one in boxes]),
        center=_joined([one.center for one in boxes]).reshape(-1, 3),
        size=_joined([one.size for one in boxes]).reshape(-1, 3),
        yaw=_joined([one.yaw for one in boxes]),
        velocity=_joined([one.velocity[:, :2] for one in boxes]).reshape(-1, 2),
        category=_joined([one.category for one in boxes], np.int64),
        attribute=_joined(attribute, np.int64),
        score=_joined(score),
    )


def _joined(parts: Sequence[Tensor], dtype: type = np.float64) -> ndarray:
    arrays = [one.detach().cpu().numpy().astype(dtype) for one in parts]
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


def _counts(table: BoxTable, samples: Sequence[DetectionSample]) -> Bool[ndarray, " box"]:
    """Of a class, within its range, and no cycle in a rack."""
    ranges = np.array([RANGE[name] for name in DETECTION_NAMES])
    ego = np.array([sample.ego_to_world[:2, 3].double().tolist() for sample in samples]).reshape(-1, 2)
    away = table.center[:, :2] - ego[table.sample]
    near = np.sqrt((away**2).sum(axis=1)) < ranges[np.maximum(table.category, 0)]
    return (table.category >= 0) & near & ~_in_rack(table, samples)


def _in_rack(table: BoxTable, samples: Sequence[DetectionSample]) -> Bool[ndarray, " box"]:
    """Cycles whose centre lies in a bicycle rack or on its faces."""
    cycle = np.isin(table.category, [DETECTION_NAMES.index(name) for name in CYCLES])
    found = np.zeros(len(table), bool)
    for number, sample in enumerate(samples):
        source = sample.truth.fields.get("source_category")
        if source is None or not bool((source == RACK).any()):
            continue
        start, end = np.searchsorted(table.sample, [number, number + 1])
        here = start + np.flatnonzero(cycle[start:end])
        racks = sample.truth.take(source == RACK)
        inside = racks.contains(torch.from_numpy(table.center[here]).to(racks.center.device))
        found[here] = inside.any(dim=0).cpu().numpy()
    return found


def _heading(pose: Float[Tensor, "4 4"]) -> float:
    return float(torch.atan2(pose[1, 0].double(), pose[0, 0].double()))
