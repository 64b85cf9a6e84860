"""What rendered rays are compared with, and the terms of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.collectives import global_mean, sum_over_processes
from ponderv2.renderer.config import (
    ClassesConfig,
    ContrastiveConfig,
    RenderLossConfig,
    TargetsConfig,
)
from ponderv2.renderer.renderer import RenderOutput

N_FIRST_TERMS = 7
"""Terms of `RenderLosses` up to `point`."""
NO_DISTANCE = -0.001
"""Sentinel for rays without a measurement, as in the published code."""


@dataclass(frozen=True)
class RayTargets:
    """Measurements along rays. Those that miss the box (`masked`) are black, without distance and label."""

    color: Float[Tensor, "ray 3"]
    """0..1."""
    distance: Float[Tensor, " ray"]
    """Along the ray, in the rays' frame; not positive = no measurement."""
    label: Int[Tensor, " ray"]
    """Class, -1 = unlabelled."""
    hit: Bool[Tensor, " ray"]
    """Whether the ray runs through the box."""
    colored: Bool[Tensor, " ray"] | None = None
    """Whether the ray has a colour; None = all have. Rays of views that have depth alone have none."""
    image_feature: Float[Tensor, "ray channel"] | None = None
    """A row of zeros = none."""
    cluster: Int[Tensor, " ray"] | None = None
    """-1 = none."""
    normal: Float[Tensor, "ray 3"] | None = None
    """Unit length, in the rays' frame, towards the camera; zero = none."""

    def masked(self) -> RayTargets:
        """The same, with nothing measured along rays that miss."""
        hit = self.hit[:, None]
        return replace(
            self,
            color=torch.where(self.hit[:, None], self.color, 0.0),
            distance=torch.where(self.hit, self.distance, NO_DISTANCE),
            label=torch.where(self.hit, self.label, -1),
            image_feature=None if self.image_feature is None else torch.where(hit, self.image_feature, 0.0),
            cluster=None if self.cluster is None else torch.where(self.hit, self.cluster, -1),
            normal=None if self.normal is None else torch.where(hit, self.normal, 0.0),
        )


@dataclass(frozen=True)
class RenderLosses:
    """Each term already weighted. A term that is not used is exactly zero, not absent."""

    color: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    sdf: Float[Tensor, ""]
    free_space: Float[Tensor, ""]
    eikonal: Float[Tensor, ""]
    semantic: Float[Tensor, ""]
    point: Float[Tensor, ""]
    """Of the point head, which the model adds to the terms of rays."""
    image_features: Float[Tensor, ""]
    clusters: Float[Tensor, ""]
    normal: Float[Tensor, ""]
    lift_depth: Float[Tensor, ""]
    """Of the depths that a lift of images estimates, which the model adds."""

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        terms = [getattr(self, term.name) for term in fields(self)]
        # The order of the sum stays: without further targets the total has the bits that it always had.
        return torch.stack(terms[:N_FIRST_TERMS]).sum() + terms[-4] + terms[-3] + terms[-2] + terms[-1]


def render_losses(
    output: RenderOutput,
    targets: RayTargets,
    class_embedding: Float[Tensor, "class channel"] | None,
    config: RenderLossConfig,
) -> RenderLosses:
    """All terms of rays; `targets` are masked. Means are over the rays (samples) of all processes.

    `class_embedding` holds one unit text embedding per class; only the contrastive semantic term needs it.
    """
    distance = targets.distance
    zero = output.distance.new_zeros(())
    semantic = zero
    if config.semantic > 0 and output.semantic is not None:
        semantic = config.semantic * semantic_loss(output, targets, class_embedding, config)
    return RenderLosses(
        color=config.color * color_loss(output, targets, config) if config.color > 0 else zero,
        depth=config.depth * depth_loss(output.distance, distance) if config.depth > 0 else zero,
        sdf=config.sdf * sdf_loss(output, distance, config.truncation) if config.sdf > 0 else zero,
        free_space=config.free_space * free_space_loss(output, distance, config.truncation)
        if config.free_space > 0
        else zero,
        eikonal=config.eikonal * eikonal_loss(output.gradients) if config.eikonal > 0 else zero,
        semantic=semantic,
        point=zero,
        image_features=zero,
        clusters=zero,
        normal=zero,
        lift_depth=zero,
    )


def with_targets(
    losses: RenderLosses,
    output: RenderOutput,
    heads: Mapping[str, Float[Tensor, "ray _"]],
    targets: RayTargets,
    config: TargetsConfig,
) -> RenderLosses:
    """The terms with those of further targets; `targets` are masked, `heads` what is rendered, by target.

    A target that no ray of the batch has gives a zero, as all processes have to exchange their sums.
    """
    if config.image_features is not None:
        rendered = heads["image_features"]
        feature = torch.zeros_like(rendered) if targets.image_feature is None else targets.image_feature
        term = image_feature_loss(rendered, feature, config.image_features.loss)
        losses = replace(losses, image_features=config.image_features.weight * term)
    if config.clusters is not None:
        cluster = torch.full_like(targets.label, -1) if targets.cluster is None else targets.cluster
        term = cluster_loss(heads["clusters"], cluster)
        losses = replace(losses, clusters=config.clusters.weight * term)
    if config.normal is not None:
        normal = torch.zeros_like(output.normal) if targets.normal is None else targets.normal
        losses = replace(losses, normal=config.normal.weight * normal_loss(output.normal, normal))
    return losses


def image_feature_loss(
    rendered: Float[Tensor, "ray channel"],
    feature: Float[Tensor, "ray channel"],
    kind: Literal["cosine", "smooth_l1"],
) -> Float[Tensor, ""]:
    """Mean over the rays that have a feature: 1 - cosine, or the Huber loss (width 1), mean over channels."""
    known = (feature != 0).any(dim=1)
    if kind == "cosine":
        return _masked_mean(1.0 - F.cosine_similarity(rendered, feature, dim=1), known)
    return _masked_mean(F.smooth_l1_loss(rendered, feature, reduction="none").mean(1), known)


def cluster_loss(score: Float[Tensor, "ray cluster"], cluster: Int[Tensor, " ray"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the rays that have a cluster."""
    return _masked_mean(F.cross_entropy(score, cluster.clamp(min=0), reduction="none"), cluster >= 0)


def normal_loss(rendered: Float[Tensor, "ray 3"], normal: Float[Tensor, "ray 3"]) -> Float[Tensor, ""]:
    """|n - m|_1 + |1 - n m| of unit vectors, mean over the rays with a normal. MonoSDF, equation 12."""
    unit = F.normalize(rendered, dim=1, eps=1e-6)
    cosine = (unit * normal).sum(1)
    return _masked_mean((unit - normal).abs().sum(1) + (1.0 - cosine).abs(), (normal != 0).any(dim=1))


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries of the mask, of all processes; zero when there is none."""
    return global_mean((values * mask).sum(), mask.sum().to(values.dtype))


def color_loss(output: RenderOutput, targets: RayTargets, config: RenderLossConfig) -> Float[Tensor, ""]:
    """Mean absolute difference over rays with a colour; zero, with zero gradients, where none has one.

    Rays that miss are black or ignored, by `color_of_misses`.
    """
    counted = _with_color(targets, config)
    return _masked_mean((output.color - targets.color).abs().mean(-1), counted)


def psnr(output: RenderOutput, targets: RayTargets, config: RenderLossConfig) -> Float[Tensor, ""]:
    """Peak signal to noise of the colours that `color_loss` compares, dB, of all processes; nan for none."""
    counted = _with_color(targets, config)
    square = ((output.color.detach() - targets.color).square().mean(-1) * counted).sum()
    total, count = sum_over_processes(torch.stack([square, counted.sum().to(square.dtype)]))
    return -10.0 * torch.log10((total / count).clamp(min=1e-12))


def _with_color(targets: RayTargets, config: RenderLossConfig) -> Bool[Tensor, " ray"]:
    counted = torch.ones_like(targets.hit) if config.color_of_misses else targets.hit
    return counted if targets.colored is None else counted & targets.colored


def depth_loss(rendered: Float[Tensor, " ray"], distance: Float[Tensor, " ray"]) -> Float[Tensor, ""]:
    """Mean absolute difference of distances over rays with a measurement."""
    return _masked_mean((rendered - distance).abs(), distance > 0)


def free_space_loss(
    output: RenderOutput, distance: Float[Tensor, " ray"], truncation: float
) -> Float[Tensor, ""]:
    """In front of the truncation band the signed distance is at least the truncation."""
    free = (distance[:, None] > 0) & (output.starts < distance[:, None] - truncation)
    return _masked_mean(torch.relu(truncation - output.sdf), free)


def sdf_loss(output: RenderOutput, distance: Float[Tensor, " ray"], truncation: float) -> Float[Tensor, ""]:
    """In the band the signed distance equals the remaining distance to the measured surface."""
    to_surface = distance[:, None] - output.starts
    near = (distance[:, None] > 0) & (to_surface.abs() <= truncation)
    return _masked_mean((output.sdf - to_surface).abs(), near)


def eikonal_loss(gradients: Float[Tensor, "ray sample 3"]) -> Float[Tensor, ""]:
    """Mean of (|gradient| - 1)^2 over all samples: a signed distance has slope 1."""
    square = (torch.linalg.vector_norm(gradients, dim=-1) - 1.0).square()
    return global_mean(square.sum(), square.new_tensor(float(square.numel())))


def semantic_loss(
    output: RenderOutput,
    targets: RayTargets,
    class_embedding: Float[Tensor, "class channel"] | None,
    config: RenderLossConfig,
) -> Float[Tensor, ""]:
    """Cross-entropy of rendered semantics over rays with a label and a measurement, not weighted."""
    assert output.semantic is not None
    lowest = 0 if config.supervise_class_zero else 1
    label = torch.where(targets.label >= lowest, targets.label, -1)
    measured = targets.distance > 0
    match config.semantic_target:
        case ClassesConfig():
            counted = measured & (label >= 0)
            entropy = F.cross_entropy(output.semantic, label.clamp(min=0), reduction="none")
            return _masked_mean(entropy, counted)
        case ContrastiveConfig() as contrastive:
            if class_embedding is None:
                raise ValueError("the contrastive semantic loss needs class embeddings")
            return contrastive_loss(
                output.semantic, label, measured, class_embedding, contrastive.temperature
            )
        case _:
            assert_never(config.semantic_target)


def contrastive_loss(
    feature: Float[Tensor, "ray channel"],
    label: Int[Tensor, " ray"],
    measured: Bool[Tensor, " ray"],
    class_embedding: Float[Tensor, "class channel"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Each ray's feature against the targets of all rays of all processes, its own being the right one.

    The published loss forms one logit per pair of rays. Rays of one class have the same target, so one
    logit per class with its number of rays inside the log-sum-exp is the same sum; rays without label have
    the zero vector as target, hence logit 0. Only labelled rays with a measured distance are averaged over.
    """
    n_classes = len(class_embedding)
    counts = torch.bincount(label + 1, minlength=n_classes + 1).to(feature.dtype)
    counts = sum_over_processes(counts)
    logits = F.normalize(feature, dim=-1) @ class_embedding.to(feature.dtype).T / temperature
    logits = F.pad(logits, (1, 0))
    partition = torch.logsumexp(logits + counts.log(), dim=-1)
    own = logits.gather(1, (label + 1)[:, None])[:, 0]
    return _masked_mean(partition - own, measured & (label >= 0))
