"""Street furniture that belongs to the background: lamps, signs, traffic lights, shelters, benches."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Pattern
from ponderv2.synthetic.parts import Part, box, lathe, tube
from ponderv2.synthetic.streets.materials import (
    DARK,
    GLASS,
    METAL,
    StreetMaterial,
    any_color,
    flat,
    paint,
)

BULB = flat((0.95, 0.9, 0.8), 0.5, night_glow=1.0)
"""Of street lamps."""


def lamp_post(rng: np.random.Generator) -> list[Part]:
    """A mast with an arm along y towards the road; the bulb is at its end."""
    tall, reach, color = float(rng.uniform(5.5, 8.5)), float(rng.uniform(0.8, 2.2)), paint(rng)
    parts = [tube((0, 0, 0), (0, 0, tall), (0.1, 0.06), color, 8)]
    parts.append(tube((0, 0, tall - 0.05), (0, reach, tall + 0.2), (0.05, 0.04), color, 6))
    parts.append(box((-0.12, reach - 0.1, tall + 0.12), (0.12, reach + 0.5, tall + 0.26), color))
    parts.append(box((-0.1, reach, tall + 0.09), (0.1, reach + 0.45, tall + 0.13), BULB))
    return parts


def sign(rng: np.random.Generator) -> list[Part]:
    """A plate on a post; it faces those who drive towards negative x."""
    tall, size = float(rng.uniform(2.2, 2.9)), float(rng.uniform(0.25, 0.4))
    picture = StreetMaterial(
        Pattern.PAINTING, any_color(rng), any_color(rng), 0.2, float(rng.uniform(3, 50)), reflectivity=2.2
    )
    parts = [tube((0, 0, 0), (0, 0, tall + size), (0.035, 0.035), METAL, 6)]
    kind = rng.random()
    if kind < 0.4:
        parts.append(tube((-0.06, 0, tall), (-0.04, 0, tall), (size, size), picture, 16))
    elif kind < 0.6:
        parts.append(tube((-0.06, 0, tall), (-0.04, 0, tall), (size * 1.2, size * 1.2), picture, 3))
    else:
        parts.append(box((-0.06, -size, tall - size * 0.7), (-0.04, size, tall + size * 0.9), picture))
    return parts


def traffic_light(rng: np.random.Generator, green: bool) -> list[Part]:
    """A signal on a mast, sometimes with an arm along y; it faces those who drive towards negative x."""
    reach, color = float(rng.choice((0.0, rng.uniform(2.5, 4.5)))), paint(rng)
    tall = 3.4 if reach == 0.0 else 5.6
    parts = [tube((0, 0, 0), (0, 0, tall), (0.09, 0.07), color, 8)]
    heads = [(0.0, 2.4)] + ([(reach, tall - 1.0)] if reach > 0 else [])
    if reach > 0:
        parts.append(tube((0, 0, tall - 0.1), (0, reach, tall - 0.1), (0.06, 0.05), color, 6))
    on = (0.1, 0.9, 0.4) if green else (0.95, 0.1, 0.05)
    for y, z in heads:
        parts.append(box((-0.28, y - 0.16, z), (-0.08, y + 0.16, z + 0.95), DARK))
        for index in range(3):
            lit = index == (0 if green else 2)
            lens = StreetMaterial(Pattern.PLAIN, on, on, glow=0.9) if lit else DARK
            middle = (-0.3, y, z + 0.18 + 0.3 * index)
            parts.append(tube(middle, (-0.27, y, middle[2]), (0.11, 0.11), lens, 10))
    return parts


def shelter(rng: np.random.Generator) -> list[Part]:
    """A bus stop with panes, a roof and a bench; open towards positive y."""
    half, color = float(rng.uniform(1.5, 2.4)), paint(rng)
    poster = StreetMaterial(
        Pattern.PAINTING, any_color(rng), any_color(rng), 0.4, float(rng.uniform(3, 50)), night_glow=0.6
    )
    parts = [box((-half, -0.7, 2.35), (half, 0.8, 2.47), color)]
    parts.append(box((-half, -0.65, 0.2), (half, -0.62, 2.2), GLASS))
    parts.append(box((half - 0.08, -0.6, 0.3), (half, 0.6, 2.1), poster))
    parts.append(box((-half * 0.7, -0.55, 0.42), (half * 0.6, -0.2, 0.48), METAL))
    for x in (-half + 0.05, half - 0.05):
        for y in (-0.6, 0.6):
            parts.append(tube((x, y, 0), (x, y, 2.4), (0.04, 0.04), color, 6))
    return parts


def bench(rng: np.random.Generator) -> list[Part]:
    """A seat with a back, towards positive y."""
    wood, half = paint(rng), float(rng.uniform(0.7, 1.0))
    parts = [
        box((-half, -0.2, 0.4), (half, 0.25, 0.46), wood),
        box((-half, -0.26, 0.5), (half, -0.2, 0.85), wood),
    ]
    parts += [box((x - 0.04, -0.25, 0.0), (x + 0.04, 0.22, 0.42), METAL) for x in (-half * 0.8, half * 0.8)]
    return parts


def bollard(rng: np.random.Generator) -> list[Part]:
    """A post at the kerb."""
    return [tube((0, 0, 0), (0, 0, float(rng.uniform(0.7, 1.05))), (0.07, 0.06), paint(rng), 8)]


def hydrant(rng: np.random.Generator) -> list[Part]:
    """Or a distribution box."""
    color = paint(rng)
    if rng.random() < 0.5:
        return [box((-0.4, -0.18, 0.0), (0.4, 0.18, float(rng.uniform(0.9, 1.3))), color)]
    return [lathe([(0.14, 0.0), (0.11, 0.5), (0.13, 0.55), (0.02, 0.75)], color, sides=10)]


def kiosk(rng: np.random.Generator) -> list[Part]:
    """A round advertising column."""
    poster = StreetMaterial(Pattern.PAINTING, any_color(rng), any_color(rng), 0.5, float(rng.uniform(3, 50)))
    tall = float(rng.uniform(2.4, 3.2))
    return [
        lathe([(0.6, 0.0), (0.6, tall)], poster, sides=14),
        lathe([(0.72, tall), (0.1, tall + 0.35)], paint(rng), sides=14),
    ]
