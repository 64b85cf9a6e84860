"""Overlap of upright boxes: in the plane, in space and of their axis-aligned hulls.

Boxes are rows of seven numbers: centre, size (length along the heading, width, height), yaw counter-clockwise
from +x; metres, radians, finite, sizes not negative. Everything is computed in double precision in the frame
of one box of the pair, so that float32 boxes far from the origin overlap as exactly as those near it.

All pairs cost what the pairs with overlapping hulls cost: the others are never formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes

PAIRS_AT_ONCE = 1 << 16
"""Pairs of boxes that are formed together: bounds memory, and they stay in the cache of a processor."""
TINY = 1.0e-100
"""Lengths below it, metres, are zero where they would divide."""
ROUNDING = 1.0e-12
"""Overlaps below this share of the smaller rectangle are 0."""
AROUND = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
"""Signs of length and width at the corners of a rectangle, counter-clockwise."""

PairFunction = Callable[[Float64[Tensor, "pair 7"], Float64[Tensor, "pair 7"]], Float64[Tensor, " pair"]]


def box_rows(boxes: Boxes) -> Float[Tensor, "box 7"]:
    """Centre, size and yaw of each box in one row."""
    return torch.cat([boxes.center, boxes.size, boxes.yaw[:, None]], dim=1)


# ---------------------------------------------------------------------------------------------- matched pairs


def matched_plane_overlap(
    first: Float[Tensor, "pair 7"], second: Float[Tensor, "pair 7"]
) -> Float[Tensor, " pair"]:
    """Area that the rectangles of each pair share in the plane, square metres; exact.

    By vertical slices in the frame of the first rectangle: each edge of the second one adds the signed area
    between it, cut off at the sides, and the lower side. No vertices are sorted and nothing is decided by a
    tolerance, so the area is continuous where edges coincide. It has first derivatives, finite everywhere;
    second ones are not available.
    """
    return _plane_area(first.double(), second.double()).to(first.dtype)


def matched_plane_iou(
    first: Float[Tensor, "pair 7"], second: Float[Tensor, "pair 7"]
) -> Float[Tensor, " pair"]:
    """Intersection over union of each pair in the plane; 0 for two without area. First derivatives."""
    return _plane_iou(first.double(), second.double()).to(first.dtype)


def matched_box_overlap(
    first: Float[Tensor, "pair 7"], second: Float[Tensor, "pair 7"]
) -> Float[Tensor, " pair"]:
    """Volume that the boxes of each pair share, cubic metres. First derivatives, finite."""
    return _box_volume(first.double(), second.double()).to(first.dtype)


def matched_box_iou(
    first: Float[Tensor, "pair 7"], second: Float[Tensor, "pair 7"]
) -> Float[Tensor, " pair"]:
    """Intersection over union of each pair in space; 0 for two without volume. First derivatives, finite.

    1 minus it is the rotated IoU loss of FCAF3D. Pairs that do not touch have no gradient.
    """
    return _box_iou(first.double(), second.double()).to(first.dtype)


def matched_hull_iou(
    first: Float[Tensor, "pair 7"], second: Float[Tensor, "pair 7"]
) -> Float[Tensor, " pair"]:
    """Intersection over union of the axis-aligned hulls of each pair in space; 0 for two without volume."""
    return _hull_iou(first.double(), second.double()).to(first.dtype)


# -------------------------------------------------------------------------------------------------- all pairs


def plane_overlap(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"]) -> Float[Tensor, "n m"]:
    """Area that any two rectangles share in the plane, square metres. No gradient."""
    return _all_pairs(first, second, _plane_area)


def plane_iou(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"]) -> Float[Tensor, "n m"]:
    """Intersection over union in the plane of any two boxes. No gradient."""
    return _all_pairs(first, second, _plane_iou)


def box_overlap(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"]) -> Float[Tensor, "n m"]:
    """Volume that any two boxes share, cubic metres. No gradient."""
    return _all_pairs(first, second, _box_volume)


def box_iou(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"]) -> Float[Tensor, "n m"]:
    """Intersection over union in space of any two boxes. No gradient."""
    return _all_pairs(first, second, _box_iou)


def hull_iou(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"]) -> Float[Tensor, "n m"]:
    """Intersection over union in space of the axis-aligned hulls of any two boxes. No gradient."""
    return _all_pairs(first, second, _hull_iou)


def box_hulls(boxes: Float[Tensor, "box 7"]) -> Float[Tensor, "box 2 3"]:
    """Lowest and highest corner of the axis-aligned hull of each box."""
    half = _half_hull(boxes)
    return torch.stack([boxes[:, :3] - half, boxes[:, :3] + half], dim=1)


def hull_pairs(
    first: Float[Tensor, "n 2 dim"],
    second: Float[Tensor, "m 2 dim"],
    first_group: Int[Tensor, " n"] | None = None,
    second_group: Int[Tensor, " m"] | None = None,
) -> Iterator[tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]]:
    """Pairs of one group whose axis-aligned hulls share a point, in blocks of at most 65,536.

    Hulls are their lowest and highest corners. They are swept along the axis on which they spread most:
    whoever begins within another one forms a pair with it, and the other axes are compared.
    """
    if not len(first) or not len(second):
        return
    edges = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    axis = int((edges.amax(dim=0) - edges.amin(dim=0)).argmax())
    ends, rank = torch.unique(edges[:, axis], return_inverse=True)
    begin, end = rank[: 2 * len(first)].reshape(-1, 2).T.contiguous()
    other_begin, other_end = rank[2 * len(first) :].reshape(-1, 2).T.contiguous()
    if first_group is not None and second_group is not None:
        _, group = torch.unique(torch.cat([first_group, second_group]), return_inverse=True)
        shift, other_shift = (group * len(ends)).split([len(first), len(second)])
        begin, end = begin + shift, end + shift
        other_begin, other_end = other_begin + other_shift, other_end + other_shift
    others = [one for one in range(edges.shape[1]) if one != axis]
    # One array per side and axis: rows are gathered faster from them.
    columns = [
        [hull[:, side, one].contiguous() for one in others] for hull in (first, second) for side in (0, 1)
    ]

    def touching(
        i: Int[Tensor, " pair"], j: Int[Tensor, " pair"]
    ) -> tuple[Int[Tensor, " touching"], Int[Tensor, " touching"]]:
        for low, high, other_low, other_high in zip(*columns, strict=True):
            touch = (low[i] <= other_high[j]) & (other_low[j] <= high[i])
            i, j = i[touch], j[touch]
        return i, j

    for i, j in _within(begin, end, other_begin, begins_too=True):
        yield touching(i, j)
    for j, i in _within(other_begin, other_end, begin, begins_too=False):
        yield touching(i, j)


def _within(
    begin: Int[Tensor, " n"], end: Int[Tensor, " n"], position: Int[Tensor, " m"], begins_too: bool
) -> Iterator[tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]]:
    """Pairs of an interval and a position between its ends, in blocks."""
    ordered, order = torch.sort(position)
    low = torch.searchsorted(ordered, begin, right=not begins_too)
    count = (torch.searchsorted(ordered, end, right=True) - low).clamp(min=0)
    last = torch.cumsum(count, dim=0)
    for start in range(0, int(last[-1]), PAIRS_AT_ONCE):
        number = torch.arange(start, min(start + PAIRS_AT_ONCE, int(last[-1])), device=begin.device)
        interval = torch.searchsorted(last, number, right=True)
        nth = number - (last - count)[interval]
        yield interval, order[low[interval] + nth]


def _all_pairs(
    first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"], measure: PairFunction
) -> Float[Tensor, "n m"]:
    """A measure that is 0 for pairs whose hulls are apart in the plane."""
    table = first.new_zeros(len(first), len(second))
    near, far = first.detach().double(), second.detach().double()
    for i, j in hull_pairs(box_hulls(near)[..., :2], box_hulls(far)[..., :2]):
        table[i, j] = measure(near[i], far[j]).to(table.dtype)
    return table


# -------------------------------------------------------------------------- the formulas, in double precision


def _plane_area(
    first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]
) -> Float64[Tensor, " pair"]:
    corners = _corners_in_frame(first, second)
    half, width = first[:, 3:4] / 2, first[:, 4:5]
    x, y = corners[..., 0], corners[..., 1] + width / 2
    cut = torch.maximum(torch.minimum(x, half), -half)
    next_x, next_y, next_cut = (torch.roll(values, -1, dims=1) for values in (x, y, cut))
    run = next_x - x
    run = torch.where(run.abs() > TINY, run, torch.ones_like(run))
    rise = next_y - y
    from_y = y + ((cut - x) / run).clamp(0.0, 1.0) * rise
    to_y = next_y - ((next_x - next_cut) / run).clamp(0.0, 1.0) * rise
    height = _mean_clamped(from_y, to_y, width)
    area = ((cut - next_cut) * height).sum(dim=1)
    smaller = torch.minimum(_area(first), _area(second))
    return torch.where(area > ROUNDING * smaller, torch.minimum(area, smaller), torch.zeros_like(area))


def _corners_in_frame(
    first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]
) -> Float64[Tensor, "pair 4 2"]:
    """Corners of the second rectangle, counter-clockwise, seen from the centre and heading of the first."""
    away = second[:, :2] - first[:, :2]
    cosine, sine = torch.cos(first[:, 6]), torch.sin(first[:, 6])
    ahead = away[:, 0] * cosine + away[:, 1] * sine
    left = away[:, 1] * cosine - away[:, 0] * sine
    signs = torch.tensor(AROUND, dtype=first.dtype, device=first.device) / 2
    along, across = signs[:, 0] * second[:, 3:4], signs[:, 1] * second[:, 4:5]
    turn = (second[:, 6] - first[:, 6])[:, None]
    cosine, sine = torch.cos(turn), torch.sin(turn)
    x = ahead[:, None] + along * cosine - across * sine
    y = left[:, None] + along * sine + across * cosine
    return torch.stack([x, y], dim=-1)


def _mean_clamped(
    start: Float64[Tensor, "pair edge"], stop: Float64[Tensor, "pair edge"], top: Float64[Tensor, "pair 1"]
) -> Float64[Tensor, "pair edge"]:
    """Mean of clamp(y, 0, top) while y runs from start to stop.

    The parts of the way below, between and above are constants to the gradient: where y crosses a limit, the
    clamped value is continuous, so that moving the crossing changes nothing in first order.
    """
    with torch.no_grad():
        rise = stop - start
        # Level ones fall by next to nothing, which decides them by where they are.
        rise = torch.where(rise.abs() > TINY, rise, torch.full_like(rise, -TINY))
        at_bottom = (-start / rise).clamp(0.0, 1.0)
        at_top = ((top - start) / rise).clamp(0.0, 1.0)
        enters, leaves = torch.minimum(at_bottom, at_top), torch.maximum(at_bottom, at_top)
        above = torch.where(rise > 0, 1.0 - leaves, enters)
    inside = (leaves - enters) * (start + (enters + leaves) / 2 * (stop - start))
    return above * top + inside


def _area(boxes: Float64[Tensor, "pair 7"]) -> Float64[Tensor, " pair"]:
    return boxes[:, 3] * boxes[:, 4]


def _ratio(
    shared: Float64[Tensor, " pair"], one: Float64[Tensor, " pair"], other: Float64[Tensor, " pair"]
) -> Float64[Tensor, " pair"]:
    """Shared over union; 0 where the union is empty."""
    union = one + other - shared
    return shared / torch.where(union > 0, union, torch.ones_like(union))


def _plane_iou(
    first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]
) -> Float64[Tensor, " pair"]:
    return _ratio(_plane_area(first, second), _area(first), _area(second))


def _box_volume(
    first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]
) -> Float64[Tensor, " pair"]:
    return _plane_area(first, second) * _shared_span(
        second[:, 2] - first[:, 2], first[:, 5] / 2, second[:, 5] / 2
    )


def _box_iou(first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]) -> Float64[Tensor, " pair"]:
    volumes = (boxes[:, 3:6].prod(dim=1) for boxes in (first, second))
    return _ratio(_box_volume(first, second), *volumes)


def _hull_iou(
    first: Float64[Tensor, "pair 7"], second: Float64[Tensor, "pair 7"]
) -> Float64[Tensor, " pair"]:
    half, other_half = _half_hull(first), _half_hull(second)
    shared = _shared_span(second[:, :3] - first[:, :3], half, other_half).prod(dim=1)
    return _ratio(shared, (2 * half).prod(dim=1), (2 * other_half).prod(dim=1))


def _shared_span(
    away: Float64[Tensor, "..."], half: Float64[Tensor, "..."], other_half: Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """Length that two intervals share, from the second middle seen from the first, and half their lengths."""
    apart = torch.minimum(half, away + other_half) - torch.maximum(-half, away - other_half)
    return apart.clamp(min=0.0)


def _half_hull(boxes: Float[Tensor, "box 7"]) -> Float[Tensor, "box 3"]:
    """Half the size of the axis-aligned hull."""
    cosine, sine = torch.cos(boxes[:, 6]).abs(), torch.sin(boxes[:, 6]).abs()
    length, width, height = (boxes[:, 3:6] / 2).unbind(dim=1)
    return torch.stack([length * cosine + width * sine, length * sine + width * cosine, height], dim=1)
