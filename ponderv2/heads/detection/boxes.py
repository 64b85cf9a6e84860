"""Boxes as heads take and give them: annotated ones of known classes, predicted ones from rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.box_overlap import box_hulls, box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections


def annotated_boxes(boxes: Sequence[Boxes], n_classes: int, turned: bool, like: Tensor) -> list[Boxes]:
    """Those of each scene that are of a class, on the device and of the type of `like`.

    Without `turned` they are the axis-aligned hulls, of yaw 0. Raises ValueError for a class that the head
    does not have.
    """
    found = []
    for scene in boxes:
        known = scene.take(scene.category >= 0)
        if len(known) and int(known.category.max()) >= n_classes:
            raise ValueError(f"class {int(known.category.max())} found, but the head has {n_classes} classes")
        rows = box_rows(known).to(like)
        if not turned:
            hulls = box_hulls(rows)
            size = hulls[:, 1] - hulls[:, 0]
            rows = torch.cat([rows[:, :3], size, torch.zeros_like(rows[:, :1])], dim=1)
        found.append(boxes_of_rows(rows, known.category.to(like.device).long()))
    return found


def boxes_of_rows(rows: Float[Tensor, "box 7"], category: Int[Tensor, " box"]) -> Boxes:
    """From centre, size and yaw; velocity and instance are unknown."""
    return Boxes(
        center=rows[:, :3],
        size=rows[:, 3:6],
        yaw=rows[:, 6],
        velocity=torch.full_like(rows[:, :3], torch.nan),
        category=category,
        instance=torch.full_like(category, -1),
    )


def detections_of_rows(
    rows: Float[Tensor, "box 7"], category: Int[Tensor, " box"], score: Float[Tensor, " box"]
) -> Detections:
    """The surest first."""
    return Detections(boxes_of_rows(rows, category), score).best(len(score))
