"""Things to sit and lie on: chairs, sofas, beds. Back at y = 0, front towards +y, metres."""

from __future__ import annotations

import numpy as np

from ponderv2.scenes.synthetic.materials import Material, Style
from ponderv2.scenes.synthetic.parts import Part, Thing, box, cushion, lathe, tube


def legs(
    lower: tuple[float, float],
    upper: tuple[float, float],
    top: float,
    thickness: float,
    material: Material,
    round_: bool,
) -> list[Part]:
    """Four legs from the floor to `top` at the corners of a rectangle."""
    parts = []
    for x in (lower[0] + thickness / 2, upper[0] - thickness / 2):
        for y in (lower[1] + thickness / 2, upper[1] - thickness / 2):
            half = thickness / 2
            if round_:
                parts.append(tube((x, y, 0.0), (x, y, top), (half * 0.7, half), material))
            else:
                parts.append(box((x - half, y - half, 0.0), (x + half, y + half, top), material))
    return parts


def chair(rng: np.random.Generator, style: Style) -> Thing:
    """Four legs or a swivel foot, a seat, a back of boards or bars, sometimes arm rests."""
    width, depth = rng.uniform(0.4, 0.56), rng.uniform(0.4, 0.54)
    seat, back = rng.uniform(0.38, 0.54), rng.uniform(0.3, 0.65)
    frame, cover = style.pick(rng), style.pick(rng)
    lean = float(rng.uniform(0.02, 0.22))
    inset = 0.08 + back * np.tan(lean)
    parts = _foot(rng, (width, depth, seat, inset), frame)
    low, high = (-width / 2, inset - 0.05, seat - 0.05), (width / 2, depth + inset - 0.05, seat + 0.02)
    parts.append(cushion(low, high, cover, 0.3) if rng.random() < 0.5 else box(low, high, cover))
    parts += _chair_back(rng, (width, seat, back, inset, lean), frame, cover)
    if rng.random() < 0.35:
        for side in (-1.0, 1.0):
            parts += _arm_rest(side * (width / 2 - 0.02), seat, depth, inset, frame)
    return Thing("chair", tuple(parts))


def _foot(rng: np.random.Generator, sizes: tuple[float, float, float, float], frame: Material) -> list[Part]:
    width, depth, seat, inset = sizes
    if rng.random() < 0.7:
        return legs(
            (-width / 2, inset - 0.05),
            (width / 2, depth + inset - 0.05),
            seat - 0.04,
            rng.uniform(0.025, 0.055),
            frame,
            rng.random() < 0.5,
        )
    middle, parts = (
        inset + depth / 2 - 0.05,
        [lathe([(0.03, 0.05), (0.03, seat - 0.04)], frame, (0, inset + depth / 2 - 0.05, 0))],
    )
    for angle in np.arange(5) * (2 * np.pi / 5):
        end = (0.26 * np.cos(angle), middle + 0.26 * np.sin(angle), 0.035)
        parts.append(tube((0.0, middle, 0.09), end, (0.028, 0.02), frame, sides=6))
    return parts


def _chair_back(
    rng: np.random.Generator,
    sizes: tuple[float, float, float, float, float],
    frame: Material,
    cover: Material,
) -> list[Part]:
    width, seat, back, inset, lean = sizes
    half, front = width / 2, inset
    kind = rng.integers(3)
    if kind == 0:
        low, high = (-half, front - 0.06, seat), (half, front, seat + back)
        return [cushion(low, high, cover, 0.35, lean)]
    posts = [
        box((x - 0.02, front - 0.04, seat - 0.02), (x + 0.02, front, seat + back), frame, lean)
        for x in (0.02 - half, half - 0.02)
    ]
    n_bars = int(rng.integers(2, 6))
    bars = []
    for index in range(n_bars):
        if kind == 1:
            top = seat + back * (index + 1) / n_bars
            bars.append(
                _leaning(
                    (0.04 - half, front - 0.032, top - 0.06),
                    (half - 0.04, front - 0.008, top - 0.005),
                    frame,
                    lean,
                    seat - 0.02,
                )
            )
        else:
            x = (index + 0.5) / n_bars * (width - 0.08) - half + 0.04
            bars.append(
                box(
                    (x - 0.012, front - 0.032, seat - 0.02),
                    (x + 0.012, front - 0.01, seat + back - 0.06),
                    frame,
                    lean,
                )
            )
    if kind == 2:
        top = seat + back
        bars.append(
            _leaning(
                (0.04 - half, front - 0.035, top - 0.07),
                (half - 0.04, front - 0.005, top - 0.002),
                cover,
                lean,
                seat - 0.02,
            )
        )
    return posts + bars


def _leaning(
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    material: Material,
    lean: float,
    hinge: float,
) -> Part:
    """A box that leans back about a hinge at another height than its own lower edge."""
    back = (lower[2] - hinge) * np.sin(lean)
    drop = (lower[2] - hinge) * (1.0 - np.cos(lean))
    return box(
        (lower[0], lower[1] - back, lower[2] - drop),
        (upper[0], upper[1] - back, upper[2] - drop),
        material,
        lean,
    )


def _arm_rest(x: float, seat: float, depth: float, inset: float, frame: Material) -> list[Part]:
    front = inset + depth * 0.7
    return [
        box((x - 0.025, inset - 0.02, seat + 0.19), (x + 0.025, front, seat + 0.22), frame),
        box((x - 0.015, front - 0.05, seat - 0.02), (x + 0.015, front - 0.02, seat + 0.195), frame),
    ]


def sofa(rng: np.random.Generator, style: Style) -> Thing:
    """An upholstered bench with a back, two arms and separate cushions; one to three seats."""
    n_seats = int(rng.integers(1, 4))
    seat_width, arm = rng.uniform(0.55, 0.75), rng.uniform(0.1, 0.24)
    width, depth = n_seats * seat_width + 2 * arm, rng.uniform(0.8, 1.0)
    seat, back = rng.uniform(0.36, 0.48), rng.uniform(0.3, 0.5)
    foot, cover = float(rng.uniform(0.04, 0.14)), style.pick(rng)
    other = style.pick(rng) if rng.random() < 0.5 else cover
    half, thick = width / 2, rng.uniform(0.16, 0.26)
    arm_top = seat + rng.uniform(0.1, 0.25)
    parts = legs((0.03 - half, 0.03), (half - 0.03, depth - 0.05), foot + 0.01, 0.06, style.pick(rng), False)
    parts.append(box((arm - half - 0.01, 0.05, foot), (half - arm + 0.01, depth - 0.02, seat - 0.1), cover))
    parts.append(cushion((0.02 - half, 0.02, foot), (half - 0.02, thick, seat + back), cover, 0.25))
    softness = float(rng.uniform(0.15, 0.5))
    for low, high in ((-half, arm - half), (half - arm, half)):
        parts.append(cushion((low, 0.03, foot), (high, depth, arm_top), cover, softness))
    for index in range(n_seats):
        left = arm - half + index * seat_width
        parts.append(
            cushion(
                (left, thick - 0.04, seat - 0.12), (left + seat_width, depth - 0.01, seat + 0.03), other, 0.3
            )
        )
        if rng.random() < 0.6:
            parts.append(
                cushion(
                    (left + 0.04, thick - 0.02, seat),
                    (left + seat_width - 0.04, thick + 0.14, seat + back * 0.85),
                    other,
                    0.45,
                )
            )
    if rng.random() < 0.5:
        x = rng.uniform(arm - half + 0.22, half - arm - 0.22)
        parts.append(
            cushion(
                (x - 0.2, thick + 0.12, seat + 0.02),
                (x + 0.2, thick + 0.24, seat + 0.36),
                style.pick(rng),
                0.6,
            )
        )
    return Thing("sofa", tuple(parts))


def bed(rng: np.random.Generator, style: Style) -> Thing:
    """A frame on legs or a box, a mattress, a head board, pillows, a blanket."""
    width, length = float(rng.choice((0.9, 1.2, 1.4, 1.6))) + rng.uniform(-0.03, 0.05), rng.uniform(1.9, 2.1)
    frame, sheet, blanket = style.pick(rng), style.pick(rng), style.pick(rng)
    low, top = rng.uniform(0.1, 0.24), rng.uniform(0.36, 0.58)
    half = width / 2
    if rng.random() < 0.5:
        parts = legs((-half, 0.02), (half, length), low + 0.02, 0.07, frame, rng.random() < 0.4)
    else:
        parts = [box((0.05 - half, 0.05, 0.0), (half - 0.05, length - 0.06, low + 0.01), frame)]
    parts.append(box((-half, 0.0, low), (half, length, low + 0.12), frame))
    parts.append(cushion((0.01 - half, 0.05, low + 0.08), (half - 0.01, length - 0.01, top), sheet, 0.15))
    if rng.random() < 0.85:
        parts.append(
            box((-half - 0.02, -0.04, 0.0), (half + 0.02, 0.03, top + rng.uniform(0.15, 0.6)), frame)
        )
    if rng.random() < 0.3:
        parts.append(
            box(
                (-half - 0.01, length - 0.02, 0.0),
                (half + 0.01, length + 0.03, top + rng.uniform(0.02, 0.2)),
                frame,
            )
        )
    start = rng.uniform(0.5, 1.1)
    parts.append(
        cushion((-half - 0.02, start, low + 0.14), (half + 0.02, length + 0.02, top + 0.05), blanket, 0.15)
    )
    parts += _pillows(rng, half, top, style)
    return Thing("bed", tuple(parts))


def _pillows(rng: np.random.Generator, half: float, top: float, style: Style) -> list[Part]:
    cover = style.pick(rng)
    count = 1 if half < 0.55 else 2
    parts = []
    for index in range(count):
        middle = ((index + 0.5) / count - 0.5) * 2 * half
        reach = min(0.33, half / count - 0.04)
        parts.append(
            cushion(
                (middle - reach, 0.08, top - 0.02),
                (middle + reach, 0.46, top + rng.uniform(0.08, 0.16)),
                cover,
                0.6,
            )
        )
    return parts
