"""Where things may stand: overlap of turned boxes, and the growing set of what stands already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ponderv2.scenes.synthetic.parts import Thing
from ponderv2.scenes.synthetic.shell import FloorPlan


@dataclass(frozen=True)
class Solids:
    """Upright boxes, turned about the vertical."""

    corners: Float[np.ndarray, "box 4 2"]
    """Of the base, in order around it."""
    bottom: Float[np.ndarray, " box"]
    top: Float[np.ndarray, " box"]

    def overlaps(self, other: Solids, gap: float = 0.0) -> Bool[np.ndarray, "box other"]:
        """Which pairs share space, or come closer than `gap`."""
        levels = (self.bottom[:, None] < other.top + gap) & (other.bottom < self.top[:, None] + gap)
        return levels & _bases_overlap(self.corners, other.corners, gap)


def solids(boxes: Float[np.ndarray, "box 2 3"], pose: Float[np.ndarray, "4 4"]) -> Solids:
    """Boxes of a thing, in the frame of the room."""
    low, high = boxes[:, 0], boxes[:, 1]
    base = np.stack(
        [low[:, :2], np.stack([high[:, 0], low[:, 1]], 1), high[:, :2], np.stack([low[:, 0], high[:, 1]], 1)],
        axis=1,
    )
    return Solids(base @ pose[:2, :2].T + pose[:2, 3], low[:, 2] + pose[2, 3], high[:, 2] + pose[2, 3])


def _bases_overlap(
    one: Float[np.ndarray, "box 4 2"], two: Float[np.ndarray, "other 4 2"], gap: float
) -> Bool[np.ndarray, "box other"]:
    """Separating axes of rectangles: they overlap unless an edge direction of either separates them."""
    result = np.ones((len(one), len(two)), dtype=bool)
    for rectangles in (one, two):
        for edge in (0, 1):
            axis = rectangles[:, edge + 1] - rectangles[:, edge]
            axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
            if rectangles is one:
                first = np.einsum("nkc,nc->nk", one, axis)[:, None, :]
                second = np.einsum("mkc,nc->nmk", two, axis)
            else:
                first = np.einsum("nkc,mc->nmk", one, axis)
                second = np.einsum("mkc,mc->mk", two, axis)[None]
            result &= (first.min(-1) < second.max(-1) + gap) & (second.min(-1) < first.max(-1) + gap)
    return result


@dataclass(frozen=True)
class Standing:
    """A thing in its place, with the boxes that were computed once."""

    thing: Thing
    whole: Solids
    parts: Solids


def standing(thing: Thing) -> Standing:
    """Compute the boxes of a thing in its place."""
    boxes = thing.boxes()
    whole = np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])[None]
    return Standing(thing, solids(whole, thing.pose), solids(boxes, thing.pose))


class Ground:
    """What stands in a room so far, and where nothing large may stand."""

    def __init__(self, plan: FloorPlan) -> None:
        self.plan = plan
        self.placed: list[Standing] = []
        self._reserved: list[Solids] = []
        self._openings: list[Solids] = []
        self.covered = 0.0
        """Floor area below furniture, square metres."""

    def reserve(
        self, lower: tuple[float, float, float], upper: tuple[float, float, float], pose: np.ndarray
    ) -> None:
        """Keep a box clear of furniture: in front of doors and windows."""
        self._reserved.append(solids(np.array([[lower, upper]], dtype=float), pose))

    def open(
        self, lower: tuple[float, float, float], upper: tuple[float, float, float], pose: np.ndarray
    ) -> None:
        """Keep a box clear of what hangs on walls: doors and windows."""
        self._openings.append(solids(np.array([[lower, upper]], dtype=float), pose))

    def put(self, thing: Thing) -> None:
        """Place a thing without asking."""
        self.placed.append(standing(thing))

    def try_put(self, thing: Thing, gap: float = 0.03, nested: bool = False) -> bool:
        """Place a thing if it fits. `nested` things may stand under or between the parts of others."""
        candidate = standing(thing)
        if not self.plan.contains(candidate.whole.corners).all() or self._crosses_inner_corner(
            candidate.whole
        ):
            return False
        if candidate.whole.top.max() > self.plan.height:
            return False
        zones = self._openings if thing.name == "picture" else () if nested else self._reserved
        if any(candidate.whole.overlaps(zone).any() for zone in zones):
            return False
        near = self._near(candidate.whole, gap)
        if near and not nested:
            return False
        if any(candidate.parts.overlaps(other.parts, min(gap, 0.004)).any() for other in near):
            return False
        self.placed.append(candidate)
        if not nested:
            extent = thing.bounds()[1] - thing.bounds()[0]
            self.covered += float(extent[0] * extent[1])
        return True

    def _near(self, whole: Solids, gap: float) -> list[Standing]:
        """What has a box around it that overlaps."""
        if not self.placed:
            return []
        wholes = Solids(
            np.concatenate([item.whole.corners for item in self.placed]),
            np.concatenate([item.whole.bottom for item in self.placed]),
            np.concatenate([item.whole.top for item in self.placed]),
        )
        return [self.placed[index] for index in np.flatnonzero(whole.overlaps(wholes, gap)[0])]

    def _crosses_inner_corner(self, whole: Solids) -> bool:
        base, corners = whole.corners[0], self.plan.corners
        edges = np.roll(base, -1, axis=0) - base
        offset = corners[:, None] - base[None]
        left_of = edges[:, 0] * offset[..., 1] - edges[:, 1] * offset[..., 0]
        return bool((left_of > 0).all(axis=1).any())
