"""Tables, desks and pieces with shelves or drawers. Back at y = 0, front towards +y, metres."""

from __future__ import annotations

import numpy as np

from ponderv2.scenes.synthetic.materials import Material, Style, random_material
from ponderv2.scenes.synthetic.parts import Part, Surface, Thing, box, lathe, tube
from ponderv2.scenes.synthetic.seating import legs


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
