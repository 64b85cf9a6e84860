"""Quality of predicted classes: confusion matrix, intersection over union, accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = 1e-10


def confusion_matrix(
    predicted: Int[Tensor, " point"], truth: Int[Tensor, " point"], n_classes: int
) -> Int[Tensor, "true_class predicted_class"]:
    """How many points of each true class were given each class; points of true class -1 do not count.

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
    counts = confusion.double()
    hit, truth, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    iou = hit / (truth + predicted - hit + TINY)
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
