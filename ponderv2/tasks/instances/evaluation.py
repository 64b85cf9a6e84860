"""Instance segmentation of a split: average precision, images of the instances, files for a benchmark's
server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.datasets.benchmarks import Benchmark
from ponderv2.errors import OutputError, SceneError
from ponderv2.evaluation.instances import (
    MIN_POINTS,
    InstanceMetrics,
    InstanceOverlaps,
    PredictedInstances,
    instance_metrics,
)
from ponderv2.evaluation.semantic import confusion_matrix, segmentation_metrics
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.instances.predictions import (
    SceneInstances,
    has_instances,
    overlaps_of_scene,
    predict_scene_instances,
)
from ponderv2.tasks.instances.submission import check_instance_submission, write_instance_submission
from ponderv2.tasks.labelled_points import benchmark_for, class_names, refuse_other_classes
from ponderv2.tasks.prediction_clouds import SceneExport, export_scene
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult
from ponderv2.training.report import Reporter

Submitted = tuple[str, int, PredictedInstances]
"""Scene, number of its vertices, instances."""


def run(request: EvaluationRequest, model: InstancesModel, report: Reporter) -> EvaluationResult:
    """Predicts the instances of every scene of the split. Scenes without labels are not counted.

    Raises:
        SceneError: classes that the model does not know; no benchmark takes its classes; nothing to do, as
            there are neither labels nor a file to write.
        OutputError: something cannot be written, or a written submission is not as the benchmark wants it.
    """
    if request.tta != "none":
        report.warn("instances are predicted in one pass over each scene: --tta is for semantic segmentation")
    settings = request.settings(LabelledDataConfig, budget={})
    data = LabelledDataset(request.store, request.split, settings)
    names = class_names(request.stored, model.classes_of(data.condition), data)
    benchmark = benchmark_for(request, names)
    _check_labels(data, len(names), request)
    tally = _Tally(torch.zeros(len(names), len(names), dtype=torch.int64))
    scenes = _scenes(request, model, data, tally, report)
    if request.submission is not None and benchmark is not None:
        _submit(request.submission, benchmark, model.config.ignored_classes, scenes)
    for _ in scenes:  # what no submission asked for
        pass
    metrics = instance_metrics(tally.overlaps, len(names))
    classes = segmentation_metrics(tally.confusion, skip_absent=True)
    return EvaluationResult(
        kind="instances",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics={**metrics.means(), "miou": classes.mean_iou} if tally.overlaps else {},
        milliseconds=1000.0 * median(tally.seconds),
        classes=_class_table(metrics, names, model.config.ignored_classes) if tally.overlaps else [],
        submission=request.submission,
    )


@dataclass
class _Tally:
    """What is known after some scenes."""

    confusion: Int[Tensor, "true_class predicted_class"]
    overlaps: list[InstanceOverlaps] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of every scene."""


def _scenes(
    request: EvaluationRequest,
    model: InstancesModel,
    data: LabelledDataset,
    tally: _Tally,
    report: Reporter,
) -> Iterator[Submitted]:
    """The instances of one scene after the other; on the way they are compared and written as images."""
    n_classes, ignored = model.classes_of(data.condition), model.config.ignored_classes
    for index in report.track(range(len(data)), f"predicting instances of {request.split}", len(data)):
        cloud = data.scene(index).cloud
        started = time.perf_counter()
        found = predict_scene_instances(model, data, index)
        tally.seconds.append(time.perf_counter() - started)
        one = overlaps_of_scene(found, cloud, data.label_field, ignored)
        if one is not None:
            tally.overlaps.append(one)
            tally.confusion += confusion_matrix(
                found.segment, cloud.labels[data.label_field].long(), n_classes
            )
        if request.export is not None:
            export_scene(request.export, data, index, SceneExport(found.segment, found.instance_id, ignored))
        yield data.names[index], len(cloud), _large(found)


def _large(found: SceneInstances) -> PredictedInstances:
    """The instances that the benchmark counts: those of at least 100 points."""
    instances = found.instances
    size = torch.bincount(instances.instance, minlength=len(instances.category))
    number = torch.where(size >= MIN_POINTS, torch.cumsum(size >= MIN_POINTS, 0) - 1, -1)
    kept = number >= 0
    instance_of = number[instances.instance]
    inside = instance_of >= 0
    return PredictedInstances(
        instances.point[inside], instance_of[inside], instances.category[kept], instances.score[kept]
    )


def _submit(path: Path, benchmark: Benchmark, ignored: tuple[int, ...], scenes: Iterator[Submitted]) -> None:
    """Writes the archive, and reads it again as the benchmark's server would."""
    n_vertices: dict[str, int] = {}

    def noted() -> Iterator[Submitted]:
        for name, count, instances in scenes:
            n_vertices[name] = count
            yield name, count, instances

    write_instance_submission(path, noted(), benchmark.label_ids)
    known = [one for category, one in enumerate(benchmark.label_ids) if category not in ignored]
    problems = check_instance_submission(path, n_vertices, known)
    if problems:
        raise OutputError(f"{path} is not what {benchmark.name} wants: {problems[0]}")


def _class_table(
    metrics: InstanceMetrics, names: list[str], ignored: tuple[int, ...]
) -> list[dict[str, Any]]:
    """One row per class with instances; nan where the scenes have none of at least 100 points."""
    return [
        {
            "class": name,
            "ap": float(metrics.ap[category]),
            "ap50": float(metrics.ap50[category]),
            "ap25": float(metrics.ap25[category]),
            "objects": int(metrics.n_true[category]),
        }
        for category, name in enumerate(names)
        if category not in ignored
    ]


def _check_labels(data: LabelledDataset, n_classes: int, request: EvaluationRequest) -> None:
    """Raises SceneError where there is nothing to do, or the first scene has classes that are not known."""
    cloud = data.scene(0).cloud
    if not has_instances(cloud, data.label_field):
        if request.submission is None and request.export is None:
            raise SceneError(
                f"scene '{data.names[0]}' has no arrays '{data.label_field}' and 'instance' to compare with",
                fix="--export DIR or --submission FILE.zip write the instances without comparing them",
            )
        return
    refuse_other_classes(request.stored, data, cloud.labels[data.label_field], n_classes)
