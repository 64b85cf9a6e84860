"""Average precision of instances, as the ScanNet benchmark computes it, from overlaps per scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_POINTS = 100
"""Smaller predicted instances are dropped, smaller true ones ignored, as the ScanNet benchmark does."""


@dataclass(frozen=True)
class PredictedInstances:
    """Instances of one scene, which may share points."""

    point: Int[Tensor, " member"]
    """Points of all instances."""
    instance: Int[Tensor, " member"]
    """Instance that each of them is part of; no pair of point and instance occurs twice."""
    category: Int[Tensor, " instance"]
    score: Float[Tensor, " instance"]
    """Confidence; only the order matters."""

    @staticmethod
    def of_members(
        member: Int[Tensor, " point"], category: Int[Tensor, " instance"], score: Float[Tensor, " instance"]
    ) -> PredictedInstances:
        """Instances that share no point, by the instance of each point (-1 = none)."""
        point = torch.nonzero(member >= 0)[:, 0]
        return PredictedInstances(point, member[point], category, score)

    @staticmethod
    def of_masks(
        masks: Bool[Tensor, "instance point"],
        category: Int[Tensor, " instance"],
        score: Float[Tensor, " instance"],
    ) -> PredictedInstances:
        """Instances by the points that they cover."""
        instance_of, point = torch.nonzero(masks, as_tuple=True)
        return PredictedInstances(point, instance_of, category, score)


@dataclass(frozen=True)
class InstanceOverlaps:
    """What average precision needs to know of one scene. Small; sizes are numbers of points."""

    predicted_category: Int[Tensor, " predicted"]
    predicted_score: Float[Tensor, " predicted"]
    predicted_size: Int[Tensor, " predicted"]
    predicted_void: Int[Tensor, " predicted"]
    """Points of each predicted instance whose true class is none of those that are evaluated."""
    true_category: Int[Tensor, " true"]
    true_size: Int[Tensor, " true"]
    shared: Int[Tensor, "predicted true"]
    """Common points; 0 where the classes differ."""

    def of_category(self, category: int) -> InstanceOverlaps:
        """Only the instances of one class."""
        predicted, true = self.predicted_category == category, self.true_category == category
        return InstanceOverlaps(
            self.predicted_category[predicted],
            self.predicted_score[predicted],
            self.predicted_size[predicted],
            self.predicted_void[predicted],
            self.true_category[true],
            self.true_size[true],
            self.shared[predicted][:, true],
        )


def instance_overlaps(
    predicted: PredictedInstances,
    segment: Int[Tensor, " point"],
    instance: Int[Tensor, " point"],
    ignored: tuple[int, ...] = (),
) -> InstanceOverlaps:
    """Overlaps of predicted with true instances in one scene; `segment` and `instance` are -1 where unknown.

    A true instance is all points of one class and one number, as in the files of the ScanNet benchmark, whose
    points hold 1000 x class + number + 1: a number that spans two classes is two instances. (The evaluation
    during training of the published code takes it for one, of the class of its first point.) Classes that
    are `ignored` (wall, floor) and -1 are void: predictions there are not counted as wrong. Points of another
    class but without a number are neither void nor in an instance. Predictions of ignored classes or with
    fewer than 100 points are dropped.
    """
    left_out = torch.tensor((-1, *ignored), device=segment.device)
    void = torch.isin(segment, left_out)
    true, true_category = _true_instances(segment, instance, void)
    size = torch.bincount(predicted.instance, minlength=len(predicted.category))
    kept = torch.nonzero((size >= MIN_POINTS) & ~torch.isin(predicted.category, left_out))[:, 0]
    number = torch.full_like(size, -1)
    number[kept] = torch.arange(len(kept), device=size.device)
    instance_of = number[predicted.instance]
    point, instance_of = predicted.point[instance_of >= 0], instance_of[instance_of >= 0]
    n_true, n_kept = len(true_category), len(kept)
    met = true[point] >= 0
    pairs = instance_of[met] * n_true + true[point[met]]
    shared = torch.bincount(pairs, minlength=n_kept * n_true).reshape(n_kept, n_true)
    same = predicted.category[kept][:, None] == true_category[None]
    return InstanceOverlaps(
        predicted_category=predicted.category[kept].cpu(),
        predicted_score=predicted.score[kept].double().cpu(),
        predicted_size=size[kept].cpu(),
        predicted_void=torch.bincount(instance_of[void[point]], minlength=n_kept).cpu(),
        true_category=true_category.cpu(),
        true_size=torch.bincount(true[true >= 0], minlength=n_true).cpu(),
        shared=torch.where(same, shared, 0).cpu(),
    )


def _true_instances(
    segment: Int[Tensor, " point"], instance: Int[Tensor, " point"], void: Bool[Tensor, " point"]
) -> tuple[Int[Tensor, " point"], Int[Tensor, " true"]]:
    """Instance of every point (-1 = none), in the order of class and number, and the class of each."""
    inside = ~void & (instance >= 0)
    pairs, number = torch.unique(
        torch.stack([segment[inside], instance[inside]], dim=1), dim=0, return_inverse=True
    )
    member = torch.full_like(segment, -1)
    member[inside] = number
    return member, pairs[:, 0]


THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Of intersection over union; AP is the mean over these."""
LENIENT = 0.25
"""Threshold of AP25."""


@dataclass(frozen=True)
class InstanceMetrics:
    """Average precision, 0..1. NaN for classes without true instances; they are left out of the means."""

    ap: Float[Tensor, " class"]
    """Mean over the thresholds 0.5, 0.55, ..., 0.9."""
    ap50: Float[Tensor, " class"]
    ap25: Float[Tensor, " class"]
    n_true: Int[Tensor, " class"]
    """True instances of at least 100 points."""

    def means(self) -> dict[str, float]:
        """ap, ap50 and ap25 over the classes that have true instances; NaN where none has."""
        return {name: float(getattr(self, name).nanmean()) for name in ("ap", "ap50", "ap25")}


def instance_metrics(scenes: Sequence[InstanceOverlaps], n_classes: int) -> InstanceMetrics:
    """Average precision of all scenes together.

    Per class and threshold, each true instance in turn takes the predictions that overlap it by more than the
    threshold: the one of the highest score is right, the others are wrong. A prediction that overlaps no true
    instance that much is wrong too, unless a greater share of it than the threshold lies on void or on true
    instances that are too small.
    """
    table = torch.full((n_classes, len(THRESHOLDS) + 1), torch.nan, dtype=torch.float64)
    n_true = torch.zeros(n_classes, dtype=torch.int64)
    for category in range(n_classes):
        parts = [scene.of_category(category) for scene in scenes]
        n_true[category] = sum(int((part.true_size >= MIN_POINTS).sum()) for part in parts)
        if not n_true[category]:
            continue
        for column, threshold in enumerate((*THRESHOLDS, LENIENT)):
            scored = [scores_of_class(part, threshold) for part in parts]
            right = torch.cat([one.right for one in scored])
            score = torch.cat([one.score for one in scored])
            table[category, column] = average_precision(right, score, sum(one.missed for one in scored))
    return InstanceMetrics(table[:, :-1].mean(dim=1), table[:, 0], table[:, -1], n_true)


@dataclass(frozen=True)
class Scored:
    """Predictions that count, at one threshold."""

    right: Bool[Tensor, " counted"]
    score: Float[Tensor, " counted"]
    missed: int
    """True instances without a prediction."""


def scores_of_class(scene: InstanceOverlaps, threshold: float) -> Scored:
    """Predictions of one class in one scene as right or wrong; true instances under 100 points do not count.

    True instances come in their order, predictions in theirs. The first prediction that overlaps a true
    instance by more than the threshold is spent; of those that follow, the one of the highest score is right
    in its place, and the others are wrong. A true instance whose candidates were spent on earlier ones is
    missed.
    """
    union = scene.predicted_size[:, None] + scene.true_size[None] - scene.shared
    enough = (scene.shared.double() / union.double()) > threshold
    counts = scene.true_size >= MIN_POINTS
    right: list[float] = []
    wrong: list[float] = []
    missed = 0
    spent: set[int] = set()
    for true in torch.nonzero(counts)[:, 0].tolist():
        candidates = [one for one in torch.nonzero(enough[:, true])[:, 0].tolist() if one not in spent]
        if not candidates:
            missed += 1
            continue
        spent.add(candidates[0])
        scores = sorted(scene.predicted_score[candidates].tolist(), reverse=True)
        right.append(scores[0])
        wrong += scores[1:]
    excused = scene.predicted_void + (scene.shared * ~counts).sum(dim=1)
    share = excused.double() / scene.predicted_size.double()
    wrong += scene.predicted_score[~enough.any(dim=1) & (share <= threshold)].tolist()
    return Scored(
        torch.tensor([True] * len(right) + [False] * len(wrong), dtype=torch.bool),
        torch.tensor(right + wrong, dtype=torch.float64),
        missed,
    )


def average_precision(
    right: Bool[Tensor, " counted"], score: Float[Tensor, " counted"], missed: int
) -> float:
    """Area under precision over recall, as ScanNet integrates it; 0 without predictions.

    One point of the curve for each distinct score, taken as the least that is accepted, then the end point of
    precision 1 and recall 0. The width of a point is half the difference of the recalls of its neighbours;
    the first point neighbours itself, behind the last comes recall 0.
    """
    n_true = int(right.sum()) + missed
    if not n_true or not len(right):
        return 0.0
    order = torch.argsort(score, descending=True, stable=True)
    last_of_score = torch.cat([torch.diff(score[order]) != 0, torch.ones(1, dtype=torch.bool)])
    hits = torch.cumsum(right[order], 0)[last_of_score].double()
    accepted = torch.arange(1, len(score) + 1)[last_of_score].double()
    # From the least strict point to the strictest, then the end point.
    precision = torch.cat([(hits / accepted).flip(0), hits.new_ones(1)])
    recall = torch.cat([(hits / n_true).flip(0), hits.new_zeros(1)])
    padded = torch.cat([recall[:1], recall, hits.new_zeros(1)])
    width = (padded[:-2] - padded[2:]) / 2
    return float((precision * width).sum())
