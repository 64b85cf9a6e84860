"""A class per point: the module and its loss."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.errors import PresetError, SceneError
from ponderv2.heads.config import FinalHeadConfig, LinearHeadConfig, SegmentationLossConfig
from ponderv2.heads.lovasz import lovasz_softmax
from ponderv2.io.arrays import map_array
from ponderv2.io.text import numbers, read_text
from ponderv2.sparse.layers import SubmanifoldConvolution
from ponderv2.sparse.normalisation import BatchNorm


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

    def forward(
        self, feature: Float[Tensor, "point channel"], condition: str = ""
    ) -> Float[Tensor, "point class"]:
        """Scores (logits) of every class, the same for every dataset."""
        return self.linear(self.norm(feature))

    @torch.no_grad()
    def start_as(
        self, weight: Float[Tensor, "class channel"], bias: Float[Tensor, " class"], condition: str = ""
    ) -> None:
        """Take over scores `feature @ weight.T + bias`, by the running statistics where features are
        normalised."""
        if isinstance(self.norm, BatchNorm):
            assert self.norm.running_mean is not None and self.norm.running_var is not None
            bias = bias + weight @ self.norm.running_mean.to(weight)
            weight = weight * (self.norm.running_var.to(weight) + self.norm.eps).sqrt()
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class FinalHead(nn.Module):
    """The last layer of the published networks, `final.weight` [class, 1, 1, 1, channel] and `final.bias`."""

    def __init__(self, config: FinalHeadConfig, in_channels: int) -> None:
        super().__init__()
        if config.n_classes is None:
            raise ValueError("the number of classes is not known yet")
        self.final = SubmanifoldConvolution(in_channels, config.n_classes, 1, bias=True)
        nn.init.trunc_normal_(self.final.weight, std=0.02)
        assert self.final.bias is not None
        nn.init.zeros_(self.final.bias)

    def forward(
        self, feature: Float[Tensor, "point channel"], condition: str = ""
    ) -> Float[Tensor, "point class"]:
        """Scores (logits): the memory of the weight is read as [channel, class], see `pointwise_matrix`."""
        bias = self.final.bias
        assert bias is not None
        return feature @ self.final.pointwise_matrix() + bias.to(feature.dtype)

    @torch.no_grad()
    def start_as(
        self, weight: Float[Tensor, "class channel"], bias: Float[Tensor, " class"], condition: str = ""
    ) -> None:
        """Take over scores `feature @ weight.T + bias`."""
        assert self.final.bias is not None
        self.final.weight.copy_(weight.T.reshape(self.final.weight.shape))
        self.final.bias.copy_(bias)


def segmentation_losses(
    logits: Float[Tensor, "point class"],
    segment: Int[Tensor, " point"],
    config: SegmentationLossConfig,
    class_weights: Float[Tensor, " weight"] | None = None,
) -> SegmentationLosses:
    """Cross-entropy over all labelled points of all processes, and Lovász-softmax.

    `segment` is -1 where a point is to be ignored; where all are, every term is 0 and so are its gradients.
    With `class_weights` the mean of the cross-entropy is over the weights of the labelled points.

    Raises:
        ValueError: a label that the head has no score for, or weights of another number of classes.
    """
    n_classes = logits.shape[1]
    if len(segment) and int(segment.max()) >= n_classes:
        raise ValueError(f"label {int(segment.max())} found, but the head has {n_classes} classes")
    if class_weights is not None and len(class_weights) != n_classes:
        raise ValueError(f"{len(class_weights)} class weights given, but the head has {n_classes} classes")
    logits = logits.float()
    if class_weights is not None and len(positive := class_weights[class_weights > 0]):
        # The mean does not depend on their scale; from 1 upwards, one point suffices for a mean.
        class_weights = class_weights / positive.min()
    # Written as a sum over points of zero weight, not as a mean, so that nothing divides by zero.
    total = F.cross_entropy(
        logits,
        segment,
        weight=class_weights,
        ignore_index=-1,
        reduction="sum",
        label_smoothing=config.label_smoothing,
    )
    cross_entropy = global_mean(total, _weight_of(segment, class_weights).to(logits.dtype))
    lovasz = lovasz_softmax(logits, segment) if config.lovasz > 0 else logits.sum() * 0.0
    return SegmentationLosses(config.cross_entropy * cross_entropy, config.lovasz * lovasz)


def _weight_of(
    segment: Int[Tensor, " point"], class_weights: Float[Tensor, " weight"] | None
) -> Float[Tensor, ""] | Int[Tensor, ""]:
    """What the sum of the cross-entropy is divided by: the weights of the labelled points."""
    labelled = segment[segment >= 0]
    return (segment >= 0).sum() if class_weights is None else class_weights[labelled].sum()


def read_class_weights(config: SegmentationLossConfig) -> Float[Tensor, " class"] | None:
    """The weights of the classes that the settings give or name; None where all count alike.

    Raises PresetError where the file cannot be read or holds anything but weights.
    """
    if not isinstance(config.class_weights, Path):
        return None if config.class_weights is None else torch.tensor(config.class_weights)
    import numpy as np

    path = config.class_weights
    try:
        array = map_array(path) if path.suffix == ".npy" else numbers(read_text(path))
        weights = torch.from_numpy(np.asarray(array, dtype=np.float32)).flatten()
    except (OSError, ValueError, TypeError, SceneError) as error:
        raise PresetError(
            f"cannot read class weights from {path}: {error}",
            fix="a .npy or text file of one number per class",
        ) from error
    if not len(weights) or not torch.isfinite(weights).all() or float(weights.min()) < 0:
        raise PresetError(f"{path} holds class weights that are not numbers from 0 upwards")
    return weights
