"""Axis-aligned boxes around groups of points: what instances of points say about boxes. Metres, z up."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes


def boxes_around_instances(
    coord: Float[Tensor, "point 3"],
    instance: Int[Tensor, " point"],
    category: Int[Tensor, " point"],
) -> Boxes:
    """The smallest box along the axes around the points of each instance, in the order of their numbers.

    The category is the most frequent of its points, the smaller of equally frequent ones. Negative numbers of
    `instance` and `category` mean none; an instance without a category has no box. Yaw and velocity are 0.
    """
    mine = instance >= 0
    numbers, row = torch.unique(instance[mine].long(), return_inverse=True)
    points, classes = coord[mine], category[mine].long()
    index = row[:, None].expand(-1, 3)
    low = points.new_full((len(numbers), 3), torch.inf).scatter_reduce(0, index, points, "amin")
    high = points.new_full((len(numbers), 3), -torch.inf).scatter_reduce(0, index, points, "amax")
    majority = _most_frequent(row, classes, len(numbers))
    boxes = Boxes(
        center=(low + high) / 2,
        size=high - low,
        yaw=points.new_zeros(len(numbers)),
        velocity=points.new_zeros(len(numbers), 3),
        category=majority,
        instance=numbers,
    )
    return boxes.take(majority >= 0)


def _most_frequent(
    row: Int[Tensor, " point"], category: Int[Tensor, " point"], n_rows: int
) -> Int[Tensor, " row"]:
    """The most frequent category of each row, the smallest of several; -1 where there is none."""
    known = category >= 0
    row, category = row[known], category[known]
    n_classes = int(category.max()) + 1 if len(category) else 1
    pairs, count = torch.unique(row * n_classes + category, return_counts=True)
    most = count.new_zeros(n_rows).scatter_reduce(0, pairs // n_classes, count, "amax")
    winners = pairs[count == most[pairs // n_classes]]
    result = category.new_full((n_rows,), n_classes)
    result = result.scatter_reduce(0, winners // n_classes, winners % n_classes, "amin")
    return torch.where(result == n_classes, -1, result)
