"""Quality of predicted classes: confusion matrix, intersection over union, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = 1e-10


def confusion_matrix(
    predicted: Int[Tensor, " point"], truth: Int[Tensor, " point"], n_classes: int
) -> Int[Tensor, "true_class predicted_class"]:
    """Point counts by (true, predicted) class; points of true class -1 do not count.

    Matrices of several scenes are added. Raises ValueError for classes out of range.
    """
    counted = truth >= 0
    predicted, truth = predicted[counted], truth[counted]
    for name, classes in (("predicted", predicted), ("true", truth)):
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < n_classes:
            found = (int(classes.min()), int(classes.max()))
            raise ValueError(f"{name} classes lie in {found}, expected 0..{n_classes - 1}")
    cells = truth * n_classes + predicted
    return torch.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class SegmentationMetrics:
    """Shares, 0..1."""

    iou: Float[Tensor, " class"]
    """Intersection over union per class."""
    accuracy: Float[Tensor, " class"]
    """Recall per class."""
    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    """Of all points, whatever their class."""
    present: tuple[bool, ...]
    """Whether any true point has the class."""


def segmentation_metrics(
    confusion: Int[Tensor, "true_class predicted_class"], skip_absent: bool = False
) -> SegmentationMetrics:
    """Pooled over all points that were counted.

    Published (`skip_absent` off): I / (U + 1e-10), so a class without true points has 0 and lowers the mean.
    ScanNet server (`skip_absent` on): such a class is NaN and is left out of the means; NaN where no class is
    left.
    """
    truth, hit = confusion.sum(dim=1), confusion.diagonal()
    return segmentation_metrics_of_counts(hit, truth + confusion.sum(dim=0) - hit, truth, skip_absent)


def segmentation_metrics_of_counts(
    intersection: Int[Tensor, " class"],
    union: Int[Tensor, " class"],
    points: Int[Tensor, " class"],
    skip_absent: bool = False,
) -> SegmentationMetrics:
    """The same from the points of each class that were found, found or true, and true."""
    hit, truth = intersection.double(), points.double()
    iou = hit / (union.double() + TINY)
    accuracy = hit / (truth + TINY)
    present = truth > 0
    if skip_absent:
        iou = torch.where(present, iou, torch.nan)
        accuracy = torch.where(present, accuracy, torch.nan)
    return SegmentationMetrics(
        iou,
        accuracy,
        float(iou.nanmean()),
        float(accuracy.nanmean()),
        float(hit.sum() / (truth.sum() + TINY)),
        tuple(present.tolist()),
    )


def mean_over(values: Float[Tensor, " class"], classes: Sequence[int]) -> float:
    """Mean over some classes; those that are NaN are left out, NaN where nothing is left."""
    return float(values[list(classes)].nanmean()) if len(classes) else float("nan")


def named_metrics(
    confusion: Int[Tensor, "true_class predicted_class"],
    groups: Mapping[str, Sequence[int]] | None = None,
    counts_predicted: bool = False,
) -> dict[str, float]:
    """The numbers that benchmarks state, see `metrics_of_counts`."""
    truth, hit = confusion.sum(dim=1), confusion.diagonal()
    return metrics_of_counts(hit, truth + confusion.sum(dim=0) - hit, truth, groups, counts_predicted)


def metrics_of_counts(
    intersection: Int[Tensor, " class"],
    union: Int[Tensor, " class"],
    points: Int[Tensor, " class"],
    groups: Mapping[str, Sequence[int]] | None = None,
    counts_predicted: bool = False,
) -> dict[str, float]:
    """The numbers that benchmarks state, 0..1.

    miou, macc: over the classes that occur among the true points, as the ScanNet server does it. miou_all,
    macc_all: over all classes, those that do not occur count 0, as published tables do it. allacc:
    fraction of correctly classified points. For each group of classes `miou_<group>` and `miou_all_<group>`.
    With `counts_predicted` also miou_predicted: over the classes that are true or predicted anywhere, as the
    development kit of nuScenes does it. SemanticKITTI's is miou_all.
    """
    occurring = segmentation_metrics_of_counts(intersection, union, points, skip_absent=True)
    everything = segmentation_metrics_of_counts(intersection, union, points)
    found = {
        "miou": occurring.mean_iou,
        "macc": occurring.mean_accuracy,
        "allacc": occurring.overall_accuracy,
        "miou_all": everything.mean_iou,
        "macc_all": everything.mean_accuracy,
    }
    if counts_predicted:
        known = (union > 0).nonzero()[:, 0].tolist()
        found["miou_predicted"] = mean_over(everything.iou, known)
    for name, classes in (groups or {}).items():
        found[f"miou_{name}"] = mean_over(occurring.iou, classes)
        found[f"miou_all_{name}"] = mean_over(everything.iou, classes)
    return found
