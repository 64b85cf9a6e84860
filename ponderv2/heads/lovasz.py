"""Lovász-softmax: a convex surrogate of one minus the mean intersection over union."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.collectives import all_gather_rows, world_size

MOST_ELEMENTS = 2**25
"""Errors of all points in some classes that are held and exchanged at once."""


def lovasz_gradient(truth: Float[Tensor, "class point"]) -> Float[Tensor, "class point"]:
    """Increments of the Jaccard loss as points join, largest error first; Berman et al. 2018, algorithm 1.

    `truth` is 1 where the point belongs to the class, in that order. Rows without a point of their class are
    meaningless.
    """
    total = truth.sum(dim=1, keepdim=True)
    intersection = total - truth.cumsum(dim=1)
    union = total + (1.0 - truth).cumsum(dim=1)
    jaccard = 1.0 - intersection / union
    return torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))


def lovasz_softmax(logits: Float[Tensor, "point class"], segment: Int[Tensor, " point"]) -> Float[Tensor, ""]:
    """Mean over the classes that occur among the labelled points; 0 (with a gradient of 0) where none is.

    `segment` is the class of each point, -1 = ignore. The points are those of all processes; each gets its
    share of the loss, as from `collectives.global_mean`.
    """
    labelled = segment >= 0
    logits, segment = logits[labelled].float(), segment[labelled]
    segments, own = all_gather_rows(segment)
    if len(segments) == 0:
        return logits.sum() * 0.0
    present = torch.bincount(segments, minlength=logits.shape[1]).nonzero()[:, 0]
    probability = torch.softmax(logits, dim=1).index_select(1, present)
    parts = [
        _errors_by_class(columns, segment[:, None] == classes, segments[:, None] == classes, own)
        for columns, classes in zip(
            probability.split(_n_at_once(len(segments)), dim=1),
            present.split(_n_at_once(len(segments))),
            strict=True,
        )
    ]
    return torch.cat(parts).mean() * world_size()


def _n_at_once(n_points: int) -> int:
    """Classes whose errors are exchanged together, the same number in every process."""
    return max(1, MOST_ELEMENTS // n_points)


def _errors_by_class(
    probability: Float[Tensor, "own class"],
    truth: Bool[Tensor, "own class"],
    truths: Bool[Tensor, "point class"],
    own: slice,
) -> Float[Tensor, " class"]:
    """The loss of some classes, as far as it is of the points of this process."""
    error = (truth.float() - probability).abs()
    if world_size() == 1:
        error, order = torch.sort(error.T, dim=1, descending=True, stable=True)
        return (error * lovasz_gradient(torch.gather(truth.T.float(), 1, order))).sum(dim=1)
    errors, _ = all_gather_rows(error)
    order = torch.argsort(errors.T, dim=1, descending=True, stable=True)
    increments = lovasz_gradient(torch.gather(truths.T.float(), 1, order))
    of_points = torch.empty_like(increments).scatter_(1, order, increments)
    return (error.T * of_points[:, own]).sum(dim=1)
