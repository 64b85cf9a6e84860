"""Non-maximum suppression of boxes: of those that overlap too much, only the surest stays.

The result is that of the plain greedy loop: from the highest score to the lowest (the earlier one at equal
scores), a box stays unless one that stayed suppresses it. Boxes are rows of seven numbers as in
`box_overlap.py`. With `group` only boxes of the same group meet: the class, the scene of a batch, or one
number for both. Everything returns the indices of the boxes that stay, the surest first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from ponderv2.geometry.box_overlap import (
    PairFunction,
    box_hulls,
    hull_pairs,
    matched_box_iou,
    matched_hull_iou,
    matched_plane_iou,
)

CANDIDATES, FEWEST = 1024, 128
"""Boxes that are decided together: shared by the groups, but that many of each. Fewer compare less where many
overlap, more need fewer passes."""
CENTERPOINT_RADII = (2.0, 12.0**0.5, 10.0**0.5, 1.0, 0.85**0.5, 0.175**0.5)
"""Metres, of the six tasks of CenterPoint on nuScenes: car; truck and construction vehicle; bus and trailer;
barrier; motorcycle and bicycle; pedestrian and cone. The settings say 4, 12, 10, 1, 0.85 and 0.175, which the
code compares with squared distances."""
SLACK = 1.0e-9
"""By which the hulls of circles are wider, relative to radius and coordinates: rounding loses no pair."""

PairTest = Callable[[Int[Tensor, " pair"], Int[Tensor, " pair"]], Bool[Tensor, " pair"]]


def plane_nms(
    boxes: Float[Tensor, "box 7"],
    score: Float[Tensor, " box"],
    max_iou: float,
    group: Int[Tensor, " box"] | None = None,
    at_most: int | None = None,
) -> Int[Tensor, " kept"]:
    """By the IoU of the rectangles in the plane ("rotated NMS"); suppressed where greater than `max_iou`.

    `at_most` boxes of all groups together, the surest.
    """
    return _nms_by_iou(boxes, score, matched_plane_iou, max_iou, group, at_most, dims=2)


def box_nms(
    boxes: Float[Tensor, "box 7"],
    score: Float[Tensor, " box"],
    max_iou: float,
    group: Int[Tensor, " box"] | None = None,
    at_most: int | None = None,
) -> Int[Tensor, " kept"]:
    """By the IoU in space with yaw, as FCAF3D does; suppressed where it is greater than `max_iou`.

    `at_most` boxes of all groups together, the surest.
    """
    return _nms_by_iou(boxes, score, matched_box_iou, max_iou, group, at_most, dims=3)


def hull_nms(
    boxes: Float[Tensor, "box 7"],
    score: Float[Tensor, " box"],
    max_iou: float,
    group: Int[Tensor, " box"] | None = None,
    at_most: int | None = None,
) -> Int[Tensor, " kept"]:
    """By the IoU of the axis-aligned hulls in space, as VoteNet does; suppressed where greater.

    `at_most` boxes of all groups together, the surest.
    """
    return _nms_by_iou(boxes, score, matched_hull_iou, max_iou, group, at_most, dims=3)


def circle_nms(
    boxes: Float[Tensor, "box 7"],
    score: Float[Tensor, " box"],
    radius: float,
    group: Int[Tensor, " box"] | None = None,
    at_most: int | None = None,
) -> Int[Tensor, " kept"]:
    """By the distance of the centres in the plane; suppressed at `radius` metres or nearer.

    Published thresholds are compared with the squared distance: a "radius" of 4 in the settings of
    CenterPoint is 2 m here. `CENTERPOINT_RADII` has them in metres. `at_most` boxes of all groups together,
    the surest.
    """
    if radius < 0.0:
        raise ValueError(f"a radius of at least 0 m is needed, received {radius}")
    square = radius**2
    center = boxes[:, :2].detach().double()

    def suppresses(i: Int[Tensor, " pair"], j: Int[Tensor, " pair"]) -> Bool[Tensor, " pair"]:
        return (center[i] - center[j]).square().sum(dim=1) <= square

    reach = radius + SLACK * (radius + center.abs())
    hulls = torch.stack([center - reach / 2, center + reach / 2], dim=1)
    return _greedy(score, hulls, suppresses, group, at_most)


def _nms_by_iou(
    boxes: Float[Tensor, "box 7"],
    score: Float[Tensor, " box"],
    iou: PairFunction,
    max_iou: float,
    group: Int[Tensor, " box"] | None,
    at_most: int | None,
    dims: int,
) -> Int[Tensor, " kept"]:
    if max_iou < 0.0:
        raise ValueError(f"an IoU of at least 0 is needed, received {max_iou}")
    rows = boxes.detach().double()
    hulls = box_hulls(rows)[..., :dims]
    content = rows[:, 3 : 3 + dims].prod(dim=1)

    def suppresses(i: Int[Tensor, " pair"], j: Int[Tensor, " pair"]) -> Bool[Tensor, " pair"]:
        if iou is matched_hull_iou:
            return iou(rows[i], rows[j]) > max_iou
        # Boxes share no more than their hulls do, which rules out most pairs at little cost.
        span = torch.minimum(hulls[i, 1], hulls[j, 1]) - torch.maximum(hulls[i, 0], hulls[j, 0])
        most_shared = span.clamp(min=0.0).prod(dim=1)
        hit = most_shared * (1.0 + max_iou) * (1.0 + SLACK) >= max_iou * (content[i] + content[j])
        hit[hit.clone()] = iou(rows[i[hit]], rows[j[hit]]) > max_iou
        return hit

    return _greedy(score, hulls, suppresses, group, at_most)


def _greedy(
    score: Float[Tensor, " box"],
    hulls: Float64[Tensor, "box 2 dim"],
    suppresses: PairTest,
    group: Int[Tensor, " box"] | None,
    at_most: int | None,
) -> Int[Tensor, " kept"]:
    """The surest of each group decide among themselves, then those that stay suppress the rest; and again."""
    order = torch.argsort(score, descending=True, stable=True)
    group = torch.zeros_like(order) if group is None else group
    n_candidates = max(FEWEST, CANDIDATES // max(len(torch.unique(group)), 1))
    # By group, the surest first.
    rest = order[torch.argsort(group[order], stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)

    def suppressing(one: Int[Tensor, " n"], other: Int[Tensor, " m"]) -> Int[Tensor, "2 pair"]:
        """Pairs of one and other, as positions in both."""
        found = [rest.new_zeros(2, 0)]
        for i, j in hull_pairs(hulls[one], hulls[other], group[one], group[other]):
            if one is other:
                i, j = i[i < j], j[i < j]
            hit = suppresses(one[i], other[j])
            found.append(torch.stack([i[hit], j[hit]]))
        return torch.cat(found, dim=1)

    kept = rest[:0]
    while len(rest):
        _, size = torch.unique_consecutive(group[rest], return_counts=True)
        first = torch.repeat_interleave(torch.cumsum(size, dim=0) - size, size)
        is_candidate = torch.arange(len(rest), device=rest.device) - first < n_candidates
        candidates, rest = rest[is_candidate], rest[~is_candidate]
        stay = candidates[_first_stay(suppressing(candidates, candidates), len(candidates))]
        kept = torch.cat([kept, stay])
        if len(rest):
            beaten = torch.zeros(len(rest), dtype=torch.bool, device=rest.device)
            beaten[suppressing(stay, rest)[1]] = True
            rest = rest[~beaten]
        if at_most is not None and len(kept) >= at_most and len(rest):
            # Later ones come after the last that is wanted, so the result is complete.
            enough = place[kept].sort().values[at_most - 1] < place[rest].min()
            rest = rest[:0] if bool(enough) else rest
    return kept[place[kept].argsort()][:at_most]


def _first_stay(pairs: Int[Tensor, "2 pair"], n: int) -> Bool[Tensor, " n"]:
    """Who stays of n in descending order, by the pairs of one that suppresses a later one.

    In rounds: whoever is suppressed by nobody who is still undecided stays, and what it suppresses goes.
    """
    gone = torch.zeros(n, dtype=torch.bool, device=pairs.device)
    while pairs.shape[1]:
        waits = torch.zeros_like(gone)
        waits[pairs[1]] = True
        settled = ~waits & ~gone
        gone[pairs[1, settled[pairs[0]]]] = True
        pairs = pairs[:, ~gone[pairs[0]] & ~gone[pairs[1]]]
    return ~gone
