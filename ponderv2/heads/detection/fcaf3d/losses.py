"""Losses of FCAF3D against the boxes of each scene."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.collectives import global_mean
from ponderv2.geometry.box_overlap import box_rows, matched_box_iou
from ponderv2.geometry.boxes import Boxes
from ponderv2.heads.detection.fcaf3d.box_coding import boxes_of
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.heads.detection.fcaf3d.network import FCAF3DOutputs
from ponderv2.heads.detection.fcaf3d.targets import location_targets

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss."""


def fcaf3d_losses(
    outputs: FCAF3DOutputs,
    boxes: Sequence[Boxes],
    config: FCAF3DHeadConfig,
    level_of_class: tuple[int, ...] | None,
) -> dict[str, Float[Tensor, ""]]:
    """Terms by name, weighted. Each is a mean over the scenes of all processes; of a scene it is a sum over
    its locations divided by the number of those that predict a box (the box term: by their centreness)."""
    every = [_of_scene(outputs, scene, found, config, level_of_class) for scene, found in enumerate(boxes)]
    zero = outputs.logits.sum() * 0
    count = zero.new_tensor(float(len(boxes)))
    weights = config.losses
    totals = [sum((terms[i] for terms in every), start=zero) for i in range(3)]
    return {
        "classification": weights.classification * global_mean(totals[0], count),
        "centerness": weights.centerness * global_mean(totals[1], count),
        "box": weights.box * global_mean(totals[2], count),
    }


def _of_scene(
    outputs: FCAF3DOutputs,
    scene: int,
    boxes: Boxes,
    config: FCAF3DHeadConfig,
    level_of_class: tuple[int, ...] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Of classes, centreness and boxes."""
    rows = (outputs.scene == scene).nonzero()[:, 0]
    location, logits = outputs.location[rows], outputs.logits[rows]
    target = location_targets(location, outputs.level[rows], boxes, config, level_of_class)
    positive = (target.box >= 0).nonzero()[:, 0]
    wanted = boxes.take(target.box[positive])
    n_positive = max(len(positive), 1)
    category = torch.full_like(target.box, -1).index_copy(0, positive, wanted.category)
    predicting = rows[positive]
    central = target.centerness[positive]
    apart = 1 - matched_box_iou(
        boxes_of(outputs.location[predicting], outputs.code[predicting]), box_rows(wanted)
    )
    of_center = F.binary_cross_entropy_with_logits(outputs.centerness[predicting], central, reduction="sum")
    return (
        focal_loss(logits, category) / n_positive,
        of_center / n_positive,
        (apart * central).sum() / central.sum().clamp(min=torch.finfo(central.dtype).tiny),
    )


def focal_loss(logits: Float[Tensor, "row class"], category: Int[Tensor, " row"]) -> Float[Tensor, ""]:
    """Sum over rows and classes of -w (1 - p)^2 log p, p being the probability of what is true of the class;
    w is 0.25 where it is that of the row and 0.75 elsewhere. -1: of no class. RetinaNet, equation 5."""
    truth = F.one_hot(category + 1, logits.shape[1] + 1)[:, 1:].to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    weight = truth * ALPHA + (1 - truth) * (1 - ALPHA)
    return (weight * (1 - torch.exp(-entropy)) ** GAMMA * entropy).sum()
