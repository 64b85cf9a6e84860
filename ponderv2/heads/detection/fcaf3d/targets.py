"""Which box each location of a scene is to predict, and how central it is in it (FCAF3D)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig


@dataclass(frozen=True)
class LocationTargets:
    """Of the locations of one scene."""

    box: Int[Tensor, " location"]
    """Row of the box, -1 = background."""
    centerness: Float[Tensor, " location"]
    """0..1 in the box that is to be predicted, 0 in the background."""


@torch.no_grad()
def location_targets(
    location: Float[Tensor, "location 3"],
    level: Int[Tensor, " location"],
    boxes: Boxes,
    config: FCAF3DHeadConfig,
    level_of_class: tuple[int, ...] | None = None,
) -> LocationTargets:
    """A location predicts a box that it lies in, on the level of the box, among the most central there.

    The level is the last, from the finest on, before the locations inside become fewer than `min_locations`;
    the finest where it already has fewer; with `level_of_class` that of its class. The most central are those
    above the centreness of rank `most_locations` + 1. Of several boxes the smallest counts.
    """
    background = torch.full((len(location),), -1, device=location.device)
    if len(boxes) == 0 or len(location) == 0:
        return LocationTargets(background, location.new_zeros(len(location)))
    inside, centerness = face_centerness(location, boxes)
    if level_of_class is None:
        level_of_box = _levels(inside, level, config)
    else:
        level_of_box = level.new_tensor(level_of_class)[boxes.category]
    of_level = level_of_box == level[:, None]
    centerness = torch.where(inside & of_level, centerness, -1.0)
    if len(location) > config.most_locations:
        bar = centerness.topk(config.most_locations + 1, dim=0).values[-1]
    else:
        bar = centerness.new_full((len(boxes),), -1.0)
    volume = boxes.size.prod(dim=1).to(centerness.dtype)
    smallest, box = torch.where(centerness > bar, volume, torch.inf).min(dim=1)
    found = torch.isfinite(smallest)
    own = centerness.gather(1, box[:, None])[:, 0]
    return LocationTargets(torch.where(found, box, -1), torch.where(found, own, 0.0))


def face_centerness(
    location: Float[Tensor, "location 3"], boxes: Boxes
) -> tuple[Bool[Tensor, "location box"], Float[Tensor, "location box"]]:
    """Which locations lie in which box, not on its faces; sqrt of the product over the axes of the box of the
    smaller distance to a face over the larger: 1 at the centre, 0 at and beyond the faces."""
    x, y, z = (location[:, None] - boxes.center[None]).unbind(dim=-1)
    cosine, sine = torch.cos(boxes.yaw), torch.sin(boxes.yaw)
    in_box = (x * cosine + y * sine, y * cosine - x * sine, z)
    inside = torch.ones_like(x, dtype=torch.bool)
    product = torch.ones_like(x)
    for away, size in zip(in_box, boxes.size.unbind(dim=1), strict=True):
        near, far = size / 2 - away.abs(), size / 2 + away.abs()
        inside &= near > 0
        product = product * near.clamp(min=0.0) / far.clamp(min=torch.finfo(far.dtype).tiny)
    return inside, product.sqrt()


def _levels(
    inside: Bool[Tensor, "location box"], level: Int[Tensor, " location"], config: FCAF3DHeadConfig
) -> Int[Tensor, " box"]:
    """Level that predicts each box."""
    counts = torch.zeros(len(config.widths), inside.shape[1], dtype=torch.long, device=inside.device)
    counts.index_add_(0, level, inside.long())
    enough = (counts >= config.min_locations).long().cumprod(dim=0)
    return (enough.sum(dim=0) - 1).clamp(min=0)
