"""Losses of VoteNet against the boxes of each scene."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.geometry.box_overlap import box_rows, matched_box_iou
from ponderv2.geometry.boxes import Boxes
from ponderv2.heads.detection.votenet.box_coding import heading_class, size_of, size_residual, yaw_of
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig
from ponderv2.heads.detection.votenet.network import VoteNetOutputs
from ponderv2.heads.detection.votenet.targets import Matches, joined_boxes, matches, vote_targets

OBJECTNESS_WEIGHTS = (0.2, 0.8)
"""Of none and object."""


def votenet_losses(
    outputs: VoteNetOutputs,
    boxes: Sequence[Boxes],
    mean_size: Float[Tensor, "class 3"],
    config: VoteNetHeadConfig,
) -> dict[str, Float[Tensor, ""]]:
    """Terms by name, weighted. Those of boxes are means over the positive proposals of all processes."""
    # The published padding: a box that proposals are matched with, but that nobody must find.
    slots = [with_zero_slot(one, mean_size) for one in boxes] if config.published_zero_slots else boxes
    matched = matches(outputs.cluster, outputs.offset, slots, config.near, config.far)
    positive = matched.positive.nonzero()[:, 0]
    target = joined_boxes(slots).take(matched.box[positive])
    weights = config.losses
    terms = {
        "vote": weights.vote * _vote(outputs, boxes, config),
        "objectness": weights.objectness * _objectness(outputs, matched),
        "center": weights.center * _center(outputs, boxes, slots, matched.positive),
    }
    return terms | _boxes_of_positives(outputs, positive, target, mean_size, config)


def with_zero_slot(boxes: Boxes, mean_size: Float[Tensor, "class 3"]) -> Boxes:
    """With one more box at the origin, where there are fewer than the published 64."""
    if len(boxes) >= 64:
        return boxes
    nothing = mean_size.new_zeros(1, 3)
    number = torch.zeros(1, dtype=torch.long, device=mean_size.device)
    zero = Boxes(nothing, mean_size[:1], nothing[:, 0], nothing, number, number - 1)
    return joined_boxes([boxes, zero])


def scene_rows(offset: Int[Tensor, " scene"]) -> list[slice]:
    """Rows of each scene, from the exclusive ends."""
    return [slice(start, end) for start, end in pairwise([0, *offset.tolist()])]


def _mean(values: Tensor, rows: Tensor) -> Float[Tensor, ""]:
    """Over all rows of all processes; 0 for none."""
    return global_mean(values.sum(), values.new_tensor(float(len(rows))))


def _vote(outputs: VoteNetOutputs, boxes: Sequence[Boxes], config: VoteNetHeadConfig) -> Float[Tensor, ""]:
    targets = [
        vote_targets(outputs.seed[rows], outputs.vote[rows], found, config.most_votes)
        for rows, found in zip(scene_rows(outputs.seed_offset), boxes, strict=True)
    ]
    target = torch.cat([target for target, _ in targets])
    inside = torch.cat([inside for _, inside in targets])
    away = (outputs.vote[inside] - target[inside]).abs()
    return _mean(away, away)


def _objectness(outputs: VoteNetOutputs, matched: Matches) -> Float[Tensor, ""]:
    """The cross-entropies are weighted by the class, but divided by their number."""
    logits, label = outputs.objectness[matched.counted], matched.positive[matched.counted].long()
    weight = logits.new_tensor(OBJECTNESS_WEIGHTS)
    return _mean(F.cross_entropy(logits, label, weight, reduction="none"), label)


def _center(
    outputs: VoteNetOutputs,
    boxes: Sequence[Boxes],
    slots: Sequence[Boxes],
    positive: Bool[Tensor, " proposal"],
) -> Float[Tensor, ""]:
    """Squared distances from positive proposals to the nearest centre, and from boxes to the nearest one."""
    there, back = [outputs.center[:0, 0]], [outputs.center[:0, 0]]
    for rows, found, padded in zip(scene_rows(outputs.offset), boxes, slots, strict=True):
        center = outputs.center[rows]
        if len(center) and len(padded):
            chosen = center[positive[rows]]
            there.append((chosen[:, None] - padded.center).square().sum(dim=-1).amin(dim=1))
        if len(center) and len(found):
            back.append((found.center[:, None] - center).square().sum(dim=-1).amin(dim=1))
    return sum(
        (_mean(values, values) for values in map(torch.cat, (there, back))), start=outputs.center.sum() * 0
    )


def _boxes_of_positives(
    outputs: VoteNetOutputs,
    positive: Int[Tensor, " positive"],
    target: Boxes,
    mean_size: Float[Tensor, "class 3"],
    config: VoteNetHeadConfig,
) -> dict[str, Float[Tensor, ""]]:
    """Terms of the positive proposals alone, `target` being the box of each."""
    weights, category = config.losses, target.category
    each = torch.arange(len(positive), device=positive.device)
    number, rest = heading_class(target.yaw, config.n_headings)
    heading = outputs.heading_residual[positive][each, number]
    size = outputs.size_residual[positive][each, category]
    size_target = size_residual(target.size, mean_size[category])

    def entropy(logits: Tensor, label: Tensor) -> Float[Tensor, ""]:
        return _mean(F.cross_entropy(logits[positive], label, reduction="none"), label)

    def huber(value: Tensor, wanted: Tensor) -> Float[Tensor, ""]:
        return _mean(F.smooth_l1_loss(value, wanted.to(value), reduction="none"), positive)

    terms = {
        "heading_class": weights.heading_class * entropy(outputs.heading, number),
        "heading_residual": weights.heading_residual * huber(heading, rest),
        "size_class": weights.size_class * entropy(outputs.size, category),
        "size_residual": weights.size_residual * huber(size, size_target),
        "classification": weights.classification * entropy(outputs.logits, category),
    }
    if weights.iou > 0:
        found = torch.cat(
            [
                outputs.center[positive],
                size_of(size, mean_size[category]),
                yaw_of(number, heading, config.n_headings)[:, None],
            ],
            dim=1,
        )
        terms["iou"] = weights.iou * _mean(1 - matched_box_iou(found, box_rows(target)), positive)
    return terms
