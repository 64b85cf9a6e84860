"""The surface of the ground: road, markings, kerbs, sidewalks, grass and what lies beyond."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.materials import Pattern
from ponderv2.synthetic.parts import Part
from ponderv2.synthetic.streets.classes import LABELS
from ponderv2.synthetic.streets.materials import StreetMaterial, any_color, cloudy, flat
from ponderv2.synthetic.streets.road import BEYOND, FRONTAGE, GRASS, KERB, MEDIAN, ROAD, WALK, Road
from ponderv2.synthetic.streets.shapes import quads

CELL = 6.0
"""Longest side of a piece of ground, metres."""
MARK = 0.006
"""Markings lie that far above the road, metres."""
Labelled = tuple[int, Part]
"""Number of a class, and a part of it in the frame of the world."""
Painted = tuple[StreetMaterial, tuple[float, float, float, float]]
"""A strip on the road: from s to s, from d to d."""
_LABEL = {
    ROAD: LABELS["flat.driveable_surface"],
    WALK: LABELS["flat.sidewalk"],
    GRASS: LABELS["flat.terrain"],
    MEDIAN: LABELS["flat.other"],
}


def make_ground(
    rng: np.random.Generator, road: Road, frontages: dict[tuple[int, int], str], wet: bool
) -> list[Labelled]:
    """All of the ground. `frontages`: what lies beyond the sidewalk, by number of the block and side."""
    materials = _materials(rng, wet)
    s_edges, d_edges = _edges(road)
    s, d = np.meshgrid((s_edges[1:] + s_edges[:-1]) / 2, (d_edges[1:] + d_edges[:-1]) / 2, indexing="ij")
    kind = road.surface(s, d)
    front = kind == FRONTAGE
    kind[front] = GRASS
    for number, (low, high) in enumerate(road.blocks()):
        for side in (-1, 1):
            use = frontages.get((number, side), "park")
            paved = {"buildings": WALK, "parking": ROAD}.get(use, GRASS)
            reach = np.abs(d) < road.profile.walk[1] + 24.0
            kind[front & reach & (s > low) & (s < high) & (np.sign(d) == side)] = paved
    corners = _corners(road, s_edges, d_edges)
    level = np.where(kind == ROAD, 0.0, KERB)
    parts: list[Labelled] = []
    for which, label in _LABEL.items():
        chosen = kind == which
        sheets = [corners[chosen] + np.array([0.0, 0.0, 1.0]) * level[chosen][:, None, None]]
        sheets += _kerbs(corners, kind, level, which)
        sheet = np.concatenate(sheets)
        if len(sheet):
            parts.append((label, quads(sheet, materials[which])))
    parts += _markings(rng, road)
    parts.append((LABELS["flat.terrain"], _far(road, materials[GRASS])))
    return parts


def _materials(rng: np.random.Generator, wet: bool) -> dict[int, StreetMaterial]:
    grey, pale = float(rng.uniform(0.22, 0.42)), float(rng.uniform(0.42, 0.68))
    tint = float(rng.uniform(0.96, 1.06))
    phases = [float(one) for one in rng.uniform(3, 50, 4)]
    asphalt = cloudy((grey, grey, grey * tint), -0.18, 0.9, phases[0], float(rng.uniform(0.04, 0.1)))
    stone = (pale, pale * float(rng.uniform(0.9, 1.0)), pale * float(rng.uniform(0.8, 1.0)))
    walk = StreetMaterial(
        Pattern(int(rng.choice((Pattern.TILES, Pattern.CLOUDS, Pattern.CHECKS, Pattern.SPECKLE)))),
        stone,
        (pale * 0.8, pale * 0.78, pale * 0.74),
        float(rng.uniform(0.3, 1.0)),
        phases[1],
        reflectivity=float(rng.uniform(0.1, 0.25)),
    )
    grass = cloudy(
        (float(rng.uniform(0.18, 0.4)), float(rng.uniform(0.3, 0.42)), 0.14),
        -0.4,
        1.7,
        phases[2],
        float(rng.uniform(0.15, 0.35)),
    )
    if wet:
        asphalt = StreetMaterial(**{**vars(asphalt), "shine": 0.3, "reflectivity": 0.03, "hole": 0.35})
    return {
        ROAD: asphalt,
        WALK: walk,
        GRASS: grass,
        MEDIAN: cloudy((pale, pale, pale), -0.2, 0.7, phases[3], 0.2),
    }


def _edges(road: Road) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " d"]]:
    """Where the ground changes, and often enough in between."""
    profile = road.profile
    s_edges = [-40.0, 0.0, road.length, road.length + 40.0]
    for crossing in road.crossings:
        for reach in (crossing.half, crossing.half + crossing.sidewalk, crossing.half + 5.5):
            s_edges += [crossing.s - reach, crossing.s + reach]
    across = {0.0, profile.median / 2, profile.half, *profile.walk, profile.walk[1] + 24.0, BEYOND}
    return _filled(s_edges), _filled([sign * one for one in across for sign in (-1.0, 1.0)])


def _filled(edges: list[float]) -> Float[np.ndarray, " edge"]:
    known = np.unique(np.round(edges, 6))
    pieces = [np.linspace(a, b, int(np.ceil((b - a) / CELL)) + 1)[:-1] for a, b in pairwise(known)]
    return np.concatenate([*pieces, known[-1:]])


def _corners(
    road: Road, s_edges: Float[np.ndarray, " s"], d_edges: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "row column 4 3"]:
    """Corners of all cells at the height of the road."""
    xy = road.to_world(*np.meshgrid(s_edges, d_edges, indexing="ij"))
    points = np.concatenate([xy, road.hill(xy)[..., None]], axis=-1)
    return np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], axis=2)


def _kerbs(
    corners: Float[np.ndarray, "row column 4 3"], kind: np.ndarray, level: np.ndarray, which: int
) -> list[Float[np.ndarray, "quad 4 3"]]:
    """Upright pieces where cells of this kind end above their neighbours."""
    up = np.array([0.0, 0.0, 1.0])
    found = []
    for axis, near, far in ((0, (1, 2), (0, 3)), (1, (3, 2), (0, 1))):
        here, there = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
        if axis == 0:
            here, there = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
        for mine, other, edge in ((here, there, near), (there, here, far)):
            step = (kind[mine] == which) & (level[mine] > level[other])
            low = corners[mine][step][:, edge]
            top = low[:, ::-1] + up * level[mine][step][:, None, None]
            found.append(np.concatenate([low, top], axis=1))
    return found


def _far(road: Road, material: StreetMaterial) -> Part:
    """A plain below everything, to the horizon."""
    x, y = road.line[:, 0].mean(), road.line[:, 1].mean()
    reach = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 1500.0 + np.array([x, y])
    return quads(np.column_stack([reach, np.full(4, -2.0)])[None], material)


def _markings(rng: np.random.Generator, road: Road) -> list[Labelled]:
    """Lines, crossings for pedestrians, stop lines, patches of other asphalt."""
    pale = float(rng.uniform(0.7, 0.9))
    white = flat((pale, pale, pale), 0.55)
    yellow = flat((0.75, 0.6, 0.15), 0.5) if rng.random() < 0.4 else white
    strips = _lines(rng, road, white, yellow)
    for crossing in road.crossings:
        strips += _zebra(white, road, crossing.s, crossing.half)
    parts = [_strip(road, piece, MARK, material) for material, piece in strips]
    parts += _patches(rng, road)
    if rng.random() < 0.3 and road.profile.bicycle > 0:
        parts += _bicycle_lanes(rng, road)
    return [(LABELS["flat.driveable_surface"], part) for part in parts]


def _lines(
    rng: np.random.Generator, road: Road, white: StreetMaterial, yellow: StreetMaterial
) -> list[Painted]:
    """Between lanes, at their edges and in the middle."""
    profile = road.profile
    strips: list[Painted] = []
    for low, high in _free(road, 7.0):
        for sign in (-1.0, 1.0):
            for n in range(1, profile.n_lanes):
                strips += _dashes(white, low, high, sign * (profile.median / 2 + n * profile.lane))
            if profile.parking > 0 or profile.bicycle > 0:
                strips.append((white, (low, high, sign * profile.inner - 0.06, sign * profile.inner + 0.06)))
            if profile.bicycle > 0 and profile.parking > 0:
                edge = sign * (profile.inner + profile.bicycle)
                strips.append((white, (low, high, edge - 0.05, edge + 0.05)))
        if profile.median == 0:
            strips += _middle(rng, yellow, low, high)
    return strips


def _patches(rng: np.random.Generator, road: Road) -> list[Part]:
    """Where the road was mended."""
    profile = road.profile
    grey = float(rng.uniform(0.1, 0.4))
    patch = cloudy((grey, grey, grey), -0.15, 0.7, float(rng.uniform(3, 50)), float(rng.uniform(0.04, 0.1)))
    parts = []
    for _ in range(int(rng.integers(3, 12))):
        s, d = float(rng.uniform(0, road.length)), float(rng.uniform(-0.8, 0.8)) * profile.inner
        if abs(d) > profile.median / 2 + 1.2:
            piece = (s, s + float(rng.uniform(0.5, 7.0)), d - 0.6, d + 0.6)
            parts.append(_strip(road, piece, MARK * 0.5, patch))
    return parts


def _bicycle_lanes(rng: np.random.Generator, road: Road) -> list[Part]:
    """In a colour of their own."""
    profile, lane, parts = road.profile, flat(any_color(rng), 0.12), []
    for low, high in _free(road, 0.0):
        for sign in (-1.0, 1.0):
            a, b = sorted((sign * (profile.inner + 0.1), sign * (profile.inner + profile.bicycle - 0.1)))
            parts.append(_strip(road, (low, high, a, b), MARK * 0.4, lane))
    return parts


def _free(road: Road, margin: float) -> list[tuple[float, float]]:
    """Stretches of the street without crossings."""
    edges = [0.0]
    for crossing in road.crossings:
        edges += [crossing.s - crossing.half - margin, crossing.s + crossing.half + margin]
    edges.append(road.length)
    return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high - low > 1.0]


def _dashes(material: StreetMaterial, low: float, high: float, d: float) -> list[Painted]:
    return [
        (material, (float(s), min(float(s) + 3.0, high), d - 0.07, d + 0.07))
        for s in np.arange(low, high, 9.0)
    ]


def _middle(rng: np.random.Generator, material: StreetMaterial, low: float, high: float) -> list[Painted]:
    if rng.random() < 0.5:
        return _dashes(material, low, high, 0.0)
    return [(material, (low, high, d - 0.06, d + 0.06)) for d in (-0.14, 0.14)]


def _zebra(material: StreetMaterial, road: Road, s: float, half: float) -> list[Painted]:
    """Bars across the street on both sides of a crossing, and stop lines behind them."""
    strips: list[Painted] = []
    for sign in (-1.0, 1.0):
        low, high = sorted((s + sign * (half + 0.8), s + sign * (half + 3.6)))
        for d in np.arange(-road.profile.half + 0.4, road.profile.half - 0.4, 1.0):
            strips.append((material, (low, high, float(d), float(d) + 0.5)))
        line = s + sign * (half + 4.8)
        lanes = road.lanes(1 if sign < 0 else -1)
        a, b = min(lanes) - road.profile.lane / 2, max(lanes) + road.profile.lane / 2
        strips.append((material, (line - 0.2, line + 0.2, a + 0.15, b - 0.15)))
    return strips


def _strip(
    road: Road, piece: tuple[float, float, float, float], above: float, material: StreetMaterial
) -> Part:
    low, high, right, left = piece
    s = np.linspace(low, high, int(np.ceil((high - low) / CELL)) + 1)
    corners = _corners(road, s, np.array([right, left]))[:, 0]
    return quads(corners + np.array([0.0, 0.0, above]), material)
