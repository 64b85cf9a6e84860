"""Semantic segmentation of a split: metrics, tables, and files for a benchmark's server."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.fragments import HALVED, TEST_SETS
from ponderv2.datasets.benchmarks import Benchmark
from ponderv2.errors import OutputError
from ponderv2.evaluation.semantic import confusion_matrix, named_metrics, segmentation_metrics
from ponderv2.reconstruction.images import write_rgb
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import PointCloud
from ponderv2.tasks.images import confusion_image
from ponderv2.tasks.labelled_points import benchmark_for, class_names, refuse_other_classes
from ponderv2.tasks.prediction_clouds import SceneExport, export_scene
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.segmentation.predictions import PredictionCache, predicted_classes
from ponderv2.tasks.segmentation.scan_pictures import pictured, write_pictures
from ponderv2.tasks.segmentation.scan_submission import (
    check_scans,
    n_measured,
    nuscenes_format,
    nuscenes_member,
    semantickitti_format,
    semantickitti_member,
    write_scans,
)
from ponderv2.tasks.segmentation.submission import check_submission, write_submission
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult
from ponderv2.training.report import Reporter

MOST_CLASSES_IN_A_PICTURE = 64


def run(request: EvaluationRequest, model: SegmentationModel, report: Reporter) -> EvaluationResult:
    """Segments every scene of the split. Scenes without labels are segmented and not counted.

    Raises:
        SceneError: classes that the model does not know; no benchmark takes its classes; nothing to do, as
            there are neither labels nor a file to write.
        OutputError: something cannot be written, or a written submission is not as the benchmark wants it.
    """
    settings = request.settings(LabelledDataConfig, budget={})
    data = LabelledDataset(request.store, request.split, settings)
    names = class_names(request.stored, model.classes_of(data.condition), data)
    benchmark = benchmark_for(request, names, scans=True)
    _check_labels(data, len(names), request)
    confusion, seconds, predictions = _segment(request, model, data, report)
    counted = int(confusion.sum()) > 0
    if request.submission is not None and benchmark is not None:
        _submit(request, benchmark, data, predictions)
    images = []
    if counted and len(names) <= MOST_CLASSES_IN_A_PICTURE:
        images = [write_rgb(request.folder / "confusion.png", confusion_image(confusion, names))]
    for index in pictured(data):
        classes = predictions.read(data.names[index], data.scene(index).cloud)
        images += write_pictures(request.folder, data, index, classes)
    return EvaluationResult(
        kind="segmentation",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics=_metrics(confusion, benchmark) if counted else {},
        tta=request.tta,
        classes=class_table(confusion, names) if counted else [],
        images=images,
        submission=request.submission,
        n_reused=len(data) - len(seconds),
        milliseconds=1000.0 * median(seconds) if seconds else None,
    )


def _metrics(
    confusion: Int[Tensor, "true_class predicted_class"], benchmark: Benchmark | None
) -> dict[str, float]:
    if benchmark is None:
        return named_metrics(confusion)
    return named_metrics(confusion, benchmark.groups, benchmark.counts_predicted)


@dataclass(frozen=True)
class _Predictions:
    """Where the classes of each scene are kept."""

    cache: PredictionCache

    def read(self, name: str, cloud: PointCloud) -> Int[Tensor, " point"]:
        """Class of every point of a scene that was segmented."""
        classes = self.cache.read(name, cloud)
        if classes is None:
            raise OutputError(f"the predictions of '{name}' in {self.cache.folder} were removed meanwhile")
        return classes


def _segment(
    request: EvaluationRequest, model: SegmentationModel, data: LabelledDataset, report: Reporter
) -> tuple[Int[Tensor, "true_class predicted_class"], list[float], _Predictions]:
    """Confusion matrix of the scenes with labels, and the seconds of those that were not segmented before."""
    views = TEST_SETS[request.tta]
    n_classes = model.classes_of(data.condition)
    cache = PredictionCache.of(
        request.folder / "predictions", request.stored.digest, _conditions(request, data)
    )
    total, steps = torch.zeros(n_classes, n_classes, dtype=torch.int64), max(1, len(views))
    seconds: list[float] = []
    with report.progress(f"segmenting {request.split}", len(data) * steps) as display:
        for index, name in enumerate(data.names):
            cloud = data.scene(index).cloud
            classes = cache.read(name, cloud) if request.reuse else None
            if classes is None:
                started = time.perf_counter()
                halved = request.tta in HALVED
                classes = predicted_classes(model, data, index, views, display.advance, halved)
                seconds.append(time.perf_counter() - started)
                cache.write(name, cloud, classes)
                display.advance(0 if views else 1)
            else:
                display.advance(steps)
            if request.export is not None:
                export_scene(request.export, data, index, SceneExport(classes))
            truth = cloud.labels.get(data.label_field)
            if truth is not None:
                total += confusion_matrix(classes, truth.long(), n_classes)
    return total, seconds, _Predictions(cache)


def _conditions(request: EvaluationRequest, data: LabelledDataset) -> dict[str, Any]:
    """What beside weights and points decides about the predictions."""
    shaping = {"voxel", "features", *_DRIVES} if _of_drives(data) else {"voxel", "features"}
    seen = data.config.model_dump(mode="json", include=shaping)
    return {"tta": request.tta, "condition": data.condition, **seen}


_DRIVES = ("fields", "scales", "centred", "clip", "sweeps")
"""Settings that rooms leave at their defaults."""


def _of_drives(data: LabelledDataset) -> bool:
    usual = LabelledDataConfig()
    return any(getattr(data.config, name) != getattr(usual, name) for name in _DRIVES)


def _submit(
    request: EvaluationRequest, benchmark: Benchmark, data: LabelledDataset, predictions: _Predictions
) -> None:
    """Writes the archive, and reads it again as the benchmark's server would."""
    assert request.submission is not None
    if benchmark.files != "text":
        _submit_scans(request.submission, benchmark, data, predictions)
        return
    ids = torch.tensor(benchmark.label_ids)

    def scenes():
        for index, name in enumerate(data.names):
            yield name, ids[predictions.read(name, data.scene(index).cloud)]

    write_submission(request.submission, scenes())
    n_vertices = {name: _n_vertices(request.store, data, index) for index, name in enumerate(data.names)}
    problems = check_submission(request.submission, n_vertices, benchmark.label_ids)
    if problems:
        raise OutputError(
            f"{request.submission} is not what {benchmark.name} wants: {problems[0]}",
            fix="prepare the scenes from the benchmark's own meshes",
        )


def _submit_scans(path: Path, benchmark: Benchmark, data: LabelledDataset, predictions: _Predictions) -> None:
    """The same with a file per scan."""
    ids = np.array(benchmark.label_ids)
    nuscenes = benchmark.files == "nuscenes"
    wanted = (
        nuscenes_format(data.split, benchmark.label_ids)
        if nuscenes
        else semantickitti_format(benchmark.label_ids)
    )
    n_points: dict[str, int] = {}

    def scans():
        for index, name in enumerate(data.names):
            scene = data.scene(index)
            member = nuscenes_member(scene, data.split) if nuscenes else semantickitti_member(scene)
            n_points[member] = n_measured(scene)
            yield member, ids[predictions.read(name, scene.cloud).numpy()]

    write_scans(path, scans(), wanted)
    problems = check_scans(path, n_points, wanted)
    if problems:
        raise OutputError(
            f"{path} is not what {benchmark.name} wants: {problems[0]}",
            fix="points that are not finite are left out of scenes: repair the scan",
        )


def _n_vertices(store: SceneFolders, data: LabelledDataset, index: int) -> int:
    """Of the mesh where the store has it, else the number of points."""
    mesh = store.mesh_path(data.names[index], data.split)
    n_vertices = None if mesh is None else vertices_in_header(mesh.read_bytes()[:4096])
    return len(data.scene(index).cloud) if n_vertices is None else n_vertices


def vertices_in_header(start: bytes) -> int | None:
    """What a PLY file says of its number of vertices; None where it does not."""
    for line in start.split(b"end_header")[0].splitlines():
        words = line.split()
        if words[:2] == [b"element", b"vertex"] and len(words) == 3 and words[2].isdigit():
            return int(words[2])
    return None


def class_table(
    confusion: Int[Tensor, "true_class predicted_class"], names: list[str]
) -> list[dict[str, Any]]:
    """One row per class; `iou` and `accuracy` are nan for classes that do not occur."""
    metrics = segmentation_metrics(confusion, skip_absent=True)
    truth, hit = confusion.sum(dim=1), confusion.diagonal()
    union = truth + confusion.sum(dim=0) - hit
    columns = (names, metrics.iou, metrics.accuracy, truth, hit, union)
    keys = ("class", "iou", "accuracy", "points", "intersection", "union")
    lists = [column if isinstance(column, list) else column.tolist() for column in columns]
    return [dict(zip(keys, row, strict=True)) for row in zip(*lists, strict=True)]


def _check_labels(data: LabelledDataset, n_classes: int, request: EvaluationRequest) -> None:
    """Raises SceneError where there is nothing to do, or the first scene has classes that are not known."""
    labels = data.scene(0).cloud.labels.get(data.label_field)
    if labels is None:
        if request.submission is None and request.export is None:
            data.labelled_scene(0)
        return
    refuse_other_classes(request.stored, data, labels, n_classes)
