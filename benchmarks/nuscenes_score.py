"""The nuScenes detection score beside nuscenes-devkit, on one set of boxes.

Run: python -m benchmarks.nuscenes_score [--samples 600] [--boxes 300] [--repeats 5] [--json FILE]

Random key frames with as many predictions each, of which a part lies on annotated boxes. Measured alternately
from boxes in memory to all metrics: filters, matching of ten classes at four distances, errors, score. The
kit starts from its own box objects; the tables that it needs for its filters are stand-ins in memory, and
reading the submission and opening the data set are not counted. Where the kit cannot be imported, and with
`--ours`, only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.timing import side_by_side
from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, DETECTION_NAMES
from ponderv2.evaluation.nuscenes_detection import DetectionSample, detection_score
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections

TRUE_BOXES = 31
"""In a key frame; the validation set has 187,528 in 6,019."""
SHARES = (0.43, 0.08, 0.01, 0.01, 0.02, 0.13, 0.01, 0.01, 0.20, 0.10)
"""About those of the classes among annotated boxes, in the order of DETECTION_NAMES."""


def key_frames(n_samples: int, n_boxes: int) -> list[DetectionSample]:
    """Cars, pedestrians and so on around a vehicle at the origin, and predictions near and far from them."""
    rng = np.random.default_rng(0)
    return [_key_frame(rng, n_boxes) for _ in range(n_samples)]


def _key_frame(rng: np.random.Generator, n_boxes: int) -> DetectionSample:
    true = _boxes(rng, TRUE_BOXES)
    there = rng.integers(0, TRUE_BOXES, n_boxes // 4)
    found = _boxes(rng, n_boxes)
    near = torch.from_numpy(np.concatenate([there, np.full(n_boxes - len(there), -1)]))
    hit = near >= 0
    noise = torch.from_numpy(rng.normal(0, 1, (n_boxes, 3)))
    center = torch.where(hit[:, None], true.center[near] + noise, found.center)
    category = torch.where(hit, true.category[near], found.category)
    boxes = Boxes(center, found.size, found.yaw, found.velocity, category, found.instance, found.fields)
    score = torch.from_numpy(rng.uniform(0, 0.5, n_boxes)) + 0.3 * hit
    return DetectionSample(true, Detections(boxes, score), torch.eye(4, dtype=torch.float64))


def _boxes(rng: np.random.Generator, n: int) -> Boxes:
    return Boxes(
        center=torch.from_numpy(rng.uniform(-45, 45, (n, 3)) * (1, 1, 0.02)),
        size=torch.from_numpy(rng.uniform(0.5, 5.0, (n, 3))),
        yaw=torch.from_numpy(rng.uniform(-np.pi, np.pi, n)),
        velocity=torch.from_numpy(rng.normal(0, 3, (n, 3))),
        category=torch.from_numpy(rng.choice(len(DETECTION_NAMES), n, p=SHARES)),
        instance=torch.full((n,), -1),
        fields={"attribute": torch.from_numpy(rng.integers(0, len(ATTRIBUTES), n))},
    )


@dataclass
class KitTables:
    """What the filters of the kit ask of its tables: the vehicle at the origin, no bicycle rack."""

    def get(self, table: str, token: str) -> dict[str, Any]:
        """A record that leads to the origin."""
        if table == "sample":
            return {"data": {"LIDAR_TOP": token}, "anns": []}
        return {"ego_pose_token": token} if table == "sample_data" else {"translation": [0.0, 0.0, 0.0]}


def kit_boxes(samples: list[DetectionSample], found: bool) -> Any:
    """Boxes of the kit, of what was found or of what is there."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    made = EvalBoxes()
    for number, sample in enumerate(samples):
        boxes = sample.found.boxes if found else sample.truth
        score = sample.found.score if found else torch.full((len(boxes),), -1.0)
        half = (boxes.yaw / 2).tolist()
        rows = zip(
            boxes.center.tolist(),
            boxes.size[:, [1, 0, 2]].tolist(),
            half,
            boxes.velocity[:, :2].tolist(),
            boxes.category.tolist(),
            boxes.fields["attribute"].tolist(),
            score.tolist(),
            strict=True,
        )
        made.add_boxes(
            str(number),
            [
                DetectionBox(
                    sample_token=str(number),
                    translation=tuple(center),
                    size=tuple(size),
                    rotation=(float(np.cos(turn)), 0.0, 0.0, float(np.sin(turn))),
                    velocity=tuple(velocity),
                    detection_name=DETECTION_NAMES[category],
                    detection_score=one,
                    attribute_name=ATTRIBUTES[attribute],
                )
                for center, size, turn, velocity, category, attribute, one in rows
            ],
        )
    return made


def kit_score(found: Any, true: Any) -> dict[str, float]:
    """NDS and mAP of the kit, which works on lists of boxes of its own."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
    from nuscenes.eval.detection.evaluate import DetectionEval

    kit = DetectionEval.__new__(DetectionEval)
    kit.cfg, kit.verbose = config_factory("detection_cvpr_2019"), False
    tables = KitTables()
    counted = []
    for boxes in (found, true):
        own = copy(boxes)
        own.boxes = copy(boxes.boxes)  # the filters replace its lists
        counted.append(filter_eval_boxes(tables, add_center_dist(tables, own), kit.cfg.class_range))
    kit.pred_boxes, kit.gt_boxes = counted
    metrics, _ = kit.evaluate()
    return {"nds": metrics.nd_score, "map": metrics.mean_ap}


def compare(n_samples: int, n_boxes: int, repeats: int, alone: bool = False) -> dict[str, Any]:
    """Medians of seconds and their ratio; both must find the same score. `alone`: without the kit."""
    samples = key_frames(n_samples, n_boxes)
    ours = detection_score(samples).metrics()
    results: dict[str, Any] = {"samples": n_samples, "boxes": n_boxes, "nds": ours["nds"], "map": ours["map"]}
    try:
        found, true = (None, None) if alone else (kit_boxes(samples, True), kit_boxes(samples, False))
    except ImportError as error:
        results["not_measured"], found = f"nuscenes-devkit: {error}", None
    if found is None:
        (seconds,) = side_by_side([lambda: detection_score(samples)], repeats, clock=time.process_time)
        return results | {"seconds": median(seconds)}
    theirs = kit_score(found, true)
    assert all(abs(ours[name] - theirs[name]) < 1e-6 for name in theirs), (ours, theirs)
    runs = [lambda: detection_score(samples), lambda: kit_score(found, true)]
    mine, other = side_by_side(runs, repeats, clock=time.process_time)
    return results | {
        "seconds": median(mine),
        "kit_seconds": median(other),
        "ratio": median(b / a for a, b in zip(mine, other, strict=True)),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ours", action="store_true", help="without the kit")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = compare(options.samples, options.boxes, options.repeats, options.ours)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
