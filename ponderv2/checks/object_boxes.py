"""Do boxes hold the points that their data set counts in them? If not: under which reading would they?

Boxes as in `geometry/boxes.py`: length along the heading, yaw counter-clockwise from x. Metres, radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes

COUNT = "n_lidar"
"""Field of boxes: points that the data set counts inside."""
AGREEING, LEAD = 0.85, 0.1
"""Share of points from which on nobody asks, and by how much another reading must be better."""
FEWEST_POINTS, FEWEST_BOXES = 50, 3
"""Below which nothing is concluded."""
PROPORTIONAL = 0.97
"""Correlation of counted points and those inside, from which on boxes are right however many are missing."""
MOVING = 1.5
"""Metres per second, from which on an object heads where it moves."""
VEHICLE = 4.0
"""Square metres, from which on an object is a vehicle, whose length is larger than its width."""
ENLARGED, ABOVE_GROUND = 1.6, 0.3
"""What counts as beside a box, where no counts are stored: its sides enlarged, above the ground in metres."""
Reading = Callable[[Boxes], Boxes]


@dataclass(frozen=True)
class BoxFinding:
    """How boxes of one or several key frames fit the points."""

    boxes: int
    counted: int
    """Points that the data set counts in them; 0 where it counts none."""
    inside: int
    """Points that lie in them."""
    share: float | None
    """Agreement of both box by box, 0..1; without counts: of the points at boxes, those inside. None: too
    little to compare."""
    cause: str = ""
    best: float | None = None
    """Agreement under the likely cause."""
    note: str = ""
    """What is not wrong enough to be suspect."""


def _swapped(boxes: Boxes) -> Boxes:
    return replace(boxes, size=boxes.size[:, [1, 0, 2]])


def _negated(boxes: Boxes) -> Boxes:
    return replace(boxes, yaw=-boxes.yaw)


def _raised(factor: float) -> Reading:
    def made(boxes: Boxes) -> Boxes:
        up = torch.zeros_like(boxes.center)
        up[:, 2] = factor * boxes.size[:, 2]
        return replace(boxes, center=boxes.center + up)

    return made


QUARTER = "yaws are off by 90 degrees"
SIZES = "length and width are exchanged"
READINGS: tuple[tuple[str, Reading], ...] = (
    (QUARTER, _swapped),
    ("yaws turn the other way round: clockwise", _negated),
    ("yaws turn the other way round, from another axis", lambda one: _swapped(_negated(one))),
    ("centres lie at the bottom of the boxes", _raised(0.5)),
    ("centres lie at the top of the boxes", _raised(-0.5)),
)
"""Exchanged sizes fill the same space as a quarter of a turn: the sizes of vehicles tell which it is."""


def check_boxes(pairs: Sequence[tuple[Float[Tensor, "_ 3"], Boxes]]) -> BoxFinding:
    """Points and boxes of key frames, each in its own frame."""
    n_boxes = sum(len(boxes) for _, boxes in pairs)
    counts = [boxes.fields.get(COUNT) for _, boxes in pairs]
    counted = all(one is not None and bool((one >= 0).all()) for one in counts) and n_boxes > 0
    score = _by_counts if counted else _by_space
    share, inside, total = score(pairs)
    note = ""
    if counted and share is not None and share < AGREEING and _are_proportional(pairs):
        note = f"the scans hold {inside / max(total, 1):.0%} of the points that are counted in boxes"
        score = _by_space
        share, inside, total = score(pairs)
    n_counted = sum(int(one.clamp(min=0).sum()) for one in counts if one is not None) if counted else 0
    heading = _heading([boxes for _, boxes in pairs])
    if share is None or total < FEWEST_POINTS or n_boxes < FEWEST_BOXES:
        return BoxFinding(n_boxes, n_counted, inside, None, heading, note=note)
    cause, best = "", share
    if share < AGREEING:
        for description, reading in READINGS:
            value = score([(points, reading(boxes)) for points, boxes in pairs])[0]
            if value is not None and value > max(best, share + LEAD):
                cause, best = description, value
        if cause == QUARTER and _are_wide([boxes for _, boxes in pairs]):
            cause = SIZES
        if not cause and score is _by_counts and share < 0.5:
            cause = "boxes do not hold the points that are counted in them: other poses, or another scan"
    cause = cause or heading
    better = round(best, 4) if best > share else None
    return BoxFinding(n_boxes, n_counted, inside, round(share, 4), cause, better, note)


def inside_counts(points: Float[Tensor, "point 3"], boxes: Boxes) -> Int[Tensor, " box"]:
    """How many points lie in each box. Points far from a box are not looked at."""
    found = torch.zeros(len(boxes), dtype=torch.long)
    radius = boxes.size.norm(dim=1) / 2
    for index in range(len(boxes)):
        near = (points - boxes.center[index]).abs().amax(dim=1) <= radius[index]
        if bool(near.any()):
            one = boxes.take(torch.tensor([index]))
            found[index] = one.contains(points[near]).sum()
    return found


Score = tuple[float | None, int, int]
"""Agreement, points inside, and points that it is about."""


def _by_counts(pairs: Sequence[tuple[Tensor, Boxes]]) -> Score:
    common = most = inside = 0
    for points, boxes in pairs:
        found, stored = inside_counts(points, boxes), boxes.fields[COUNT].long()
        common += int(torch.minimum(found, stored).sum())
        most += int(torch.maximum(found, stored).sum())
        inside += int(found.sum())
    return (common / most if most else None), inside, most


def _are_proportional(pairs: Sequence[tuple[Tensor, Boxes]]) -> bool:
    """Whether all boxes lack the same part of their points: scans were thinned out, boxes are right."""
    found = torch.cat([inside_counts(points, boxes) for points, boxes in pairs]).double()
    stored = torch.cat([boxes.fields[COUNT] for _, boxes in pairs]).double()
    if len(found) < FEWEST_BOXES or min(float(found.std()), float(stored.std())) == 0.0:
        return False
    return float(torch.corrcoef(torch.stack([found, stored]))[0, 1]) > PROPORTIONAL


def _by_space(pairs: Sequence[tuple[Tensor, Boxes]]) -> Score:
    """A box that fits leaves few points beside it, above the ground."""
    inside = around = 0
    for points, boxes in pairs:
        up = torch.tensor([0.0, 0.0, ABOVE_GROUND / 2])
        size = boxes.size - torch.tensor([0.0, 0.0, ABOVE_GROUND])
        kept = replace(boxes, center=boxes.center + up, size=size.clamp(min=0.1))
        wide = replace(kept, size=kept.size * torch.tensor([ENLARGED, ENLARGED, 1.0]))
        inside += int(inside_counts(points, kept).sum())
        around += int(inside_counts(points, wide).sum())
    return (inside / around if around else None), inside, around


def _are_wide(boxes: Sequence[Boxes]) -> bool:
    """Whether vehicles are wider than long."""
    size = torch.cat([one.size for one in boxes])
    size = size[size[:, 0] * size[:, 1] > VEHICLE]
    return len(size) > 0 and float((size[:, 0] < size[:, 1]).double().mean()) > 0.5


def _heading(boxes: Sequence[Boxes]) -> str:
    """Whether moving objects head elsewhere than they move."""
    velocity, yaw = torch.cat([one.velocity for one in boxes]), torch.cat([one.yaw for one in boxes])
    size = torch.cat([one.size for one in boxes]) if boxes else torch.zeros(0, 3)
    moving = (velocity[:, :2].norm(dim=1) > MOVING) & (size[:, 0] * size[:, 1] > VEHICLE)
    if int(moving.sum()) < FEWEST_BOXES:
        return ""
    course = torch.atan2(velocity[moving, 1], velocity[moving, 0])
    away = (yaw[moving] - course + math.pi) % (2 * math.pi) - math.pi
    median = math.degrees(float(away.abs().median()))
    if median > 135.0:
        return "moving vehicles head against their motion: yaws are off by 180 degrees, or of the other sign"
    if median > 45.0:
        return f"moving vehicles head across their motion: {SIZES if _are_wide(boxes) else QUARTER}"
    return ""
