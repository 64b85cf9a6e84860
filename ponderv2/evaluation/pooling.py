"""Several evaluations as one: the counts per class are added up, then the metrics follow (S3DIS 6-fold)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.datasets.benchmarks import benchmark_of
from ponderv2.errors import PresetError
from ponderv2.evaluation.semantic import metrics_of_counts

COUNTS = ("intersection", "union", "points")


@runtime_checkable
class Evaluation(Protocol):
    """The result of an evaluation, as far as it matters here."""

    @property
    def checkpoint(self) -> Path: ...

    @property
    def split(self) -> str: ...

    @property
    def n_scenes(self) -> int: ...

    @property
    def classes(self) -> Sequence[dict[str, Any]]:
        """One row per class."""
        ...


@dataclass(frozen=True)
class Fold:
    """The counts of one evaluation."""

    source: str
    split: str
    n_scenes: int
    classes: tuple[dict[str, Any], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(str(row["class"]) for row in self.classes)


@dataclass(frozen=True)
class PooledResult:
    """Metrics of several models, each on its own scenes, taken together."""

    kind: str
    n_scenes: int
    metrics: dict[str, float]
    """See `named_metrics`."""
    folds: list[dict[str, Any]]
    """Per evaluation: where it came from, its split, its scenes, its own metrics."""
    classes: list[dict[str, Any]]
    """Per class, over all: name, iou, accuracy, number of true points, intersection and union."""


def fold_of(result: Evaluation) -> Fold:
    """The counts of an evaluation. Raises PresetError where it was no semantic segmentation."""
    if not result.classes or COUNTS[0] not in result.classes[0]:
        raise PresetError(
            f"{result.checkpoint} is no evaluation of a semantic segmentation, and cannot be pooled",
            fix="give segmentation models, on scenes with labels",
        )
    return Fold(str(result.checkpoint), result.split, result.n_scenes, tuple(result.classes))


def read_fold(path: Path) -> Fold:
    """What `ponder eval --json` wrote. Raises PresetError for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            {"class": str(row["class"]), **{k: int(row[k]) for k in COUNTS}} for row in values["classes"]
        )
        fold = Fold(str(path), str(values["split"]), int(values["n_scenes"]), rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PresetError(
            f"{path} is not the result of an evaluation by classes ({error})",
            fix="ponder eval CKPT --json FILE writes one",
        ) from error
    if not fold.classes:
        raise PresetError(f"{path} counts no classes", fix="evaluate on scenes with labels")
    return fold


def pooled(folds: Sequence[Fold]) -> PooledResult:
    """Intersections, unions and true points of all folds, added per class; then the metrics.

    Raises PresetError for folds of other classes, and for a split that occurs twice.
    """
    names = folds[0].names
    for fold in folds[1:]:
        if fold.names != names:
            raise PresetError(f"{fold.source} has other classes than {folds[0].source}")
    splits = [fold.split for fold in folds]
    twice = sorted({split for split in splits if splits.count(split) > 1})
    if twice:
        raise PresetError(
            f"'{twice[0]}' was evaluated twice: its points would count twice",
            fix="give one result for each split",
        )
    return PooledResult(
        kind="segmentation",
        n_scenes=sum(fold.n_scenes for fold in folds),
        metrics=_metrics(folds),
        folds=[
            {"source": fold.source, "split": fold.split, "n_scenes": fold.n_scenes, **_metrics([fold])}
            for fold in folds
        ],
        classes=[_row(name, *counts.tolist()) for name, counts in zip(names, _counts(folds).T, strict=True)],
    )


def _counts(folds: Sequence[Fold]) -> Int[Tensor, "count class"]:
    """Intersection, union and true points of every class, over all folds."""
    each = [[[int(row[name]) for row in fold.classes] for name in COUNTS] for fold in folds]
    return torch.tensor(each).sum(dim=0)


def _metrics(folds: Sequence[Fold]) -> dict[str, float]:
    intersection, union, points = _counts(folds)
    benchmark = benchmark_of(folds[0].names)
    groups = benchmark.groups if benchmark else None
    return metrics_of_counts(
        intersection, union, points, groups, benchmark is not None and benchmark.counts_predicted
    )


def _row(name: str, intersection: int, union: int, points: int) -> dict[str, Any]:
    absent = float("nan")
    return {
        "class": name,
        "iou": intersection / union if points else absent,
        "accuracy": intersection / points if points else absent,
        "points": points,
        "intersection": intersection,
        "union": union,
    }
