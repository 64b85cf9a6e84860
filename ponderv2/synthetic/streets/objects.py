"""Small movable things that are annotated: cones, barriers, debris, bins, bicycle racks."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.parts import Part, box, cushion, lathe, tube
from ponderv2.synthetic.streets.materials import (
    DARK,
    METAL,
    RETRO,
    RUBBER,
    any_color,
    cloth,
    cloudy,
    flat,
    paint,
)
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.shapes import placed, pose_at, wheel


def cone(rng: np.random.Generator) -> Model:
    """A cone on a square foot, a tall delineator, or a drum."""
    color, tall = flat(any_color(rng), float(rng.uniform(0.2, 0.6))), float(rng.uniform(0.45, 1.0))
    foot = float(rng.uniform(0.14, 0.22))
    parts = [box((-foot, -foot, 0.0), (foot, foot, 0.04), RUBBER)]
    kind = rng.random()
    if kind < 0.75:
        parts.append(lathe([(foot * 0.8, 0.04), (0.03, tall)], color, sides=12))
        for low in (0.4, 0.65):
            a, b = (foot * 0.8 + 0.008 + (0.03 - foot * 0.8) * share for share in (low, low + 0.14))
            parts.append(lathe([(a, tall * low), (b, tall * (low + 0.14))], RETRO, sides=12))
    elif kind < 0.9:
        parts.append(tube((0, 0, 0.03), (0, 0, tall + 0.2), (0.05, 0.045), color, 10))
        parts.append(tube((0, 0, tall), (0, 0, tall + 0.1), (0.055, 0.055), RETRO, 10))
    else:
        parts.append(lathe([(0.25, 0.04), (0.2, tall)], color, sides=14))
        parts.append(lathe([(0.24, tall * 0.5), (0.23, tall * 0.7)], RETRO, sides=14))
    return Model.rigid("movable_object.trafficcone", parts)


def barrier(rng: np.random.Generator, kind: str) -> Model:
    """One element, across the direction x: concrete, plastic or a fence on feet."""
    width = float(rng.uniform(1.6, 2.4))
    half = width / 2
    if kind == "concrete":
        stone = cloudy((0.6, 0.6, 0.58), -0.2, 0.6, float(rng.uniform(3, 50)), 0.3)
        stations = [(-half, 0.0, 0.28, 0.3, 0.26), (half, 0.0, 0.28, 0.3, 0.26)]
        upper = [(-half, 0.27, float(rng.uniform(0.8, 1.0)), 0.22, 0.1), (half, 0.27, 0.9, 0.22, 0.1)]
        from ponderv2.synthetic.streets.shapes import loft

        turned = pose_at(0.0, 0.0, np.pi / 2)
        return Model.rigid(
            "movable_object.barrier", placed([loft(stations, stone), loft(upper, stone)], turned)
        )
    color = flat(any_color(rng), 0.4)
    parts: list[Part] = []
    if kind == "plastic":
        parts.append(box((-0.2, -half, 0.0), (0.2, half, 0.25), color))
        parts.append(box((-0.12, -half * 0.97, 0.24), (0.12, half * 0.97, 0.95), color))
        parts.append(box((-0.13, -half * 0.6, 0.55), (0.13, half * 0.6, 0.75), RETRO))
    else:
        for y in (-half * 0.9, half * 0.9):
            parts.append(box((-0.3, y - 0.05, 0.0), (0.3, y + 0.05, 0.06), RUBBER))
            parts.append(tube((0, y, 0.0), (0, y, 1.05), (0.025, 0.025), METAL, 5))
        for z in (0.35, 0.8):
            parts.append(box((-0.02, -half, z), (0.02, half, z + 0.2), color if z < 0.5 else RETRO))
        for y in np.linspace(-half * 0.8, half * 0.8, int(rng.integers(3, 7))):
            parts.append(box((-0.012, float(y) - 0.015, 0.1), (0.012, float(y) + 0.015, 1.0), METAL))
    return Model.rigid("movable_object.barrier", parts)


def debris(rng: np.random.Generator) -> Model:
    """Boxes, bags or planks that lie on the ground."""
    parts: list[Part] = []
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.normal(0.0, 0.35, 2)
        wide, deep, high = rng.uniform(0.15, 0.45, 3)
        maker = cushion if rng.random() < 0.5 else box
        parts.append(maker((x - wide, y - deep, 0.0), (x + wide, y + deep, high), cloth(rng)))
    return Model.rigid("movable_object.debris", parts)


def bin_(rng: np.random.Generator) -> Model:
    """A bin on wheels."""
    color, high = paint(rng), float(rng.uniform(0.95, 1.2))
    parts = [box((-0.24, -0.27, 0.12), (0.24, 0.27, high - 0.1), color)]
    parts.append(box((-0.3, -0.3, high - 0.12), (0.3, 0.3, high), paint(rng)))
    parts += [wheel(-0.22, y, 0.12, 0.05, RUBBER, 8) for y in (-0.25, 0.25)]
    return Model.rigid("movable_object.pushable_pullable", parts)


def bicycle_rack(rng: np.random.Generator, n_bows: int) -> Model:
    """Bows of steel in a row along y."""
    parts: list[Part] = []
    for index in range(n_bows):
        y = (index - (n_bows - 1) / 2) * 0.8
        for x in (-0.35, 0.35):
            parts.append(tube((x, y, 0.0), (x, y, 0.8), (0.03, 0.03), METAL, 6))
        parts.append(tube((-0.35, y, 0.8), (0.35, y, 0.8), (0.03, 0.03), METAL, 6))
    parts.append(box((-0.02, -0.4 * n_bows, 0.0), (0.02, 0.4 * n_bows, 0.03), DARK))
    return Model.rigid("static_object.bicycle_rack", parts)
