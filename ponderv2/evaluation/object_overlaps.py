"""Which points predicted and true objects of a scene share: all that average precision needs to know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_POINTS = 100
"""Smaller predicted objects are dropped, smaller true ones ignored, as the ScanNet benchmark does."""


@dataclass(frozen=True)
class PredictedObjects:
    """Objects of one scene, which may share points."""

    point: Int[Tensor, " member"]
    """Points of all objects."""
    object: Int[Tensor, " member"]
    """Object that each of them is part of; no pair of point and object occurs twice."""
    category: Int[Tensor, " object"]
    score: Float[Tensor, " object"]
    """Confidence; only the order matters."""

    @staticmethod
    def of_members(
        member: Int[Tensor, " point"], category: Int[Tensor, " object"], score: Float[Tensor, " object"]
    ) -> PredictedObjects:
        """Objects that share no point, by the object of each point (-1 = none)."""
        point = torch.nonzero(member >= 0)[:, 0]
        return PredictedObjects(point, member[point], category, score)

    @staticmethod
    def of_masks(
        masks: Bool[Tensor, "object point"],
        category: Int[Tensor, " object"],
        score: Float[Tensor, " object"],
    ) -> PredictedObjects:
        """Objects by the points that they cover."""
        of_object, point = torch.nonzero(masks, as_tuple=True)
        return PredictedObjects(point, of_object, category, score)


@dataclass(frozen=True)
class ObjectOverlaps:
    """What average precision needs to know of one scene. Small; sizes are numbers of points."""

    predicted_category: Int[Tensor, " predicted"]
    predicted_score: Float[Tensor, " predicted"]
    predicted_size: Int[Tensor, " predicted"]
    predicted_void: Int[Tensor, " predicted"]
    """Points of each predicted object whose true class is none of those that are evaluated."""
    true_category: Int[Tensor, " true"]
    true_size: Int[Tensor, " true"]
    shared: Int[Tensor, "predicted true"]
    """Common points; 0 where the classes differ."""

    def of_category(self, category: int) -> ObjectOverlaps:
        """Only the objects of one class."""
        predicted, true = self.predicted_category == category, self.true_category == category
        return ObjectOverlaps(
            self.predicted_category[predicted],
            self.predicted_score[predicted],
            self.predicted_size[predicted],
            self.predicted_void[predicted],
            self.true_category[true],
            self.true_size[true],
            self.shared[predicted][:, true],
        )


def compare_objects(
    predicted: PredictedObjects,
    segment: Int[Tensor, " point"],
    instance: Int[Tensor, " point"],
    ignored: tuple[int, ...] = (),
) -> ObjectOverlaps:
    """Overlaps of predicted with true objects in one scene; `segment` and `instance` are -1 where unknown.

    A true object is all points of one class and one number, as in the files of the ScanNet benchmark, whose
    points hold 1000 x class + number + 1: a number that spans two classes is two objects. (The evaluation
    during training of the published code takes it for one, of the class of its first point.) Classes that
    are `ignored` (wall, floor) and -1 are void: predictions there are not counted as wrong. Points of another
    class but without a number are neither void nor in an object. Predictions of ignored classes or with
    fewer than 100 points are dropped.
    """
    left_out = torch.tensor((-1, *ignored), device=segment.device)
    void = torch.isin(segment, left_out)
    true, true_category = _true_objects(segment, instance, void)
    size = torch.bincount(predicted.object, minlength=len(predicted.category))
    kept = torch.nonzero((size >= MIN_POINTS) & ~torch.isin(predicted.category, left_out))[:, 0]
    number = torch.full_like(size, -1)
    number[kept] = torch.arange(len(kept), device=size.device)
    of_object = number[predicted.object]
    point, of_object = predicted.point[of_object >= 0], of_object[of_object >= 0]
    n_true, n_kept = len(true_category), len(kept)
    met = true[point] >= 0
    pairs = of_object[met] * n_true + true[point[met]]
    shared = torch.bincount(pairs, minlength=n_kept * n_true).reshape(n_kept, n_true)
    same = predicted.category[kept][:, None] == true_category[None]
    return ObjectOverlaps(
        predicted_category=predicted.category[kept].cpu(),
        predicted_score=predicted.score[kept].double().cpu(),
        predicted_size=size[kept].cpu(),
        predicted_void=torch.bincount(of_object[void[point]], minlength=n_kept).cpu(),
        true_category=true_category.cpu(),
        true_size=torch.bincount(true[true >= 0], minlength=n_true).cpu(),
        shared=torch.where(same, shared, 0).cpu(),
    )


def _true_objects(
    segment: Int[Tensor, " point"], instance: Int[Tensor, " point"], void: Bool[Tensor, " point"]
) -> tuple[Int[Tensor, " point"], Int[Tensor, " true"]]:
    """Object of every point (-1 = none), in the order of class and number, and the class of each object."""
    inside = ~void & (instance >= 0)
    pairs, number = torch.unique(
        torch.stack([segment[inside], instance[inside]], dim=1), dim=0, return_inverse=True
    )
    member = torch.full_like(segment, -1)
    member[inside] = number
    return member, pairs[:, 0]
