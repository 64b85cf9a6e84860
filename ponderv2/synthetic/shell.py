"""The empty room: floor plan, walls with openings, doors, windows, curtains. Metres, z up.

Everything that hangs on a wall has its x axis along the wall, its y axis into the room, y = 0 on the wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from ponderv2.synthetic.materials import Material, Style, plain, wall_material
from ponderv2.synthetic.parts import Part, Thing, box, drape, tube


@dataclass(frozen=True)
class Opening:
    """A door or window in a wall; left and right are measured along the wall from its start."""

    kind: str
    wall: int
    left: float
    right: float
    bottom: float
    top: float
    recess: float
    """How far behind the wall its pane or leaf stands."""


@dataclass(frozen=True)
class FloorPlan:
    """Corners of the room, counter-clockwise from above; wall i runs from corner i to the next."""

    corners: Float[np.ndarray, "corner 2"]
    height: float

    def starts(self) -> Float[np.ndarray, "corner 2"]:
        """Where each wall starts."""
        return self.corners

    def lengths(self) -> Float[np.ndarray, " corner"]:
        """Length of each wall."""
        return np.linalg.norm(np.roll(self.corners, -1, axis=0) - self.corners, axis=1)

    def directions(self) -> Float[np.ndarray, "corner 2"]:
        """Unit vector along each wall; the room lies to its left."""
        return (np.roll(self.corners, -1, axis=0) - self.corners) / self.lengths()[:, None]

    def on_wall(self, wall: int, along: float, off: float = 0.0) -> tuple[float, float, float]:
        """Position x, y of a point near a wall and the turn of a thing that stands against it."""
        direction = self.directions()[wall]
        point = self.corners[wall] + along * direction + off * np.array([-direction[1], direction[0]])
        return float(point[0]), float(point[1]), float(np.arctan2(direction[1], direction[0]))

    def area(self) -> float:
        """Of the floor, square metres."""
        x, y = self.corners.T
        return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))

    def contains(
        self, points: Float[np.ndarray, "*shape 2"], margin: float = 0.0
    ) -> Bool[np.ndarray, "*shape"]:
        """Whether points lie in the room, at least `margin` from every wall."""
        after = np.roll(self.corners, -1, axis=0)
        x, y = points[..., 0, None], points[..., 1, None]
        (x0, y0), (x1, y1) = self.corners.T, after.T
        straddles = (y0 > y) != (y1 > y)
        rise = np.where(y1 == y0, 1.0, y1 - y0)
        crossing = x0 + (y - y0) * (x1 - x0) / rise
        inside = (straddles & (x < crossing)).sum(axis=-1) % 2 == 1
        if margin <= 0.0:
            return inside
        offset = points[..., None, :] - self.corners
        along = np.clip((offset * self.directions()).sum(axis=-1), 0.0, self.lengths())
        nearest = self.corners + along[..., None] * self.directions()
        gap = np.linalg.norm(points[..., None, :] - nearest, axis=-1).min(axis=-1)
        return inside & (gap >= margin)


def make_plan(rng: np.random.Generator, size: tuple[float, float]) -> FloorPlan:
    """A rectangle or an L, centred on the origin."""
    width, depth = rng.uniform(*size, 2)
    height = float(rng.uniform(2.4, 3.0))
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, depth], [0.0, depth]])
    if rng.random() < 0.4 and min(width, depth) > 3.6:
        cut_x, cut_y = rng.uniform(1.0, width - 2.4), rng.uniform(1.0, depth - 2.4)
        inner = (width - cut_x, depth - cut_y)
        corners = np.array(
            [[0, 0], [width, 0], [width, inner[1]], inner, [inner[0], depth], [0, depth]], dtype=float
        )
    for axis in range(2):
        if rng.random() < 0.5:
            corners[:, axis] = corners[:, axis].max() - corners[:, axis]
            corners = corners[::-1]
    return FloorPlan(np.ascontiguousarray(corners - corners.max(axis=0) / 2), height)


def make_openings(rng: np.random.Generator, plan: FloorPlan) -> tuple[Opening, ...]:
    """One or two doors and one to three windows that do not touch each other."""
    kinds = ["door"] * int(rng.integers(1, 3)) + ["window"] * int(rng.integers(1, 4))
    openings: list[Opening] = []
    for kind in kinds:
        for _ in range(20):
            opening = _random_opening(rng, plan, kind)
            if opening and all(_apart(opening, other) for other in openings):
                openings.append(opening)
                break
    return tuple(openings)


def _random_opening(rng: np.random.Generator, plan: FloorPlan, kind: str) -> Opening | None:
    wall = int(rng.integers(len(plan.corners)))
    length = plan.lengths()[wall]
    if kind == "door":
        width, bottom, top = rng.uniform(0.75, 0.98), 0.0, rng.uniform(1.95, 2.15)
        recess = rng.uniform(0.03, 0.14)
    else:
        width, bottom = rng.uniform(0.7, 1.9), rng.uniform(0.35, 1.05)
        top, recess = rng.uniform(1.9, plan.height - 0.25), rng.uniform(0.06, 0.22)
    if length < width + 0.5:
        return None
    left = rng.uniform(0.22, length - width - 0.22)
    return Opening(kind, wall, float(left), float(left + width), float(bottom), float(top), float(recess))


def _apart(one: Opening, other: Opening) -> bool:
    return one.wall != other.wall or one.right + 0.4 < other.left or other.right + 0.4 < one.left


def make_walls(rng: np.random.Generator, plan: FloorPlan, openings: tuple[Opening, ...]) -> Thing:
    """All walls with their openings and reveals; often one wall has another colour."""
    common, parts = wall_material(rng), []
    special = int(rng.integers(len(plan.corners))) if rng.random() < 0.4 else -1
    other = wall_material(rng)
    skirting = wall_material(rng) if rng.random() < 0.5 else None
    for wall in range(len(plan.corners)):
        holes = [opening for opening in openings if opening.wall == wall]
        material = other if wall == special else common
        x, y, turn = plan.on_wall(wall, 0.0)
        length = float(plan.lengths()[wall])
        pieces = [_wall_sheet(length, plan.height, holes, material)]
        if skirting is not None:
            pieces += _skirting(length, holes, skirting)
        frame = Thing("wall", ()).at(x, y, 0.0, turn).pose
        parts += [Part(piece.vertices, piece.faces, piece.material, frame @ piece.pose) for piece in pieces]
    return Thing("wall", tuple(parts))


def _wall_sheet(length: float, height: float, holes: list[Opening], material: Material) -> Part:
    """The wall plane without its openings, and the four reveals of each opening."""
    xs = sorted({0.0, length, *(side for hole in holes for side in (hole.left, hole.right))})
    zs = sorted({0.0, height, *(side for hole in holes for side in (hole.bottom, hole.top))})
    quads = []
    for x0, x1 in pairwise(xs):
        for z0, z1 in pairwise(zs):
            x, z = (x0 + x1) / 2, (z0 + z1) / 2
            if not any(hole.left < x < hole.right and hole.bottom < z < hole.top for hole in holes):
                quads.append([(x0, 0, z0), (x0, 0, z1), (x1, 0, z1), (x1, 0, z0)])
    for hole in holes:
        back, low, high = -hole.recess - 0.03, hole.bottom, hole.top
        quads.append([(hole.left, y, z) for y, z in ((0, low), (back, low), (back, high), (0, high))])
        quads.append([(hole.right, y, z) for y, z in ((0, low), (0, high), (back, high), (back, low))])
        quads.append(
            [(x, y, low) for x, y in ((hole.left, 0), (hole.right, 0), (hole.right, back), (hole.left, back))]
        )
        quads.append(
            [
                (x, y, high)
                for x, y in ((hole.left, 0), (hole.left, back), (hole.right, back), (hole.right, 0))
            ]
        )
    vertices = np.array(quads, dtype=float).reshape(-1, 3)
    first = np.arange(len(quads)) * 4
    faces = np.concatenate(
        [np.column_stack([first, first + 1, first + 2]), np.column_stack([first, first + 2, first + 3])]
    )
    return Part(vertices, faces, material, np.eye(4))


def _skirting(length: float, holes: list[Opening], material: Material) -> list[Part]:
    doors = sorted((hole.left - 0.09, hole.right + 0.09) for hole in holes if hole.kind == "door")
    starts, ends = [0.0, *(door[1] for door in doors)], [*(door[0] for door in doors), length]
    pieces = zip(starts, ends, strict=True)
    return [
        box((start, -0.01, 0.0), (end, 0.012, 0.08), material) for start, end in pieces if end - start > 0.02
    ]


def make_slab(plan: FloorPlan, name: str, material: Material) -> Thing:
    """The floor, or the ceiling."""
    level = 0.0 if name == "floor" else plan.height
    corners = plan.corners
    if len(corners) == 4:
        triangles = [(0, 1, 2), (0, 2, 3)]
    else:
        reflex = _reflex_corner(corners)
        order = [(reflex + step) % 6 for step in range(6)]
        triangles = [(order[0], order[step], order[step + 1]) for step in range(1, 5)]
    faces = np.array(triangles)
    vertices = np.column_stack([corners, np.zeros(len(corners))])
    pose = np.eye(4)
    pose[2, 3] = level
    return Thing(name, (Part(vertices, faces if name == "floor" else faces[:, ::-1], material, pose),))


def _reflex_corner(corners: Float[np.ndarray, "corner 2"]) -> int:
    """The inward corner of an L."""
    after, before = np.roll(corners, -1, axis=0) - corners, corners - np.roll(corners, 1, axis=0)
    return int(np.argmin(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]))


def make_door(rng: np.random.Generator, style: Style, opening: Opening) -> Thing:
    """A leaf with panels and a handle in a frame; x = 0 is the left edge of the opening."""
    frame, leaf = style.pick(rng), style.pick(rng)
    width, top, deep = opening.right - opening.left, opening.top, -opening.recess
    parts = [box((-0.02, deep - 0.04, -0.02), (width + 0.02, deep, top + 0.02), leaf)]
    parts += _casing(rng, (0.0, width), (0.0, top), frame)
    jamb = (deep - 0.01, 0.005)
    parts.append(box((-0.002, jamb[0], 0.0), (0.012, jamb[1], top), frame))
    parts.append(box((width - 0.012, jamb[0], 0.0), (width + 0.002, jamb[1], top), frame))
    parts.append(box((0.0, jamb[0], top - 0.012), (width, jamb[1], top + 0.002), frame))
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    raised = style.pick(rng) if rng.random() < 0.4 else leaf
    if rng.random() < 0.75:
        for row in range(rows):
            for column in range(columns):
                x0, x1 = (width * (column + share) / columns for share in (0.16, 0.84))
                z0, z1 = (0.1 + (top - 0.2) * (row + share) / rows for share in (0.08, 0.92))
                parts.append(box((x0, deep - 0.01, z0), (x1, deep + 0.018, z1), raised))
    side = 0.07 if rng.random() < 0.5 else width - 0.07
    reach = 0.11 if side < width / 2 else -0.11
    knob = style.pick(rng)
    parts.append(tube((side, deep - 0.005, 1.02), (side, deep + 0.055, 1.02), (0.014, 0.014), knob, 6))
    parts.append(tube((side, deep + 0.05, 1.02), (side + reach, deep + 0.05, 1.02), (0.012, 0.012), knob, 6))
    return Thing("door", tuple(parts))


def _casing(
    rng: np.random.Generator, across: tuple[float, float], up: tuple[float, float], material: Material
) -> list[Part]:
    """Boards around an opening, in front of the wall; below too unless the opening reaches the floor."""
    wide, out = float(rng.uniform(0.05, 0.09)), float(rng.uniform(0.015, 0.04))
    (left, right), (bottom, top) = across, up
    low = bottom - wide if bottom > 0 else 0.0
    parts = [
        box((left - wide, -0.005, low), (left + 0.004, out, top + wide), material),
        box((right - 0.004, -0.005, low), (right + wide, out, top + wide), material),
        box((left, -0.005, top - 0.004), (right, out - 0.002, top + wide), material),
    ]
    if bottom > 0:
        parts.append(box((left, -0.005, low), (right, out - 0.002, bottom + 0.004), material))
    return parts


def make_window(rng: np.random.Generator, style: Style, opening: Opening) -> Thing:
    """Panes and bars at the back of the recess, a casing, a sill; x = 0 is the left edge of the opening."""
    frame = style.pick(rng)
    width, bottom, top, deep = opening.right - opening.left, opening.bottom, opening.top, -opening.recess
    sky = (float(rng.uniform(0.45, 0.9)), float(rng.uniform(0.6, 0.92)), float(rng.uniform(0.75, 1.0)))
    pane = plain(sky, glow=float(rng.uniform(0.1, 0.6)), glass=True)
    parts = [box((-0.02, deep - 0.02, bottom - 0.02), (width + 0.02, deep, top + 0.02), pane)]
    bar, front = float(rng.uniform(0.03, 0.06)), deep + 0.035
    columns, rows = max(1, round(width / rng.uniform(0.45, 0.9))), int(rng.integers(1, 4))
    for index in range(columns + 1):
        x = width * index / columns
        parts.append(box((x - bar, deep - 0.01, bottom - 0.01), (x + bar, front, top + 0.01), frame))
    for index in range(rows + 1):
        z = bottom + (top - bottom) * index / rows
        parts.append(box((-0.01, deep - 0.01, z - bar), (width + 0.01, front - 0.003, z + bar), frame))
    if rng.random() < 0.7:
        parts += _casing(rng, (0.0, width), (bottom, top), frame)
    if rng.random() < 0.7:
        parts.append(
            box(
                (-0.06, deep, bottom - 0.03),
                (width + 0.06, rng.uniform(0.05, 0.14), bottom + 0.006),
                style.pick(rng),
            )
        )
    return Thing("window", tuple(parts))


def make_curtain(
    rng: np.random.Generator, style: Style, opening: Opening, ceiling: float, side: float
) -> Thing:
    """A wavy sheet beside (side -1 left, +1 right) and partly over a window, on a rod or rail."""
    width, window = float(rng.uniform(0.3, 0.65)), opening.right - opening.left
    edge = 0.0 if side < 0 else window
    left = edge - width * (rng.uniform(0.45, 0.8) if side < 0 else rng.uniform(0.2, 0.55))
    top = float(min(opening.top + rng.uniform(0.1, 0.25), ceiling - 0.05))
    bottom = float(rng.uniform(0.01, 0.08)) if rng.random() < 0.7 else max(opening.bottom - 0.25, 0.02)
    steps = np.linspace(0.0, 1.0, 40)
    folds, swing = rng.uniform(8.0, 14.0) * width, rng.uniform(0.02, 0.04)
    wave = swing * np.sin(2 * np.pi * folds * steps + rng.uniform(0, 6)) * (0.7 + 0.3 * np.sin(5 * steps))
    path = np.column_stack([left + width * steps, 0.19 + wave])
    sheet = drape(path, bottom, top, 0.012, style.pick(rng))
    rod = tube(
        (left - 0.06, 0.19, top + 0.015),
        (left + width + 0.06, 0.19, top + 0.015),
        (0.013, 0.013),
        style.pick(rng),
        6,
    )
    return Thing("curtain", (sheet, rod))


def make_picture(rng: np.random.Generator, style: Style, material: Material) -> Thing:
    """A framed picture, x = 0 at its middle, z = 0 at its lower edge."""
    width, height = float(rng.uniform(0.3, 1.1)), float(rng.uniform(0.3, 0.8))
    rim, out = float(rng.uniform(0.015, 0.06)), float(rng.uniform(0.02, 0.05))
    frame, half = style.pick(rng), width / 2
    parts = [
        box((rim - half, 0.002, rim), (half - rim, out * 0.6, height - rim), material),
        box((-half, 0.001, 0.0), (half, out, rim + 0.002), frame),
        box((-half, 0.001, height - rim - 0.002), (half, out, height), frame),
        box((-half, 0.001, rim), (rim - half + 0.002, out - 0.001, height - rim), frame),
        box((half - rim - 0.002, 0.001, rim), (half, out - 0.001, height - rim), frame),
    ]
    return Thing("picture", tuple(parts))
