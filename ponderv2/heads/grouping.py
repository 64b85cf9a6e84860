"""From a class and an offset per point to objects: the clustering of PointGroup (Jiang et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.connected_components import radius_components
from ponderv2.heads.grouping_config import GroupingConfig


@dataclass(frozen=True)
class FoundObjects:
    """Objects that share no point, in the order of their first points."""

    member: Int[Tensor, " point"]
    """Object of every point, -1 = none."""
    category: Int[Tensor, " object"]
    """Class of each object."""
    score: Float[Tensor, " object"]
    """Mean probability of that class over the points of the object."""


def group_points(
    position: Float[Tensor, "point 3"],
    logits: Float[Tensor, "point class"],
    scene: Int[Tensor, " point"],
    ignored: tuple[int, ...],
    config: GroupingConfig,
) -> FoundObjects:
    """Points whose shifted positions hang together, if they are of one scene and of one most probable class.

    `position` is in voxels: (coordinate + predicted offset) / edge of a voxel. Points of the `ignored`
    classes are left out. As published, but for two things: the neighbours of a point are not limited
    (published: the first 1000), and where no point is left there are simply no objects.
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
    category_of_object = category[kept[first[large]]]
    return FoundObjects(member, category_of_object, _mean_score(probability, member, category_of_object))


def _mean_score(
    probability: Float[Tensor, "point class"],
    member: Int[Tensor, " point"],
    category: Int[Tensor, " object"],
) -> Float[Tensor, " object"]:
    """Mean probability of the class of each object over its points."""
    inside = torch.nonzero(member >= 0)[:, 0]
    of_object = member[inside]
    own = probability[inside, category[of_object]].double()
    total = own.new_zeros(len(category)).index_add_(0, of_object, own)
    return (total / torch.bincount(of_object, minlength=len(category))).to(probability.dtype)
