"""What is annotated at a key frame: boxes where the LiDAR met the objects, points in them, visibility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.streets.camera import StreetView
from ponderv2.synthetic.streets.lidar import Lidar
from ponderv2.synthetic.streets.street import Street

FARTHEST_BOX = 80.0
"""Objects further from the vehicle are not annotated, metres."""
MOST_GAP = 4
"""Key frames without a point that a track is annotated through."""


@dataclass(frozen=True)
class Annotation:
    """A box at a key frame, in the world."""

    actor: int
    key_frame: int
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    """Width, length, height: the order of nuScenes."""
    yaw: float
    n_points: int
    """Points of the key frame's revolution in the box."""
    visibility: int
    """1 to 4: up to 40, 60, 80 and 100 % of its pixels are visible in the images."""
    attribute: str | None


def annotate(
    street: Street,
    lidar: Lidar,
    key_frame: int,
    points: Float[np.ndarray, "point 3"],
    views: Sequence[StreetView],
) -> list[Annotation]:
    """All objects near the vehicle, those without a point included. `points` are in the world, as stored."""
    time = key_frame * 0.5
    ego = street.ego.at(np.array(time))
    found = []
    for number, actor in enumerate(street.actors):
        at = actor.track.at(np.array(time))
        if not actor.track.covers(time) or np.hypot(*(at[:2] - ego[:2])) > FARTHEST_BOX:
            continue
        seen = lidar.seen_at(time, at[:3])
        x, y, z, yaw = (float(one) for one in actor.track.at(np.array(seen)))
        length, width, height = (float(one) for one in actor.model.size)
        center = (x, y, z + height / 2)
        inside = points_in_box(points, center, (length, width, height), yaw)
        found.append(
            Annotation(
                number,
                key_frame,
                center,
                (width, length, height),
                yaw,
                inside,
                visibility_of(number, views),
                actor.attribute(seen),
            )
        )
    return found


def points_in_box(
    points: Float[np.ndarray, "point 3"],
    center: tuple[float, float, float],
    size: tuple[float, float, float],
    yaw: float,
) -> int:
    """How many lie in a box of length, width and height, faces included."""
    near = points[np.abs(points - center).max(axis=1) < max(size)] - center
    along = near[:, 0] * np.cos(yaw) + near[:, 1] * np.sin(yaw)
    across = near[:, 1] * np.cos(yaw) - near[:, 0] * np.sin(yaw)
    local = np.stack([along, across, near[:, 2]], axis=1)
    return int((np.abs(local) <= np.array(size) / 2).all(axis=1).sum())


def visibility_of(number: int, views: Sequence[StreetView]) -> int:
    """The bin of the share of an actor's pixels that nothing covers; 1 where no image shows it."""
    whole = sum(view.alone.get(number, 0) for view in views)
    seen = sum(int((view.actor == number).sum()) for view in views)
    share = seen / whole if whole else 0.0
    return 1 + sum(share > limit for limit in (0.4, 0.6, 0.8))


def tracked(found: Sequence[Annotation]) -> list[Annotation]:
    """Those that belong to a track: between key frames with a point, without long gaps."""
    kept = []
    for actor in sorted({one.actor for one in found}):
        mine = sorted((one for one in found if one.actor == actor), key=lambda one: one.key_frame)
        hit = [one.key_frame for one in mine if one.n_points > 0]
        for one in mine:
            before = [frame for frame in hit if frame <= one.key_frame]
            after = [frame for frame in hit if frame >= one.key_frame]
            if before and after and after[0] - before[-1] <= MOST_GAP:
                kept.append(one)
    return kept
