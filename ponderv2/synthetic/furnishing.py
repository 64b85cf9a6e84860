"""Furnishes a room: what stands where, without overlaps and with free doors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ponderv2.synthetic.furniture import bed, bookshelf, cabinet, chair, desk, sofa, table
from ponderv2.synthetic.materials import Style, painting_material
from ponderv2.synthetic.parts import Thing, shift, turn_z
from ponderv2.synthetic.props import lamp, plant, small_prop, television
from ponderv2.synthetic.shell import FloorPlan, Opening, make_curtain, make_door, make_picture, make_window

RECIPES: dict[str, str] = {
    "bedroom": "bed 1 wardrobe .8 bedside .9 desk .55 bookshelf .5 chest .5 chair .7 bed .2 sofa .3 "
    "screen .3 dining .3 lamp .6 plant .6",
    "living": "sofa 1 screen .85 coffee .8 bookshelf .75 dining .6 sofa .6 sideboard .6 chair .4 desk .3 "
    "bed .2 lamp .7 plant .8 plant .3",
    "office": "desk 1 bookshelf .9 desk .7 sideboard .5 wardrobe .5 desk .3 dining .6 bookshelf .5 sofa .4 "
    "chair .6 bed .2 screen .2 lamp .5 plant .6",
    "studio": "bed .9 sofa .8 dining .8 bookshelf .7 desk .6 screen .5 wardrobe .6 coffee .4 chest .4 "
    "chair .6 lamp .6 plant .6",
}
"""Per kind of room: what is tried in order, and with which probability."""


def furnish(
    rng: np.random.Generator, ground: Ground, style: Style, openings: tuple[Opening, ...], fullness: float
) -> None:
    """Put everything into the room."""
    _openings(rng, ground, style, openings)
    words = RECIPES[str(rng.choice(list(RECIPES)))].split()
    recipe = list(zip(words[0::2], map(float, words[1::2]), strict=True))
    target = fullness * ground.plan.area()
    for item, probability in recipe:
        if rng.random() < probability and ground.covered < target:
            _furniture(rng, ground, style, item)
    for index in rng.permutation(len(recipe)):
        if ground.covered < 0.6 * target:
            _furniture(rng, ground, style, recipe[index][0])
    _pictures(rng, ground, style)
    _hanging_lamps(rng, ground, style)
    _on_surfaces(rng, ground, style)
    _on_floor(rng, ground, style)


def _openings(rng: np.random.Generator, ground: Ground, style: Style, openings: tuple[Opening, ...]) -> None:
    for opening in openings:
        x, y, turn = ground.plan.on_wall(opening.wall, opening.left)
        width = opening.right - opening.left
        pose = shift(x, y, 0.0) @ turn_z(turn)
        ground.open((-0.1, -0.2, opening.bottom - 0.1), (width + 0.1, 0.2, opening.top + 0.1), pose)
        if opening.kind == "door":
            ground.put(make_door(rng, style, opening).at(x, y, 0.0, turn))
            ground.reserve((-0.1, 0.0, 0.0), (width + 0.1, 0.75, 2.0), pose)
            continue
        ground.put(make_window(rng, style, opening).at(x, y, 0.0, turn))
        ground.reserve((0.0, 0.0, opening.bottom + 0.15), (width, 0.4, opening.top), pose)
        for side in (-1.0, 1.0):
            if rng.random() < 0.55:
                curtain = make_curtain(rng, style, opening, ground.plan.height, side)
                ground.try_put(curtain.at(x, y, 0.0, turn), gap=0.0, nested=True)


def _furniture(rng: np.random.Generator, ground: Ground, style: Style, item: str) -> None:
    """One piece, with what belongs to it."""
    match item:
        case "bed":
            _against_wall(rng, ground, bed(rng, style))
        case "sofa":
            (_against_wall if rng.random() < 0.8 else _anywhere)(rng, ground, sofa(rng, style))
        case "coffee":
            _anywhere(rng, ground, table(rng, style, low=True))
        case "bookshelf":
            _against_wall(rng, ground, bookshelf(rng, style))
        case "chair":
            _anywhere(rng, ground, chair(rng, style))
        case "plant":
            _near_wall(rng, ground, plant(rng, style, float(rng.uniform(0.6, 1.6))))
        case "lamp":
            _near_wall(rng, ground, lamp(rng, style, "floor"))
        case "desk" | "dining" | "screen":
            _group(rng, ground, style, item)
        case _:
            _against_wall(rng, ground, cabinet(rng, style, item))


def _group(rng: np.random.Generator, ground: Ground, style: Style, item: str) -> None:
    """A desk with chair and screen, a table with chairs, or a cabinet with a screen."""
    if item == "dining":
        place = _anywhere if rng.random() < 0.7 else _against_wall
        placed = place(rng, ground, table(rng, style))
        if placed:
            _seats(rng, ground, style, placed, n_seats=int(rng.integers(1, 5)))
    elif item == "desk":
        placed = _against_wall(rng, ground, desk(rng, style))
        if placed:
            _seats(rng, ground, style, placed, n_seats=1)
            if rng.random() < 0.7:
                _stand_on(rng, ground, placed, television(rng, style, desk=True), jitter=0.25)
    else:
        placed = _against_wall(rng, ground, cabinet(rng, style, "sideboard"))
        if placed:
            _stand_on(rng, ground, placed, television(rng, style, desk=False), jitter=0.12)


def _against_wall(rng: np.random.Generator, ground: Ground, thing: Thing, tries: int = 25) -> Thing | None:
    """The thing with its back to a wall, or None where nothing is free."""
    lengths = ground.plan.lengths()
    low, high = thing.bounds()
    for _ in range(tries):
        wall = int(rng.choice(len(lengths), p=lengths / lengths.sum()))
        space = lengths[wall] - (high[0] - low[0]) - 0.06
        if space <= 0:
            continue
        share = rng.random() if rng.random() < 0.6 else float(rng.integers(2))
        along = 0.03 - low[0] + share * space
        tilt = float(rng.normal(0.0, 0.04)) if rng.random() < 0.3 else 0.0
        off = 0.02 - low[1] + rng.uniform(0.0, 0.05) + abs(tilt) * (high[0] - low[0]) / 2
        x, y, turn = ground.plan.on_wall(wall, float(along), float(off))
        placed = thing.at(x, y, 0.0, turn + tilt)
        if ground.try_put(placed):
            return placed
    return None


def _anywhere(rng: np.random.Generator, ground: Ground, thing: Thing, tries: int = 20) -> Thing | None:
    low, high = ground.plan.corners.min(axis=0), ground.plan.corners.max(axis=0)
    for _ in range(tries):
        x, y = rng.uniform(low, high)
        turn = float(rng.integers(4)) * np.pi / 2 + float(rng.normal(0.0, 0.15))
        placed = thing.at(float(x), float(y), 0.0, turn)
        if ground.try_put(placed, gap=0.12):
            return placed
    return None


def _near_wall(rng: np.random.Generator, ground: Ground, thing: Thing, tries: int = 15) -> None:
    reach = float(np.abs(thing.bounds()[:, :2]).max()) + 0.04
    for _ in range(tries):
        wall = int(rng.integers(len(ground.plan.corners)))
        along = float(rng.uniform(0.0, ground.plan.lengths()[wall]))
        x, y, _ = ground.plan.on_wall(wall, along, reach + float(rng.uniform(0.0, 0.3)))
        if ground.try_put(thing.at(x, y, 0.0, float(rng.uniform(0, 2 * np.pi)))):
            return


def _seats(rng: np.random.Generator, ground: Ground, style: Style, target: Thing, n_seats: int) -> None:
    """Chairs of one design around a table or in front of a desk, often pushed under the plate."""
    seat_seed = int(rng.integers(2**31))
    low, high = target.bounds()
    sides = [(0.0, 1.0)] if target.name == "desk" else [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0)]
    for index in range(n_seats):
        for _ in range(6):
            side = (
                sides[(index + int(rng.integers(len(sides)))) % len(sides)]
                if n_seats < 3
                else sides[index % len(sides)]
            )
            design = chair(np.random.default_rng(seat_seed), style)
            reach = float(design.bounds()[1, 1])
            middle = (low[:2] + high[:2]) / 2
            half = (high[:2] - low[:2]) / 2
            spot = middle + np.array(side) * (half + reach - rng.uniform(-0.1, 0.3))
            spot = spot + np.array(side)[::-1] * rng.uniform(-0.5, 0.5) * half
            facing = np.arctan2(-side[1], -side[0]) - np.pi / 2 + rng.normal(0.0, 0.2)
            placed = target.pose @ shift(float(spot[0]), float(spot[1]), 0.0) @ turn_z(float(facing))
            turn = float(np.arctan2(placed[1, 0], placed[0, 0]))
            if ground.try_put(design.at(float(placed[0, 3]), float(placed[1, 3]), 0.0, turn), nested=True):
                break


def _stand_on(rng: np.random.Generator, ground: Ground, support: Thing, thing: Thing, jitter: float) -> bool:
    """Put a thing on a surface of another, facing the same way within `jitter` radians."""
    if not support.surfaces:
        return False
    surface = support.surfaces[int(rng.integers(len(support.surfaces)))]
    low, high = thing.bounds()
    for _ in range(8):
        turn = float(rng.normal(0.0, jitter)) if jitter < 1.0 else float(rng.uniform(0, 2 * np.pi))
        reach = np.abs(np.stack([low[:2], high[:2]])).max() if jitter >= 1.0 else 0.0
        lower = np.array(surface.lower) - (low[:2] if jitter < 1.0 else -reach)
        upper = np.array(surface.upper) - (high[:2] if jitter < 1.0 else reach)
        if np.any(lower > upper):
            middle = (lower + upper) / 2
            lower, upper = np.minimum(lower, middle), np.maximum(lower, middle)
            lower = upper = np.where(lower > upper, middle, (lower + upper) / 2)
        x, y = rng.uniform(lower, upper)
        pose = support.pose @ shift(float(x), float(y), surface.height + 0.002)
        yaw = float(np.arctan2(pose[1, 0], pose[0, 0])) + turn
        if ground.try_put(
            thing.at(float(pose[0, 3]), float(pose[1, 3]), float(pose[2, 3]), yaw), gap=0.001, nested=True
        ):
            return True
    return False


def _pictures(rng: np.random.Generator, ground: Ground, style: Style) -> None:
    lengths = ground.plan.lengths()
    for _ in range(int(rng.integers(2, 6))):
        material = painting_material(rng) if rng.random() < 0.75 else style.pick(rng)
        thing = make_picture(rng, style, material)
        half, tall = float(thing.bounds()[1, 0]), float(thing.bounds()[1, 2])
        for _ in range(10):
            wall = int(rng.integers(len(lengths)))
            if lengths[wall] < 2 * half + 0.2:
                continue
            x, y, turn = ground.plan.on_wall(
                wall, float(rng.uniform(half + 0.1, lengths[wall] - half - 0.1)), 0.002
            )
            z = float(np.clip(rng.uniform(1.3, 1.75) - tall / 2, 0.6, ground.plan.height - tall - 0.05))
            if ground.try_put(thing.at(x, y, z, turn), nested=True):
                break


def _hanging_lamps(rng: np.random.Generator, ground: Ground, style: Style) -> None:
    low, high = ground.plan.corners.min(axis=0), ground.plan.corners.max(axis=0)
    for _ in range(int(rng.integers(0, 3))):
        thing = lamp(rng, style, "hanging")
        for _ in range(8):
            x, y = rng.uniform(0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high)
            if ground.try_put(thing.at(float(x), float(y), ground.plan.height), nested=True):
                break


def _on_surfaces(rng: np.random.Generator, ground: Ground, style: Style) -> None:
    supports = [item.thing for item in ground.placed if item.thing.surfaces]
    for support in supports:
        for _ in range(int(rng.integers(0, 6))):
            choice = rng.random()
            if choice < 0.2:
                thing = lamp(rng, style, "table")
            elif choice < 0.38:
                thing = plant(rng, style, float(rng.uniform(0.2, 0.5)))
            else:
                thing = small_prop(rng, style, float(rng.uniform(0.1, 0.3)))
            _stand_on(rng, ground, support, thing, jitter=1.0)


def _on_floor(rng: np.random.Generator, ground: Ground, style: Style) -> None:
    low, high = ground.plan.corners.min(axis=0), ground.plan.corners.max(axis=0)
    for _ in range(int(rng.integers(2, 9))):
        thing = small_prop(rng, style, float(rng.uniform(0.15, 0.5)))
        for _ in range(8):
            x, y = rng.uniform(low, high)
            if ground.try_put(
                thing.at(float(x), float(y), 0.0, float(rng.uniform(0, 2 * np.pi))), nested=True
            ):
                break


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
