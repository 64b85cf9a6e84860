"""A class per point: the module and its loss."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.heads.config import LinearHeadConfig, SegmentationLossConfig
from ponderv2.heads.lovasz import lovasz_softmax
from ponderv2.normalisation import BatchNorm


@dataclass(frozen=True)
class SegmentationLosses:
    """Each term already weighted. A term that is not used is exactly zero, not absent."""

    cross_entropy: Float[Tensor, ""]
    lovasz: Float[Tensor, ""]

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        return torch.stack([getattr(self, term.name) for term in fields(self)]).sum()


class LinearHead(nn.Module):
    """Features to class scores."""

    def __init__(self, config: LinearHeadConfig, in_channels: int) -> None:
        super().__init__()
        if config.n_classes is None:
            raise ValueError("the number of classes is not known yet")
        self.norm = BatchNorm(in_channels, affine=False) if config.normalise else nn.Identity()
        self.linear = nn.Linear(in_channels, config.n_classes)

    def forward(self, feature: Float[Tensor, "point channel"]) -> Float[Tensor, "point class"]:
        """Scores (logits) of every class."""
        return self.linear(self.norm(feature))


def segmentation_losses(
    logits: Float[Tensor, "point class"], segment: Int[Tensor, " point"], config: SegmentationLossConfig
) -> SegmentationLosses:
    """Cross-entropy over all labelled points of all processes, and Lovász-softmax.

    `segment` is -1 where a point is to be ignored; where all are, every term is 0 and so are its gradients.

    Raises:
        ValueError: a label that the head has no score for.
    """
    if len(segment) and int(segment.max()) >= logits.shape[1]:
        raise ValueError(f"label {int(segment.max())} found, but the head has {logits.shape[1]} classes")
    logits = logits.float()
    # Written as a sum over points of zero weight, not as a mean, so that nothing divides by zero.
    total = F.cross_entropy(
        logits, segment, ignore_index=-1, reduction="sum", label_smoothing=config.label_smoothing
    )
    cross_entropy = global_mean(total, (segment >= 0).sum().to(logits.dtype))
    lovasz = lovasz_softmax(logits, segment) if config.lovasz > 0 else logits.sum() * 0.0
    return SegmentationLosses(config.cross_entropy * cross_entropy, config.lovasz * lovasz)
