"""The result file of the nuScenes detection benchmark: written, read, and checked as its server does.

One JSON object: `meta` says what was used, `results` holds up to 500 boxes for each sample token:
`sample_token`, `translation` (centre in the world), `size` (width, length, height), `rotation` (w, x, y, z),
`velocity` (x, y), `detection_name`, `detection_score`, `attribute_name`. Metres, m/s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, DETECTION_NAMES
from ponderv2.datasets.nuscenes.detection_rules import (
    CLASS_ATTRIBUTES,
    MOST_BOXES,
    RANGE,
    default_attributes,
)
from ponderv2.datasets.nuscenes.world_boxes import KeyPose, KeyTruth, boxes_in_world
from ponderv2.errors import OutputError
from ponderv2.evaluation.nuscenes_detection import DetectionSample
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.io.files import replacement

VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
"""Fields of a box that are lists of numbers, and how many."""
FIELDS = ("sample_token", *VECTORS, "detection_name", "detection_score", "attribute_name")
LISTED = 3
"""Problems, and samples, that a message names."""


@dataclass(frozen=True)
class SubmissionMeta:
    """What the benchmark wants to know of the method."""

    use_camera: bool
    use_lidar: bool
    use_radar: bool = False
    use_map: bool = False
    use_external: bool = False
    """Other data sets, also for pre-training."""


@dataclass(frozen=True)
class Submission:
    """A result file that was read."""

    meta: SubmissionMeta
    detections: Mapping[str, Detections]
    """By sample token in the order of the file; in the world, double precision, the attribute is a field."""

    def samples(self, truths: Iterable[KeyTruth]) -> list[DetectionSample]:
        """What `detection_score` takes, in the order of the file. `truths`: of all its samples."""
        by_token = {one.pose.token: one for one in truths}
        return [
            DetectionSample(by_token[token].boxes, found, by_token[token].pose.ego_to_world)
            for token, found in self.detections.items()
        ]


def write_submission(path: Path, samples: Iterable[tuple[KeyPose, Detections]], meta: SubmissionMeta) -> Path:
    """Writes the file whole or not at all; detections are those of a key frame, in the frame of its scene.

    Of each sample the 500 surest boxes within the range of their class are kept. An attribute is the field of
    that name where the boxes have it and it is one of the class, otherwise that of class and speed.
    Velocities may be nan. Raises OutputError.
    """
    with replacement(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"meta": {json.dumps(asdict(meta))},\n"results": {{')
        for number, (pose, found) in enumerate(samples):
            stream.write(
                f"{',' if number else ''}\n{json.dumps(pose.token)}: {json.dumps(_rows(pose, found))}"
            )
        stream.write("\n}}\n")
    return path


def _rows(pose: KeyPose, found: Detections) -> list[dict[str, Any]]:
    """The boxes of a sample as the file holds them."""
    found = Detections(boxes_in_world(found.boxes, pose.scene_to_world), found.score)
    ranges = torch.tensor([RANGE[name] for name in DETECTION_NAMES], device=found.score.device)
    away = found.boxes.center[:, :2] - pose.ego_to_world[:2, 3].to(found.boxes.center)
    found = found.take(away.norm(dim=1) < ranges[found.boxes.category]).best(MOST_BOXES)
    boxes = found.boxes
    attributes = _attributes(boxes).tolist()
    half = boxes.yaw / 2
    nothing = torch.zeros_like(half)
    rotation = torch.stack([torch.cos(half), nothing, nothing, torch.sin(half)], dim=1)
    return [
        dict(zip(FIELDS, (pose.token, *row), strict=True))
        for row in zip(
            boxes.center.tolist(),
            boxes.size[:, [1, 0, 2]].tolist(),
            rotation.tolist(),
            boxes.velocity[:, :2].tolist(),
            [DETECTION_NAMES[one] for one in boxes.category.tolist()],
            found.score.tolist(),
            [ATTRIBUTES[one] if one >= 0 else "" for one in attributes],
            strict=True,
        )
    ]


def _attributes(boxes: Boxes) -> Tensor:
    """Attributes that the classes have; -1 = none."""
    usual = default_attributes(boxes.category, boxes.velocity)
    given = boxes.fields.get("attribute")
    if given is None:
        return usual
    allowed = torch.tensor(
        [[name in CLASS_ATTRIBUTES[one] for name in ATTRIBUTES] for one in DETECTION_NAMES],
        device=given.device,
    )
    right = (given >= 0) & allowed[boxes.category, given.clamp(min=0)]
    return torch.where(right, given, usual)


def read_submission(path: Path, tokens: Collection[str]) -> Submission:
    """A result file of any program. `tokens`: of the samples that the benchmark expects.

    Raises OutputError for what the server would refuse, and for attributes that a class cannot have: no JSON
    or another layout, samples that are missing or unknown, more than 500 boxes, unknown classes or
    attributes, numbers that are not finite (velocities may be nan), sizes or rotations of length 0.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            stored = json.load(stream, object_pairs_hook=_object)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("results"), dict | _Repeated):
        raise OutputError(f"{path} is no result file: expected an object with 'meta' and 'results'")
    results = stored["results"]
    problems: list[str] = []
    if isinstance(results, _Repeated):
        problems.append(f"{results.key}: the sample occurs twice")
        results = results.values
    meta = _meta(stored.get("meta"), problems)
    problems += _other_samples(results, set(tokens))
    found = {token: _detections(token, rows, problems) for token, rows in results.items()}
    if problems:
        listed = "; ".join(problems[:LISTED])
        more = len(problems) - LISTED
        raise OutputError(f"{path}: {listed}{f'; and {more} more problems' if more > 0 else ''}")
    return Submission(meta, found)


@dataclass(frozen=True)
class _Repeated:
    """An object of JSON that has a key twice."""

    key: str
    values: dict[str, Any]


@dataclass(frozen=True)
class _Row:
    """A box: numbers as they stand in the file, of VECTORS and the score."""

    token: Any
    numbers: np.ndarray
    category: int
    attribute: int


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """What is kept of an object of JSON; a box becomes a row, or a text that says what is wrong with it.

    It runs while the file is read, so that the millions of boxes of a split are never there as dictionaries.
    """
    found = dict(pairs)
    if "detection_name" in found or "translation" in found:
        return _row(found)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        return _Repeated(next(key for key in keys if keys.count(key) > 1), found)
    return found


def _row(box: dict[str, Any]) -> _Row | str:
    absent = [field for field in FIELDS if field not in box]
    if absent:
        return f"a box has no '{absent[0]}'"
    name, attribute = box["detection_name"], box["attribute_name"]
    if not isinstance(name, str) or name not in DETECTION_NAMES:
        return f"unknown class {name!r}"
    if attribute != "" and (not isinstance(attribute, str) or attribute not in ATTRIBUTES):
        return f"unknown attribute {attribute!r}"
    if attribute != "" and attribute not in CLASS_ATTRIBUTES[name]:
        return f"{name} cannot have the attribute '{attribute}'"
    wrong = _wrong_numbers(box, name)
    if wrong:
        return wrong
    numbers = [value for field in VECTORS for value in box[field]] + [box["detection_score"]]
    number = ATTRIBUTES.index(attribute) if attribute else -1
    return _Row(box["sample_token"], np.array(numbers, np.float64), DETECTION_NAMES.index(name), number)


def _wrong_numbers(box: dict[str, Any], name: str) -> str:
    """What is wrong with the numbers of a box; empty where nothing is."""
    for field, count in VECTORS.items():
        values = box[field]
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            return f"{field} has to be a list of {count} numbers"
        if not all(math.isfinite(one) or (field == "velocity" and math.isnan(one)) for one in values):
            return f"{field} of a {name} is not finite: {values}"
    if min(box["size"]) <= 0:
        return f"size of a {name} is not above 0: {box['size']}"
    if math.hypot(*box["rotation"]) < 1.0e-6:
        return f"rotation of a {name} has the length 0"
    score = box["detection_score"]
    if not _is_number(score) or not math.isfinite(score) or score < 0:
        return f"detection_score of a {name} has to be a number from 0 on: {score!r}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meta(stored: Any, problems: list[str]) -> SubmissionMeta:
    names = SubmissionMeta.__dataclass_fields__
    if not isinstance(stored, dict) or not all(isinstance(stored.get(name), bool) for name in names):
        problems.append(f"meta has to say true or false for {', '.join(names)}")
        return SubmissionMeta(False, False)
    return SubmissionMeta(**{name: stored[name] for name in names})


def _other_samples(results: Mapping[str, Any], tokens: set[str]) -> list[str]:
    missing, unknown = sorted(tokens - {*results}), sorted({*results} - tokens)
    problems = []
    for names, total, what in ((missing, tokens, "are missing"), (unknown, results, "are not of this split")):
        listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
        if names:
            problems.append(f"{len(names)} of {len(total)} samples {what}: {listed}")
    return problems


def _detections(token: str, rows: Any, problems: list[str]) -> Detections:
    """Of a sample; empty where something is wrong, which is added to the problems."""
    wrong = _wrong(token, rows)
    if wrong:
        problems.append(f"{token}: {wrong}")
        return Detections.empty()
    numbers = torch.from_numpy(np.array([one.numbers for one in rows], np.float64).reshape(-1, 13))
    center, size, rotation, velocity, score = numbers.split((3, 3, 4, 2, 1), dim=1)
    w, x, y, z = (rotation / rotation.norm(dim=1, keepdim=True)).unbind(dim=1)
    boxes = Boxes(
        center=center,
        size=size[:, [1, 0, 2]],
        yaw=torch.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)),
        velocity=torch.cat([velocity, torch.zeros_like(score)], dim=1),
        category=torch.tensor([one.category for one in rows], dtype=torch.long),
        instance=torch.full((len(rows),), -1, dtype=torch.long),
        fields={"attribute": torch.tensor([one.attribute for one in rows], dtype=torch.long)},
    )
    return Detections(boxes, score[:, 0])


def _wrong(token: str, rows: Any) -> str:
    if not isinstance(rows, list):
        return "expected a list of boxes"
    if len(rows) > MOST_BOXES:
        return f"{len(rows)} boxes, at most {MOST_BOXES} are allowed"
    for one in rows:
        if isinstance(one, str):
            return one
        if not isinstance(one, _Row):
            return f"a box has no '{FIELDS[1]}' and no 'detection_name'"
        if one.token != token:
            return f"a box has the sample_token {one.token!r}"
    return ""
