"""Average precision of boxes indoors, as VoteNet and its successors compute it on ScanNet and SUN RGB-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from ponderv2.geometry.box_overlap import box_iou, box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections

THRESHOLDS = (0.25, 0.5)
"""Of the IoU in space: mAP25 and mAP50."""


@dataclass(frozen=True)
class BoxMatches:
    """What average precision needs to know of one scene. Small, on the CPU."""

    category: Int[Tensor, " predicted"]
    score: Float64[Tensor, " predicted"]
    best_iou: Float64[Tensor, " predicted"]
    """With the annotated box of the same class that it overlaps most; 0 where there is none."""
    best_true: Int[Tensor, " predicted"]
    """That box, the first of those that it overlaps equally; -1 where there is none."""
    true_category: Int[Tensor, " true"]


def box_matches(detections: Detections, boxes: Boxes) -> BoxMatches:
    """Every detection of a scene with its best annotated box, taken by another one or not.

    Annotated boxes of category -1 are left out, as classes outside a benchmark are: they are not missed, and
    a detection there is wrong.
    """
    true = boxes.take(boxes.category >= 0)
    iou = box_iou(box_rows(detections.boxes).double(), box_rows(true).double())
    same = detections.boxes.category[:, None] == true.category[None]
    # A last column, lower than all others, is chosen by those that have no box of their class.
    none = iou.new_full((len(detections), 1), -0.5)
    best, index = torch.cat([torch.where(same, iou, -1.0), none], dim=1).max(dim=1)
    return BoxMatches(
        category=detections.boxes.category.cpu(),
        score=detections.score.detach().double().cpu(),
        best_iou=best.clamp(min=0.0).cpu(),
        best_true=torch.where(index < len(true), index, -1).cpu(),
        true_category=true.category.cpu(),
    )


@dataclass(frozen=True)
class PrecisionRecall:
    """Of one class at one threshold, as more and more detections are accepted, the surest first."""

    precision: Float64[Tensor, " accepted"]
    recall: Float64[Tensor, " accepted"]
    """NaN without annotated boxes."""
    score: Float64[Tensor, " accepted"]
    """Of the last one that is accepted."""


@dataclass(frozen=True)
class BoxMetrics:
    """Average precision and recall, 0..1, per class and threshold of the IoU."""

    thresholds: tuple[float, ...]
    ap: Float64[Tensor, "class threshold"]
    """NaN for classes that are neither annotated nor predicted; 0 for those that are one of the two."""
    recall: Float64[Tensor, "class threshold"]
    """Of all detections. NaN for classes that are not annotated."""
    n_true: Int[Tensor, " class"]
    curves: tuple[tuple[PrecisionRecall, ...], ...]
    """Per class and threshold."""

    def means(self) -> dict[str, float]:
        """map25, mar25, map50, mar50: over the classes that have a number; NaN where none has.

        A class that is predicted and not annotated lowers mAP: small subsets are not comparable with all
        scenes. (The published scripts divide 0 by 0 there.)
        """
        found = {}
        for column, threshold in enumerate(self.thresholds):
            found[f"map{round(100 * threshold)}"] = float(self.ap[:, column].nanmean())
            found[f"mar{round(100 * threshold)}"] = float(self.recall[:, column].nanmean())
        return found


def box_metrics(
    scenes: Sequence[BoxMatches], n_classes: int, thresholds: tuple[float, ...] = THRESHOLDS
) -> BoxMetrics:
    """Average precision of all scenes together.

    The detections of a class are taken by score, those of equal score in the order of scenes and within them.
    One is right where its IoU with its best annotated box is greater than the threshold and nobody before it
    was right with the same box; there is no second choice. AP is the area under the precision-recall curve,
    after each precision was raised to the highest one at a greater recall (Pascal VOC 2010).

    Raises:
        ValueError: a predicted class is not in 0..n_classes-1, or an annotated one is greater.
    """
    offset = 0
    numbers: list[Int[Tensor, " predicted"]] = [torch.zeros(0, dtype=torch.long)]
    for scene in scenes:
        _check(scene, n_classes)
        numbers.append(torch.where(scene.best_true >= 0, scene.best_true + offset, -1))
        offset += len(scene.true_category)
    nothing = torch.zeros(0, dtype=torch.float64)
    score = torch.cat([nothing, *(scene.score for scene in scenes)])
    iou = torch.cat([nothing, *(scene.best_iou for scene in scenes)])
    category = torch.cat([numbers[0], *(scene.category for scene in scenes)])
    true_category = torch.cat([numbers[0], *(scene.true_category for scene in scenes)])
    n_true = torch.bincount(true_category, minlength=n_classes)
    order = torch.argsort(score, descending=True, stable=True)
    best = torch.cat(numbers)
    curves = []
    for one in range(n_classes):
        chosen = order[category[order] == one]
        curves.append(
            tuple(
                _curve(iou[chosen] > threshold, best[chosen], score[chosen], int(n_true[one]))
                for threshold in thresholds
            )
        )
    return BoxMetrics(
        thresholds=thresholds,
        ap=_table(curves, n_true, _area),
        recall=_table(curves, n_true, _final_recall),
        n_true=n_true,
        curves=tuple(curves),
    )


def _check(scene: BoxMatches, n_classes: int) -> None:
    for what, category in (("predicted", scene.category), ("annotated", scene.true_category)):
        if len(category) and not 0 <= int(category.min()) <= int(category.max()) < n_classes:
            raise ValueError(
                f"{what} classes are expected in 0..{n_classes - 1}, received "
                f"{int(category.min())}..{int(category.max())}"
            )


def _curve(
    enough: Bool[Tensor, " accepted"],
    best: Int[Tensor, " accepted"],
    score: Float64[Tensor, " accepted"],
    n_true: int,
) -> PrecisionRecall:
    """Detections by descending score, and whether their best box is overlapped enough."""
    place = torch.arange(len(best))
    first = torch.full((int(best.max()) + 1 if len(best) else 0,), len(best))
    first.scatter_reduce_(0, best[enough], place[enough], reduce="amin")
    right = torch.zeros(len(best), dtype=torch.float64)
    right[first[first < len(best)]] = 1.0
    hits = right.cumsum(dim=0)
    recall = hits / n_true if n_true else torch.full_like(hits, torch.nan)
    return PrecisionRecall(hits / (place + 1), recall, score)


def _table(
    curves: Sequence[Sequence[PrecisionRecall]],
    n_true: Int[Tensor, " class"],
    number: Callable[[PrecisionRecall, int], float],
) -> Float64[Tensor, "class threshold"]:
    rows = [[number(one, n) for one in row] for row, n in zip(curves, n_true.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def _area(curve: PrecisionRecall, n_true: int) -> float:
    """Under the monotone envelope."""
    if not n_true:
        return 0.0 if len(curve.recall) else torch.nan
    envelope = curve.precision.flip(0).cummax(dim=0).values.flip(0)
    return float((torch.diff(curve.recall, prepend=curve.recall.new_zeros(1)) * envelope).sum())


def _final_recall(curve: PrecisionRecall, n_true: int) -> float:
    if not n_true:
        return torch.nan
    return float(curve.recall[-1]) if len(curve.recall) else 0.0
