"""Boxes and the points on their surfaces: scenes that a detector can learn in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ponderv2.geometry.box_overlap import box_iou, box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.volumes import FeatureVolume

SIZES = ((1.6, 0.7, 0.6), (0.7, 0.45, 1.0), (0.9, 0.6, 0.4))
"""Length, width, height of each class."""
CLASSES = ("sofa", "cabinet", "table")


def boxes_of(rows: Tensor, category: Tensor) -> Boxes:
    unknown = torch.full((len(rows), 3), torch.nan)
    number = torch.arange(len(rows))
    return Boxes(rows[:, :3], rows[:, 3:6], rows[:, 6], unknown, category, number)


def random_boxes(rng: torch.Generator, n: int = 6, turned: bool = True, room: float = 5.0) -> Boxes:
    """Apart from each other, standing on the floor."""
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))[torch.randperm(9, generator=rng)[:n]]
    category = torch.arange(n) % len(SIZES)
    size = torch.tensor(SIZES)[category] * (0.9 + 0.2 * torch.rand(n, 1, generator=rng))
    jitter = 0.2 * torch.rand(n, 2, generator=rng)
    yaw = (2 * torch.rand(n, generator=rng) - 1) * math.pi if turned else torch.zeros(n)
    rows = torch.cat([places * room / 3 + 0.9 + jitter, size[:, 2:] / 2, size, yaw[:, None]], dim=1)
    return boxes_of(rows, category)


def surface_points(boxes: Boxes, rng: torch.Generator, n: int = 200) -> Tensor:
    """`n` points on the faces of each box, and some of the floor."""
    inside = torch.rand(len(boxes), n, 3, generator=rng) - 0.5
    axis = torch.randint(3, (len(boxes), n, 1), generator=rng)
    side = torch.where(torch.rand(len(boxes), n, 1, generator=rng) < 0.5, -0.5, 0.5)
    local = inside.scatter(2, axis, side) * boxes.size[:, None]
    cosine, sine = torch.cos(boxes.yaw)[:, None], torch.sin(boxes.yaw)[:, None]
    x = local[..., 0] * cosine - local[..., 1] * sine
    y = local[..., 0] * sine + local[..., 1] * cosine
    on_boxes = (torch.stack([x, y, local[..., 2]], dim=-1) + boxes.center[:, None]).flatten(0, 1)
    floor = torch.rand(400, 3, generator=rng) * torch.tensor([6.5, 6.5, 0.0])
    return torch.cat([on_boxes, floor])


def batch(scenes: list[Boxes], rng: torch.Generator, channels: int = 16) -> PointFeatures:
    """Features that say of what class and where in its box a point is, and noise: as of an encoder."""
    coord, feature = [], []
    for boxes in scenes:
        points = surface_points(boxes, rng)
        known = torch.zeros(len(points), channels)
        inside = boxes.contains(points + torch.tensor([0.0, 0.0, 1e-3]))
        for number in range(len(boxes)):
            own, category, yaw = inside[number], int(boxes.category[number]), boxes.yaw[number]
            known[own, category] = 1.0
            known[own, 3:6] = points[own] - boxes.center[number]
            known[own, 6:8] = torch.stack([torch.cos(yaw), torch.sin(yaw)])
        coord.append(points)
        feature.append(known + 0.02 * torch.randn(known.shape, generator=rng))
    ends = torch.tensor([len(points) for points in coord]).cumsum(0)
    return PointFeatures(torch.cat(feature), torch.cat(coord), ends)


def alone(features: PointFeatures, scene: int) -> PointFeatures:
    """One scene of a batch."""
    start = int(features.offset[scene - 1]) if scene else 0
    rows = slice(start, int(features.offset[scene]))
    coord = features.coord[rows]
    return PointFeatures(features.feature[rows], coord, torch.tensor([len(coord)]))


def no_points(n_scenes: int, channels: int = 16) -> PointFeatures:
    return PointFeatures(torch.zeros(0, channels), torch.zeros(0, 3), torch.zeros(n_scenes, dtype=torch.long))


def volume(channels: int = 16) -> FeatureVolume:
    return FeatureVolume(torch.zeros(1, channels, 2, 2, 2), torch.zeros(1, 3), torch.ones(1, 3))


def recall(found: list[Detections], scenes: list[Boxes], iou: float = 0.25, sure: float = 0.0) -> float:
    """Share of the boxes that a detection of their class overlaps."""
    hits, n = 0, 0
    for detections, boxes in zip(found, scenes, strict=True):
        sure_ones = detections.take(detections.score > sure)
        overlap = box_iou(box_rows(boxes), box_rows(sure_ones.boxes))
        same = boxes.category[:, None] == sure_ones.boxes.category
        hits += int(((overlap > iou) & same).any(dim=1).sum())
        n += len(boxes)
    return hits / max(n, 1)


def precision(found: list[Detections], scenes: list[Boxes], iou: float = 0.25, sure: float = 0.0) -> float:
    """Share of the detections that overlap a box of their class."""
    hits, n = 0, 0
    for detections, boxes in zip(found, scenes, strict=True):
        sure_ones = detections.take(detections.score > sure)
        overlap = box_iou(box_rows(boxes), box_rows(sure_ones.boxes))
        same = boxes.category[:, None] == sure_ones.boxes.category
        hits += int(((overlap > iou) & same).any(dim=0).sum())
        n += len(sure_ones)
    return hits / max(n, 1)
