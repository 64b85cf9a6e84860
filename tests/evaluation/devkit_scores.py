"""Scores of nuscenes-devkit for random crowds, kept in `devkit_scores.json`.

`python -m tests.evaluation.devkit_scores` writes them again; the kit is installed without what it asks for:
`pip install --no-deps -c constraints.txt nuscenes-devkit opencv-python-headless cachetools`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ponderv2.datasets.nuscenes.classes import DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.detection_rules import MOST_BOXES, RANGE
from ponderv2.datasets.nuscenes.world_boxes import KeyTruth
from ponderv2.evaluation.nuscenes_detection import DISTANCES, ERRORS, DetectionScore
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.tasks.detection.nuscenes_submission import SubmissionMeta, write_submission
from tests.datasets.drives.crowded_drives import guesses, truths_of, write_crowd

STORED = Path(__file__).with_suffix(".json")
KIT_ERRORS = dict(zip(ERRORS, ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err"), strict=True))
META = SubmissionMeta(use_camera=False, use_lidar=True)


@dataclass(frozen=True)
class Case:
    """Annotations of drives, and predictions of each key frame in the frame of its scene."""

    config: NuscenesConfig
    truths: list[KeyTruth]
    found: list[Detections]
    version: str = "v1.0-mini"
    split: str = "mini_val"

    def write(self, path: Path) -> Path:
        """The submission."""
        return write_submission(path, zip([one.pose for one in self.truths], self.found, strict=True), META)


def make_case(name: str, root: Path) -> Case:
    """A crowd by its name in CASES."""
    return CASES[name](root)


def _crowd(root: Path) -> Case:
    config = write_crowd(root, 1)
    truths = truths_of(config)
    return Case(config, truths, [guesses(one, 10 + number) for number, one in enumerate(truths)])


def _sparse(root: Path) -> Case:
    """Classes without truth, classes without predictions, samples without either, few matches."""
    config = write_crowd(root, 2, per_class=2, without=("bus", "barrier", "trailer"))
    truths = truths_of(config)
    found = [guesses(one, 20 + number, ("car", "trailer"), false=8) for number, one in enumerate(truths)]
    return Case(config, truths, [Detections.empty(), *found[1:-1], Detections.empty()])


def _full(root: Path) -> Case:
    """Samples of 500 boxes, and every velocity unknown."""
    config = write_crowd(root, 3, n_samples=3)
    truths = truths_of(config)
    found = [guesses(one, 30 + number, false=1500) for number, one in enumerate(truths)]
    return Case(config, truths, [_within_range(one, MOST_BOXES) for one in found])


def _within_range(found: Detections, number: int) -> Detections:
    """The first within the range of their class, with velocities that are not known."""
    ranges = torch.tensor([RANGE[name] for name in DETECTION_NAMES])[found.boxes.category]
    inside = (
        found.boxes.center[:, :2].norm(dim=1) < ranges - 2.0
    )  # the LiDAR is 1 m from the vehicle's origin
    kept = found.take(inside.nonzero()[:number, 0])
    assert len(kept) == number
    boxes = kept.boxes
    unknown = torch.full_like(boxes.velocity, torch.nan)
    return Detections(
        Boxes(boxes.center, boxes.size, boxes.yaw, unknown, boxes.category, boxes.instance, boxes.fields),
        kept.score,
    )


CASES = {"crowd": _crowd, "sparse": _sparse, "full": _full}


def kit_scores(case: Case, submission: Path, folder: Path) -> dict[str, float]:
    """Every metric of the kit by name."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    root = case.config.path
    tables = NuScenes(version=case.version, dataroot=str(root), verbose=False)
    settings = config_factory("detection_cvpr_2019")
    kit = DetectionEval(tables, settings, str(submission), case.split, str(folder), verbose=False)
    found, _ = kit.evaluate()
    scores = {"nds": found.nd_score, "map": found.mean_ap}
    scores |= {f"m{name}": found.tp_errors[theirs] for name, theirs in KIT_ERRORS.items()}
    for label in DETECTION_NAMES:
        scores |= {f"{label} {one}": found.get_label_ap(label, one) for one in DISTANCES}
        scores |= {f"{label} {one}": found.get_label_tp(label, kit) for one, kit in KIT_ERRORS.items()}
    return {name: float(value) for name, value in scores.items()}


def our_scores(score: DetectionScore) -> dict[str, float]:
    """Every metric of ours by the same names."""
    scores = score.metrics()
    for number, label in enumerate(DETECTION_NAMES):
        scores |= {f"{label} {one}": float(score.ap[number, at]) for at, one in enumerate(DISTANCES)}
        scores |= {f"{label} {one}": float(score.errors[number, at]) for at, one in enumerate(ERRORS)}
    return scores


def main() -> None:
    stored = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(name, Path(folder) / "data")
            submission = case.write(Path(folder) / "submission.json")
            stored[name] = kit_scores(case, submission, Path(folder) / "kit")
    STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
