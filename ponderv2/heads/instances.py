"""Heads of PointGroup: offsets to instance centres, their losses, clustering of points into instances."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.geometry.connected_components import radius_components
from ponderv2.heads.config import GroupingConfig
from ponderv2.sparse.normalisation import BatchNorm

TINY = 1.0e-8


@dataclass(frozen=True)
class InstanceLosses:
    """Terms of equal weight. The direction term lies in -1..1, so that the total may be negative."""

    cross_entropy: Float[Tensor, ""]
    """Mean over the labelled points."""
    offset: Float[Tensor, ""]
    """Mean over the points of instances of |offset - truth|, summed over x, y, z; scene units."""
    direction: Float[Tensor, ""]
    """Mean over the points of instances of minus the cosine between offset and truth."""

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        return torch.stack([getattr(self, term.name) for term in fields(self)]).sum()


def offset_head(n_channels: int) -> nn.Sequential:
    """Features to the offset of each point to the centre of its instance, scene units; names as published."""
    return nn.Sequential(
        nn.Linear(n_channels, n_channels),
        BatchNorm(n_channels, eps=1.0e-3, momentum=0.01),
        nn.ReLU(),
        nn.Linear(n_channels, 3),
    )


def instance_targets(
    segment: Int[Tensor, " point"], instance: Int[Tensor, " point"], ignored: tuple[int, ...]
) -> Int[Tensor, " point"]:
    """Instance of each point, -1 where its class is unknown (-1) or ignored, such as wall and floor."""
    left_out = torch.tensor((-1, *ignored), dtype=segment.dtype, device=segment.device)
    return torch.where(torch.isin(segment, left_out), -1, instance)


def instance_centres(
    coord: Float[Tensor, "point 3"], instance: Int[Tensor, " point"]
) -> Float[Tensor, "point 3"]:
    """Mean position of the points of the instance that each point belongs to; its own position where in none.

    Of the points as they are given: instances cut by a crop have the centre of what is left, as published.
    """
    inside = instance >= 0
    _, number, count = torch.unique(instance[inside], return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), 3, dtype=torch.float64, device=coord.device)
    total.index_add_(0, number, coord[inside].double())
    centre = coord.clone()
    centre[inside] = (total / count[:, None])[number].to(coord.dtype)
    return centre


def instance_losses(
    logits: Float[Tensor, "point class"],
    offset: Float[Tensor, "point 3"],
    target: Float[Tensor, "point 3"],
    segment: Int[Tensor, " point"],
    inside: Bool[Tensor, " point"],
) -> InstanceLosses:
    """Losses of PointGroup, each a mean over the points of all processes.

    `target` is the offset to the centre of the instance of each point, `inside` whether it has an instance;
    `segment` is -1 where a point is to be ignored. Where nothing counts a term is 0 and so are its
    gradients.

    Raises:
        ValueError: a label that there is no score for.
    """
    if len(segment) and int(segment.max()) >= logits.shape[1]:
        raise ValueError(f"label {int(segment.max())} found, but the head has {logits.shape[1]} classes")
    logits, offset, target = logits.float(), offset.float(), target.float()
    entropy = F.cross_entropy(logits, segment, ignore_index=-1, reduction="sum")
    weight = inside.to(offset.dtype)
    distance = (offset - target).abs().sum(dim=1)
    cosine = (_unit(offset) * _unit(target)).sum(dim=1)
    return InstanceLosses(
        cross_entropy=global_mean(entropy, (segment >= 0).sum().to(logits.dtype)),
        offset=global_mean((distance * weight).sum(), weight.sum()),
        direction=global_mean((-cosine * weight).sum(), weight.sum()),
    )


def _unit(vector: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    """Length 1; 0 where the length is 0."""
    return vector / (vector.norm(dim=1, keepdim=True) + TINY)


@dataclass(frozen=True)
class InstanceProposals:
    """Instances that share no point, in the order of their first points."""

    member: Int[Tensor, " point"]
    """Instance of every point, -1 = none."""
    category: Int[Tensor, " instance"]
    """Class of each instance."""
    score: Float[Tensor, " instance"]
    """Mean probability of that class over the points of the instance."""


def group_points(
    position: Float[Tensor, "point 3"],
    logits: Float[Tensor, "point class"],
    scene: Int[Tensor, " point"],
    ignored: tuple[int, ...],
    config: GroupingConfig,
) -> InstanceProposals:
    """Points whose shifted positions are connected, if they are of one scene and of one most probable class.

    `position` is in voxels: (coordinate + predicted offset) / edge of a voxel. Points of the `ignored`
    classes are left out. As published, but for two things: the neighbours of a point are not limited
    (published: the first 1000), and where no point is left there are simply no instances.
    """
    probability = torch.softmax(logits.float(), dim=1)
    n_classes = probability.shape[1]
    category = probability.argmax(dim=1)
    left_out = torch.tensor(ignored, dtype=torch.long, device=category.device)
    kept = torch.nonzero(~torch.isin(category, left_out))[:, 0]
    leader = radius_components(position[kept], scene[kept] * n_classes + category[kept], config.radius)
    first, component, count = torch.unique(leader, return_inverse=True, return_counts=True)
    large = (count >= config.min_linked) & (count > config.more_than)
    number = torch.where(large, torch.cumsum(large, 0) - 1, -1)
    member = torch.full_like(category, -1)
    member[kept] = number[component]
    category_of_instance = category[kept[first[large]]]
    return InstanceProposals(
        member, category_of_instance, _mean_score(probability, member, category_of_instance)
    )


def _mean_score(
    probability: Float[Tensor, "point class"],
    member: Int[Tensor, " point"],
    category: Int[Tensor, " instance"],
) -> Float[Tensor, " instance"]:
    """Mean probability of the class of each instance over its points."""
    inside = torch.nonzero(member >= 0)[:, 0]
    instance_of = member[inside]
    own = probability[inside, category[instance_of]].double()
    total = own.new_zeros(len(category)).index_add_(0, instance_of, own)
    return (total / torch.bincount(instance_of, minlength=len(category))).to(probability.dtype)
