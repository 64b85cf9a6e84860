"""Lovász-softmax: a convex surrogate of one minus the mean intersection over union."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


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

    `segment` is the class of each point, -1 = ignore.
    """
    labelled = segment >= 0
    logits, segment = logits[labelled].float(), segment[labelled]
    if len(segment) == 0:
        return logits.sum() * 0.0
    truth = F.one_hot(segment, logits.shape[1]).T.to(logits.dtype)
    present = truth.any(dim=1)
    truth, probability = truth[present], torch.softmax(logits, dim=1).T[present]
    error, order = torch.sort((truth - probability).abs(), dim=1, descending=True, stable=True)
    per_class = (error * lovasz_gradient(torch.gather(truth, 1, order))).sum(dim=1)
    return per_class.mean()
