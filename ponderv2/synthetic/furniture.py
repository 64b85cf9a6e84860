"""Furniture: chairs, sofas, beds, tables, desks, cabinets and bookshelves, as things made of parts."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Material, Style, random_material
from ponderv2.synthetic.parts import Part, Surface, Thing, box, cushion, lathe, tube


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


def table(rng: np.random.Generator, style: Style, low: bool = False) -> Thing:
    """A plate on four legs, a column or two side boards; round or rectangular; `low` for a coffee table."""
    height = float(rng.uniform(0.36, 0.5) if low else rng.uniform(0.68, 0.78))
    width, depth = float(rng.uniform(0.7, 1.5)), float(rng.uniform(0.6, 0.95))
    thick = float(rng.uniform(0.025, 0.06))
    frame, plate = style.pick(rng), style.pick(rng)
    if rng.random() < 0.4:
        return _round_table(rng, min(depth, 1.2) / 2 + 0.08, height, thick, (frame, plate))
    half = width / 2
    parts = [box((-half, 0.0, height - thick), (half, depth, height), plate)]
    if rng.random() < 0.75:
        inset, leg = float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.04, 0.08))
        parts += legs(
            (inset - half, inset),
            (half - inset, depth - inset),
            height - thick + 0.005,
            leg,
            frame,
            rng.random() < 0.4,
        )
        if rng.random() < 0.6:
            rail = (height - thick - 0.08, height - thick + 0.004)
            parts.append(
                box(
                    (inset - half + leg, inset + 0.01, rail[0]),
                    (half - inset - leg, inset + 0.03, rail[1]),
                    frame,
                )
            )
            parts.append(
                box(
                    (inset - half + leg, depth - inset - 0.03, rail[0]),
                    (half - inset - leg, depth - inset - 0.01, rail[1]),
                    frame,
                )
            )
    else:
        for x in (0.15 - half, half - 0.19):
            parts.append(box((x, 0.1, 0.0), (x + 0.04, depth - 0.1, height - thick + 0.005), frame))
        parts.append(box((0.18 - half, depth / 2 - 0.02, 0.15), (half - 0.18, depth / 2 + 0.02, 0.25), frame))
    if low and rng.random() < 0.5:
        parts.append(box((0.06 - half, 0.06, 0.12), (half - 0.06, depth - 0.06, 0.14), frame))
    return Thing("table", tuple(parts), (Surface((0.03 - half, 0.03), (half - 0.03, depth - 0.03), height),))


def _round_table(
    rng: np.random.Generator, radius: float, height: float, thick: float, materials: tuple[Material, Material]
) -> Thing:
    frame, plate = materials
    at = (0.0, radius, 0.0)
    parts = [
        lathe(
            [(radius - 0.01, height - thick), (radius, height - thick / 2), (radius - 0.005, height)],
            plate,
            at,
            20,
        )
    ]
    if rng.random() < 0.6:
        parts.append(
            lathe(
                [(radius * 0.5, 0.0), (radius * 0.45, 0.03), (0.05, 0.07), (0.035, height - thick + 0.005)],
                frame,
                at,
            )
        )
    else:
        for angle in np.arange(3) * (2 * np.pi / 3) + rng.uniform(0, 2):
            x, y = np.cos(angle), np.sin(angle)
            foot = (0.85 * radius * x, radius + 0.85 * radius * y, 0.0)
            parts.append(
                tube(
                    foot,
                    (0.3 * radius * x, radius + 0.3 * radius * y, height - thick + 0.005),
                    (0.02, 0.028),
                    frame,
                )
            )
    inner = radius * 0.66
    return Thing("table", tuple(parts), (Surface((-inner, radius - inner), (inner, radius + inner), height),))


def desk(rng: np.random.Generator, style: Style) -> Thing:
    """A work plate with a drawer block on one side, a back panel and often a rack on top."""
    width, depth, height = (
        float(rng.uniform(1.0, 1.6)),
        float(rng.uniform(0.55, 0.75)),
        float(rng.uniform(0.7, 0.78)),
    )
    frame, plate = style.pick(rng), style.pick(rng)
    half, side = width / 2, float(rng.choice((-1.0, 1.0)))
    parts = [box((-half, 0.0, height - 0.035), (half, depth, height), plate)]
    block = float(rng.uniform(0.35, 0.45))
    inner, outer = side * (half - 0.02 - block), side * (half - 0.02)
    low, high = min(inner, outer), max(inner, outer)
    parts.append(box((low, 0.04, 0.03), (high, depth - 0.05, height - 0.03), frame))
    parts += fronts(
        rng, (low, high), (0.05, height - 0.05), depth - 0.05, (1, int(rng.integers(2, 5))), style.pick(rng)
    )
    parts.append(
        box(
            (min(-outer, -outer + side * 0.03), 0.04, 0.0),
            (max(-outer, -outer + side * 0.03), depth - 0.05, height - 0.03),
            frame,
        )
    )
    back = (min(-outer, low), max(-outer, high))
    parts.append(box((back[0], 0.05, height - 0.42), (back[1], 0.07, height - 0.03), frame))
    start = 0.03
    if rng.random() < 0.4:
        parts += _desk_rack(rng, half, height, frame)
        start = 0.26
    return Thing("desk", tuple(parts), (Surface((0.03 - half, start), (half - 0.03, depth - 0.03), height),))


def _desk_rack(rng: np.random.Generator, half: float, height: float, frame: Material) -> list[Part]:
    rise = float(rng.uniform(0.3, 0.5))
    parts = [box((-half, 0.01, height + rise), (half, 0.23, height + rise + 0.025), frame)]
    for x in (-half, -0.01, half - 0.02):
        parts.append(box((x, 0.015, height - 0.005), (x + 0.02, 0.225, height + rise + 0.005), frame))
    return parts


def fronts(
    rng: np.random.Generator,
    across: tuple[float, float],
    up: tuple[float, float],
    y: float,
    grid: tuple[int, int],
    material: Material,
) -> list[Part]:
    """Doors or drawers with handles on a front at y, in a grid of columns and rows."""
    columns, rows = grid
    width, height = (across[1] - across[0]) / columns, (up[1] - up[0]) / rows
    knob = style_of_handle(rng)
    parts = []
    for column in range(columns):
        for row in range(rows):
            x, z = across[0] + column * width, up[0] + row * height
            parts.append(
                box(
                    (x + 0.006, y - 0.01, z + 0.006),
                    (x + width - 0.006, y + 0.016, z + height - 0.006),
                    material,
                )
            )
            middle = (x + width / 2, z + height / 2)
            if height > 1.3 * width:
                edge = x + (width - 0.06 if column % 2 == 0 else 0.06)
                parts.append(
                    box(
                        (edge - 0.009, y + 0.01, middle[1] - 0.07),
                        (edge + 0.009, y + 0.042, middle[1] + 0.07),
                        knob,
                    )
                )
            else:
                reach = min(0.07, width * 0.3)
                parts.append(
                    box(
                        (middle[0] - reach, y + 0.01, middle[1] - 0.009),
                        (middle[0] + reach, y + 0.042, middle[1] + 0.009),
                        knob,
                    )
                )
    return parts


def style_of_handle(rng: np.random.Generator) -> Material:
    """Handles are of any material."""
    return random_material(rng)


def cabinet(rng: np.random.Generator, style: Style, kind: str = "any") -> Thing:
    """A closed body with doors or drawers: wardrobe, sideboard, chest or bedside table."""
    kind = str(rng.choice(("wardrobe", "sideboard", "chest"))) if kind == "any" else kind
    ranges = {
        "wardrobe": ((0.8, 1.6), (0.5, 0.62), (1.7, 2.2)),
        "sideboard": ((1.0, 1.8), (0.36, 0.5), (0.4, 0.9)),
        "chest": ((0.6, 1.1), (0.4, 0.5), (0.8, 1.3)),
        "bedside": ((0.36, 0.5), (0.32, 0.42), (0.4, 0.62)),
    }
    width, depth, height = (float(rng.uniform(low, high)) for low, high in ranges[kind])
    frame = style.pick(rng)
    front = style.pick(rng) if rng.random() < 0.5 else frame
    half, foot = width / 2, float(rng.choice((0.0, 0.06, 0.12)))
    parts = [box((-half, 0.0, foot), (half, depth, height - 0.02), frame)]
    parts.append(box((-half - 0.012, 0.0, height - 0.03), (half + 0.012, depth + 0.028, height), frame))
    if foot > 0:
        parts += legs(
            (0.01 - half, 0.01), (half - 0.01, depth - 0.01), foot + 0.01, 0.045, frame, rng.random() < 0.5
        )
    columns = max(1, round(width / rng.uniform(0.4, 0.6)))
    drawers = kind in ("chest", "bedside") or (kind == "sideboard" and rng.random() < 0.4)
    rows = max(1, round((height - foot) / rng.uniform(0.2, 0.3))) if drawers else 1
    if kind == "chest":
        columns = min(columns, 2)
    parts += fronts(rng, (-half, half), (foot + 0.01, height - 0.035), depth, (columns, rows), front)
    surfaces = (Surface((0.02 - half, 0.02), (half - 0.02, depth - 0.02), height),) if height < 1.5 else ()
    return Thing("cabinet", tuple(parts), surfaces)


def bookshelf(rng: np.random.Generator, style: Style) -> Thing:
    """Open shelves, partly filled with books and boxes."""
    width, depth, height = (
        float(rng.uniform(0.6, 1.3)),
        float(rng.uniform(0.26, 0.36)),
        float(rng.uniform(0.9, 2.1)),
    )
    frame, half, board = style.pick(rng), width / 2, 0.025
    parts = [
        box((-half, 0.0, 0.0), (board - half, depth, height), frame),
        box((half - board, 0.0, 0.0), (half, depth, height), frame),
    ]
    if rng.random() < 0.7:
        parts.append(
            box((board - half - 0.002, 0.0, 0.05), (half - board + 0.002, 0.012, height - 0.01), frame)
        )
    n_shelves = max(2, round(height / rng.uniform(0.3, 0.42)))
    step = (height - 0.08) / n_shelves
    for level in range(n_shelves + 1):
        z = 0.05 + level * step
        parts.append(
            box((board - half - 0.002, 0.003, z), (half - board + 0.002, depth - 0.003, z + board), frame)
        )
        if level < n_shelves and rng.random() < 0.85:
            parts += books(
                rng, (board - half + 0.01, half - board - 0.01), (0.02, depth), (z + board, z + step), style
            )
    return Thing("bookshelf", tuple(parts))


def books(
    rng: np.random.Generator,
    across: tuple[float, float],
    deep: tuple[float, float],
    up: tuple[float, float],
    style: Style,
) -> list[Part]:
    """A row of standing books that fills part of a shelf, with gaps."""
    x, end = across[0] + rng.uniform(0.0, 0.1), across[1] - rng.uniform(0.0, 0.3)
    covers = [random_material(rng) for _ in range(3)]
    space = up[1] - up[0] - 0.02
    parts: list[Part] = []
    while x < end - 0.06:
        thick = float(rng.uniform(0.02, 0.06))
        if rng.random() < 0.12:
            x += float(rng.uniform(0.04, 0.15))
            continue
        tall = float(rng.uniform(0.55, 0.92)) * space
        reach = deep[0] + (deep[1] - deep[0]) * float(rng.uniform(0.6, 0.9))
        cover = covers[rng.integers(3)] if rng.random() < 0.6 else style.pick(rng)
        parts.append(box((x, deep[0], up[0] - 0.003), (x + thick - 0.002, reach, up[0] + tall), cover))
        x += thick
    return parts
