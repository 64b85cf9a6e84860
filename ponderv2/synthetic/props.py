"""Small and slender things: lamps, plants, screens, boxes, vases, balls, books. Metres."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Style, painting_material, plain, random_material
from ponderv2.synthetic.parts import Part, Thing, box, cushion, lathe, tube


def lamp(rng: np.random.Generator, style: Style, kind: str = "floor") -> Thing:
    """A shade on a stand (floor or table), or hanging from the ceiling (then z = 0 is the ceiling)."""
    frame, shade = style.pick(rng), style.pick(rng)
    glow = plain(shade.first, glow=float(rng.uniform(0.2, 0.6))) if rng.random() < 0.6 else shade
    if kind == "hanging":
        drop, radius, tall = (
            float(rng.uniform(0.25, 0.7)),
            float(rng.uniform(0.15, 0.3)),
            float(rng.uniform(0.12, 0.25)),
        )
        profile = [(radius, -drop - tall), (radius * rng.uniform(0.3, 1.0), -drop)]
        return Thing(
            "lamp",
            (
                tube((0, 0, -drop - 0.01), (0, 0, -0.002), (0.012, 0.012), frame),
                lathe(profile, glow),
                lathe([(0.06, -0.03), (0.06, -0.002)], frame),
            ),
        )
    height = float(rng.uniform(1.3, 1.8) if kind == "floor" else rng.uniform(0.32, 0.55))
    scale = 1.0 if kind == "floor" else 0.55
    radius, tall = scale * float(rng.uniform(0.14, 0.26)), scale * float(rng.uniform(0.2, 0.38))
    stand = height - tall
    parts = [lathe([(scale * 0.16, 0.0), (scale * 0.15, 0.03), (0.02, 0.045)], frame)]
    if kind == "table" and rng.random() < 0.6:
        parts = [lathe([(0.05, 0.0), (0.09, stand * 0.35), (0.06, stand * 0.75), (0.02, stand)], frame)]
    parts.append(tube((0, 0, 0.02), (0, 0, height - tall * 0.3), (0.014, 0.014), frame, 6))
    top = radius * float(rng.uniform(0.45, 1.0))
    shape = (
        [(radius, stand), (top, height)]
        if rng.random() < 0.75
        else [
            (radius * 0.5, stand),
            (radius, stand + tall * 0.35),
            (radius, stand + tall * 0.65),
            (radius * 0.5, height),
        ]
    )
    parts.append(lathe(shape, glow))
    return Thing("lamp", tuple(parts))


def plant(rng: np.random.Generator, style: Style, height: float) -> Thing:
    """A pot and a crown of leaves or twigs; leaves are not always green."""
    pot = height * float(rng.uniform(0.2, 0.35))
    wide = float(np.clip(height * rng.uniform(0.16, 0.24), 0.04, 0.18))
    parts = [
        lathe(
            [(wide * rng.uniform(0.6, 1.0), 0.0), (wide, pot), (wide * 0.85, pot + 0.005)],
            style.pick(rng),
            sides=10,
        )
    ]
    leaf = (
        random_material(rng)
        if rng.random() < 0.3
        else plain(
            (float(rng.uniform(0.1, 0.4)), float(rng.uniform(0.35, 0.7)), float(rng.uniform(0.1, 0.35)))
        )
    )
    reach = height - pot
    if rng.random() < 0.4:
        parts.append(tube((0, 0, pot - 0.01), (0, 0, pot + reach * 0.5), (0.012, 0.012), style.pick(rng), 6))
        for _ in range(int(rng.integers(4, 9))):
            parts.append(_crown_ball(rng, pot + reach * 0.6, reach, leaf))
        return Thing("plant", tuple(parts))
    for index in range(int(rng.integers(9, 18))):
        angle = index * 2.4 + rng.uniform(-0.3, 0.3)
        bend, length = float(rng.uniform(0.1, 1.0)), reach * float(rng.uniform(0.6, 1.0))
        out = np.array([np.cos(angle), np.sin(angle)])
        knee = out * length * 0.45 * bend
        tip = out * length * min(bend * 1.1, 0.9)
        base, middle, end = (
            (0.0, 0.0, pot - 0.01),
            (knee[0], knee[1], pot + length * 0.6),
            (tip[0], tip[1], pot + length * (1.0 - 0.45 * bend)),
        )
        thick = max(0.005, height * 0.018)
        parts.append(tube(base, middle, (thick * 0.5, thick * 1.6), leaf, 5))
        parts.append(tube(middle, end, (thick * 1.6, thick * 0.2), leaf, 5))
    return Thing("plant", tuple(parts))


def _crown_ball(rng: np.random.Generator, z: float, reach: float, leaf) -> Part:
    middle = rng.normal(0.0, 0.14, 3) * reach + np.array([0.0, 0.0, z])
    radius = reach * rng.uniform(0.12, 0.24, 3)
    low, high = middle - radius, middle + radius
    return cushion((low[0], low[1], low[2]), (high[0], high[1], high[2]), leaf, 1.0)


def television(rng: np.random.Generator, style: Style, desk: bool) -> Thing:
    """A flat screen on a foot; the screen is dark or shows a picture."""
    width = float(rng.uniform(0.45, 0.65) if desk else rng.uniform(0.8, 1.3))
    height, lift = width * float(rng.uniform(0.55, 0.62)), float(rng.uniform(0.06, 0.14))
    half, case = width / 2, plain((0.1, 0.1, 0.11)) if rng.random() < 0.4 else style.pick(rng)
    screen = painting_material(rng, 0.2) if rng.random() < 0.5 else plain((0.06, 0.06, 0.08))
    parts = (
        box((-half * 0.45, 0.0, 0.0), (half * 0.45, 0.2, 0.015), case),
        box((-0.04, 0.07, 0.01), (0.04, 0.1, lift + 0.05), case),
        box((-half, 0.09, lift), (half, 0.13, lift + height), case),
        box((0.02 - half, 0.12, lift + 0.025), (half - 0.02, 0.134, lift + height - 0.02), screen),
    )
    return Thing("television", parts)


def small_prop(rng: np.random.Generator, style: Style, size: float) -> Thing:
    """Something that lies about: a box, vase, ball, cup, bottle or pile of books, about `size` metres."""
    first, second = style.pick(rng), random_material(rng)
    kind = rng.integers(6)
    a, b, c = (float(value) for value in size * rng.uniform(0.6, 1.2, 3))
    if kind == 0:
        parts = (
            box((-a / 2, -b / 2, 0.0), (a / 2, b / 2, c), second),
            box((-a / 2 - 0.005, -b / 2 - 0.005, c * 0.8), (a / 2 + 0.005, b / 2 + 0.005, c + 0.004), first),
        )
    elif kind == 1:
        radius = a * 0.4
        parts = (
            lathe(
                [(radius * 0.6, 0.0), (radius, b * 0.4), (radius * 0.4, b), (radius * 0.55, b * 1.2)], second
            ),
        )
    elif kind == 2:
        parts = (cushion((-a / 2, -a / 2, 0.0), (a / 2, a / 2, a), second, 1.0),)
    elif kind == 3:
        parts = (
            lathe([(a * 0.28, 0.0), (a * 0.35, b * 0.8)], first),
            lathe([(a * 0.2, b * 0.79), (a * 0.2, b * 0.81)], second),
        )
    elif kind == 4:
        radius = a * 0.22
        parts = (
            lathe([(radius, 0.0), (radius, b * 0.8), (radius * 0.35, b), (radius * 0.35, b * 1.3)], second),
        )
    else:
        parts = tuple(_pile(rng, a, b, style))
    return Thing("otherprop", parts)


def _pile(rng: np.random.Generator, a: float, b: float, style: Style) -> list[Part]:
    z, parts = 0.0, []
    for _ in range(int(rng.integers(2, 6))):
        thick, dx, dy = (
            float(rng.uniform(0.02, 0.05)),
            float(rng.uniform(-0.02, 0.02)),
            float(rng.uniform(-0.02, 0.02)),
        )
        parts.append(
            box((dx - a / 2, dy - b / 2, z), (dx + a / 2, dy + b / 2, z + thick), random_material(rng))
        )
        z += thick + 0.0005
    return parts
