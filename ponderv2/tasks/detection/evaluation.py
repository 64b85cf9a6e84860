"""Detection on a split: average precision by IoU, the nuScenes detection score, files and pictures."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.datasets.nuscenes.classes import DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.world_boxes import KeyPose, KeyTruth, boxes_in_world, key_poses, key_truths
from ponderv2.errors import SceneError
from ponderv2.evaluation.box_average_precision import BoxMatches, BoxMetrics, box_matches, box_metrics
from ponderv2.evaluation.nuscenes_detection import ERRORS, DetectionSample, DetectionScore, detection_score
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.io.files import write_bytes
from ponderv2.scenes.scene import evenly_spread
from ponderv2.tasks.box_pictures import write_boxes, write_pictures
from ponderv2.tasks.detection.data import DetectionDataset, WholeScene
from ponderv2.tasks.detection.model import DetectionModel
from ponderv2.tasks.detection.nuscenes_submission import SubmissionMeta, write_submission
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult
from ponderv2.training.report import Reporter

MOST_PICTURES = 4
"""Scenes of a split that are drawn, evenly spread."""
MOST_CURVE_POINTS = 200


def detect_scene(model: DetectionModel, data: DetectionDataset, index: int) -> Detections:
    """What is found in a scene, in its frame as it was read."""
    return detect_whole(model, data.whole_scene(index))


@torch.no_grad()
def detect_whole(model: DetectionModel, whole: WholeScene) -> Detections:
    """What is found in a scene that was made ready, in its frame as it was read."""
    (found,) = model.detect(whole.batch.to(next(model.parameters()).device))
    return Detections(found.boxes.moved(whole.to_scene), found.score)


def run(request: EvaluationRequest, model: DetectionModel, report: Reporter) -> EvaluationResult:
    """Detects the objects of every scene of the split. Scenes without annotations are not counted.

    Raises:
        SceneError: nothing to do, as there are neither boxes nor a file to write; a submission is asked for
            that no benchmark takes.
        OutputError: something cannot be written.
    """
    if request.tta != "none":
        report.warn("objects are detected in one pass over each scene: --tta is for semantic segmentation")
    settings = request.settings(LabelledDataConfig, budget={}, class_balance=False)
    data = DetectionDataset(request.store, request.split, settings, classes=model.classes)
    benchmark = nuscenes_tables(request)
    if request.submission is not None and benchmark is None:
        raise SceneError(
            "--submission of a detector is for nuScenes with its ten classes",
            fix="--data with the folder of nuScenes itself, or leave --submission out",
        )
    seen = _detect_all(request, model, data, report)
    if not seen.matches and request.submission is None:
        raise SceneError(
            f"no scene of '{request.split}' has boxes to compare with", fix="choose another --split"
        )
    metrics = box_metrics(list(seen.matches.values()), len(model.classes))
    result_metrics = metrics.means() if seen.matches else {}
    rows = class_rows(metrics, model.classes) if seen.matches else []
    notes: tuple[str, ...] = ()
    if benchmark is not None:
        score = _benchmark_results(request, model, data, seen.found, benchmark)
        if score is not None:
            result_metrics |= score.metrics()
            add_score(rows, score, model.classes)
            notes = score.warnings
    write_curves(request.folder / "precision_recall.csv", metrics, model.classes)
    worst = worst_scenes(seen.matches, data, len(model.classes))
    _write_json(request.folder / "scenes.json", worst)
    return EvaluationResult(
        kind="detection",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics={name: value for name, value in result_metrics.items() if value == value},
        classes=rows,
        views=worst[:10],
        images=seen.images,
        submission=request.submission,
        milliseconds=1000.0 * median(seen.seconds),
        notes=list(notes),
    )


@dataclass
class _Findings:
    """What was found in the scenes of a split."""

    found: list[Detections] = field(default_factory=list)
    matches: dict[int, BoxMatches] = field(default_factory=dict)
    """Of the scenes that are annotated."""
    seconds: list[float] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)


def _detect_all(
    request: EvaluationRequest, model: DetectionModel, data: DetectionDataset, report: Reporter
) -> _Findings:
    """Detects scene by scene; some are drawn on the way, and all are exported where that is asked for."""
    seen = _Findings()
    pictured = evenly_spread(range(len(data)), MOST_PICTURES)
    for index in report.track(range(len(data)), f"detecting objects of {request.split}", len(data)):
        started = time.perf_counter()
        found = detect_scene(model, data, index)
        seen.seconds.append(time.perf_counter() - started)
        seen.found.append(found)
        truth = _truth(data, index)
        if truth is not None:
            seen.matches[index] = box_matches(found, truth)
        surest = found.take(found.score >= model.config.head.shown_score)
        if index in pictured:
            scene = data.store.read(data.names[index], data.split, labels=False, frames="all")
            seen.images += write_pictures(request.folder, scene, surest, truth, model.classes)
        if request.export is not None:
            write_boxes(request.export / f"{data.names[index].replace('/', '_')}.ply", surest)
    return seen


def _truth(data: DetectionDataset, index: int) -> Boxes | None:
    try:
        return data.truth(index)
    except SceneError:
        if data.split == "test":
            return None
        raise


def class_rows(metrics: BoxMetrics, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class: its name, annotated boxes, average precisions and recalls in 0..1."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(classes):
        row: dict[str, Any] = {"class": name, "boxes": int(metrics.n_true[number])}
        for column, threshold in enumerate(metrics.thresholds):
            row[f"ap{100 * threshold:.0f}"] = float(metrics.ap[number, column])
            row[f"recall{100 * threshold:.0f}"] = float(metrics.recall[number, column])
        rows.append(row)
    return rows


def worst_scenes(
    matches: Mapping[int, BoxMatches], data: DetectionDataset, n_classes: int
) -> list[dict[str, Any]]:
    """Scenes by their own mean average precision at an IoU of 0.25, the worst first."""
    rows = []
    for index, one in matches.items():
        means = box_metrics([one], n_classes).means()
        rows.append(
            {
                "scene": data.names[index],
                "boxes": len(one.true_category),
                "found": len(one.score),
                "map25": means["map25"],
                "map50": means["map50"],
            }
        )
    return sorted(rows, key=lambda row: (row["map25"] != row["map25"], row["map25"]))


def write_curves(path: Path, metrics: BoxMetrics, classes: Sequence[str]) -> None:
    """Precision and recall of every class at every threshold, as rows. Raises OutputError."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["class", "iou", "score", "precision", "recall"])
    for name, curves in zip(classes, metrics.curves, strict=True):
        for threshold, curve in zip(metrics.thresholds, curves, strict=True):
            for at in evenly_spread(range(len(curve.score)), MOST_CURVE_POINTS):
                numbers = (curve.score[at], curve.precision[at], curve.recall[at])
                writer.writerow([name, threshold, *(f"{float(one):.6f}" for one in numbers)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue().encode())


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    write_bytes(path, json.dumps(plain, indent=1).encode())


# -------------------------------------------------------------------------------------------------- nuScenes


def nuscenes_tables(
    request: EvaluationRequest,
) -> tuple[Mapping[str, KeyPose], Mapping[str, KeyTruth]] | None:
    """Poses and annotations of the key frames of a split, where the scenes are read from tables of nuScenes;
    no annotations of a test split."""
    root = request.store.root
    if not NuscenesConfig.is_in_place(root):
        return None
    config = NuscenesConfig(path=root)
    poses: dict[str, KeyPose] = {}
    truths: dict[str, KeyTruth] = {}
    for split in request.split.split("+"):
        poses |= key_poses(config, split)
        if split != "test":
            truths |= key_truths(config, split)
    return poses, truths


def _benchmark_results(
    request: EvaluationRequest,
    model: DetectionModel,
    data: DetectionDataset,
    found: Sequence[Detections],
    benchmark: tuple[Mapping[str, KeyPose], Mapping[str, KeyTruth]],
) -> DetectionScore | None:
    """Writes the submission where it is asked for; the score where the split is annotated."""
    poses, truths = benchmark
    names = [_key(name, poses) for name in data.names]
    if request.submission is not None:
        samples = [
            (poses[name], _benchmark_classes(one, model.classes))
            for name, one in zip(names, found, strict=True)
        ]
        write_submission(request.submission, samples, _meta(model))
    return nuscenes_score(names, found, model.classes, poses, truths) if truths else None


def _key(name: str, poses: Mapping[str, KeyPose]) -> str:
    """The name of a key frame; of several splits scenes have their split before it."""
    return name if name in poses else name.split("/", 1)[1]


def nuscenes_score(
    names: Sequence[str],
    found: Sequence[Detections],
    classes: Sequence[str],
    poses: Mapping[str, KeyPose],
    truths: Mapping[str, KeyTruth],
) -> DetectionScore:
    """The score of the key frames of these names; classes of no benchmark do not count."""
    samples = []
    for name, one in zip(names, found, strict=True):
        one = _benchmark_classes(one, classes)
        there = boxes_in_world(one.boxes, poses[name].scene_to_world)
        samples.append(
            DetectionSample(truths[name].boxes, Detections(there, one.score), poses[name].ego_to_world)
        )
    return detection_score(samples)


def _benchmark_classes(found: Detections, classes: Sequence[str]) -> Detections:
    """Detections whose classes count those of the benchmark; others are dropped."""
    numbers = [DETECTION_NAMES.index(one) if one in DETECTION_NAMES else -1 for one in classes]
    category = torch.tensor([*numbers, -1])[found.boxes.category]
    boxes = found.boxes
    renamed = Boxes(
        boxes.center, boxes.size, boxes.yaw, boxes.velocity, category, boxes.instance, boxes.fields
    )
    return Detections(renamed, found.score).take(category >= 0)


def add_score(rows: list[dict[str, Any]], score: DetectionScore, classes: Sequence[str]) -> None:
    """The average precision by distance, and the errors, of each class beside its other numbers."""
    for row, name in zip(rows, classes, strict=True):
        if name not in DETECTION_NAMES:
            continue
        number = DETECTION_NAMES.index(name)
        row["ap"] = float(score.ap[number].mean())
        row |= {error: float(score.errors[number, at]) for at, error in enumerate(ERRORS)}


def _meta(model: DetectionModel) -> SubmissionMeta:
    needs = model.encoder_config.needs
    return SubmissionMeta(use_camera=needs != "points", use_lidar=needs != "images", use_external=True)
