"""Buildings, walls and fences. A building's front is the plane y = 0, x runs along the street."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Pattern
from ponderv2.synthetic.parts import Part, box, tube
from ponderv2.synthetic.streets.materials import (
    DARK,
    METAL,
    StreetMaterial,
    any_color,
    cloth,
    cloudy,
    flat,
    paint,
    wall,
)
from ponderv2.synthetic.streets.shapes import loft, placed, pose_at


def building(rng: np.random.Generator, width: float, depth: float, height: float) -> list[Part]:
    """A house or a block: windows in rows, a ground floor of shops or a door, a roof, balconies."""
    face, trim = wall(rng), wall(rng)
    parts = [box((0.0, -depth, -1.0), (width, 0.0, height), face)]
    storey = float(rng.uniform(2.8, 3.7))
    shop = height > 6.0 and rng.random() < 0.45
    ground = float(rng.uniform(3.4, 4.4)) if shop else storey
    if height > 5.0 and rng.random() < 0.5:
        parts.append(box((-0.06, -depth * 0.5, ground - 0.18), (width + 0.06, 0.1, ground), trim))
    parts += _shop(rng, width, ground) if shop else _door(rng, width, trim)
    parts += _windows(rng, (width, height), (ground if shop else 0.0, storey), trim)
    parts += _side_windows(rng, depth, height, storey, width)
    pitched = height < 12.0 and rng.random() < 0.5
    if pitched:
        rise = float(rng.uniform(1.2, 3.2))
        roof = StreetMaterial(
            Pattern.TILES, any_color(rng), any_color(rng), 0.35, float(rng.uniform(3, 50)), reflectivity=0.25
        )
        ridge = [
            (-0.25, height, height + rise, depth / 2 + 0.3, 0.05),
            (width + 0.25, height, height + rise, depth / 2 + 0.3, 0.05),
        ]
        parts += placed([loft(ridge, roof)], pose_at(0.0, -depth / 2, 0.0))
    else:
        parts.append(
            box(
                (-0.08, -depth - 0.08, height - 0.1),
                (width + 0.08, 0.14, height + float(rng.uniform(0.15, 0.8))),
                trim,
            )
        )
        for _ in range(int(rng.integers(0, 3))):
            x, y = (
                float(rng.uniform(0.5, max(width - 2.5, 0.6))),
                -float(rng.uniform(1.5, max(depth - 2.5, 1.6))),
            )
            parts.append(
                box((x, y - 1.5, height), (x + 2.0, y, height + float(rng.uniform(0.8, 2.2))), METAL)
            )
    return parts


def _glass(rng: np.random.Generator) -> StreetMaterial:
    """A pane; behind some of them there is light at night."""
    color = float(rng.uniform(0.05, 0.25))
    glow = 0.75 if rng.random() < 0.35 else 0.0
    return flat((color, color * 1.08, color * 1.2), 0.1, shine=0.4, hole=0.6, night_glow=glow)


def _windows(
    rng: np.random.Generator, sizes: tuple[float, float], levels: tuple[float, float], trim: StreetMaterial
) -> list[Part]:
    """Rows of panes with sills, slightly in front of the wall, some with balconies."""
    (width, height), (bottom, storey) = sizes, levels
    pitch, share = float(rng.uniform(1.8, 3.6)), float(rng.uniform(0.4, 0.75))
    n_columns, n_rows = max(int((width - 0.6) / pitch), 1), int((height - bottom - 0.3) / storey)
    pitch = (width - 0.6) / n_columns
    wide, low, high = pitch * share, float(rng.uniform(0.5, 1.0)), float(rng.uniform(2.1, 2.5))
    panes = [_glass(rng) for _ in range(4)]
    balcony = rng.random() < 0.35
    rail = paint(rng)
    frames = rng.random() < 0.6
    parts = []
    for row in range(n_rows):
        base = bottom + row * storey
        for column in range(n_columns):
            x = 0.3 + (column + 0.5) * pitch
            if row == 0 and bottom == 0.0 and column == n_columns // 2:
                continue
            pane = panes[int(rng.integers(4))]
            parts.append(box((x - wide / 2, -0.3, base + low), (x + wide / 2, 0.012, base + high), pane))
            if frames:
                parts.append(
                    box(
                        (x - wide / 2 - 0.07, -0.1, base + low - 0.1),
                        (x + wide / 2 + 0.07, 0.07, base + low),
                        trim,
                    )
                )
                parts.append(box((x - 0.03, -0.1, base + low), (x + 0.03, 0.03, base + high), trim))
            if balcony and row > 0 and column % 2 == 0:
                parts.append(box((x - pitch * 0.45, -0.05, base - 0.12), (x + pitch * 0.45, 1.1, base), trim))
                parts.append(box((x - pitch * 0.45, 1.04, base), (x + pitch * 0.45, 1.1, base + 0.95), rail))
    return parts


def _side_windows(
    rng: np.random.Generator, depth: float, height: float, storey: float, width: float
) -> list[Part]:
    pane = _glass(rng)
    n_columns, parts = max(int(depth / 3.5), 1), []
    for row in range(int(height / storey)):
        for column in range(n_columns):
            y, z = -(column + 0.5) * depth / n_columns, row * storey
            parts.append(box((-0.012, y - 0.6, z + 0.9), (width + 0.012, y + 0.6, z + 2.2), pane))
    return parts


def _shop(rng: np.random.Generator, width: float, ground: float) -> list[Part]:
    """Shop windows, a sign, an awning."""
    parts = [box((0.4, -0.4, 0.35), (width - 0.4, 0.015, ground - 0.9), _glass(rng))]
    for x in np.arange(0.4, width - 0.3, float(rng.uniform(1.6, 3.0))):
        parts.append(box((float(x), -0.2, 0.0), (float(x) + 0.12, 0.06, ground - 0.8), DARK))
    sign = StreetMaterial(
        Pattern.PAINTING,
        any_color(rng),
        any_color(rng),
        float(rng.uniform(0.2, 0.5)),
        float(rng.uniform(3, 50)),
        night_glow=0.5,
    )
    parts.append(box((0.5, 0.0, ground - 0.8), (width - 0.5, 0.14, ground - 0.25), sign))
    if rng.random() < 0.4:
        out = float(rng.uniform(0.8, 1.5))
        awning = [
            (0.0, -0.06, 0.0, width / 2 - 0.4, width / 2 - 0.4),
            (out, -0.5, -0.44, width / 2 - 0.4, width / 2 - 0.4),
        ]
        pose = pose_at(width / 2, 0.0, np.pi / 2, ground - 0.85)
        parts += placed([loft(awning, cloth(rng))], pose)
    return parts


def _door(rng: np.random.Generator, width: float, trim: StreetMaterial) -> list[Part]:
    x = width / 2
    return [
        box((x - 0.5, -0.2, 0.0), (x + 0.5, 0.03, 2.15), paint(rng)),
        box((x - 0.7, -0.1, 2.15), (x + 0.7, 0.25, 2.3), trim),
        box((x - 0.8, 0.0, -0.5), (x + 0.8, 0.5, 0.12), trim),
    ]


def block(rng: np.random.Generator, width: float, depth: float, height: float) -> list[Part]:
    """A building far behind: bands of windows, divided by pillars."""
    face, pane = wall(rng), _glass(rng)
    storey, low = float(rng.uniform(2.9, 3.8)), float(rng.uniform(0.7, 1.2))
    high = low + float(rng.uniform(1.1, 1.7))
    parts = [box((0.0, -depth, -1.0), (width, 0.0, height), face)]
    for row in range(int(height / storey)):
        z = row * storey
        parts.append(box((0.5, -depth - 0.02, z + low), (width - 0.5, 0.02, z + high), pane))
        parts.append(box((-0.02, -depth + 0.8, z + low), (width + 0.02, -0.8, z + high), pane))
    for x in np.arange(0.5, width - 0.4, float(rng.uniform(1.6, 4.5))):
        parts.append(box((float(x), -depth - 0.06, 0.0), (float(x) + 0.35, 0.06, height - 0.1), face))
    return parts


def fence(rng: np.random.Generator, length: float) -> list[Part]:
    """A wall, a railing or boards along x that start at the origin."""
    kind, tall = rng.random(), float(rng.uniform(0.9, 2.0))
    if kind < 0.4:
        stone = wall(rng)
        return [
            box((0.0, -0.12, -0.3), (length, 0.12, tall), stone),
            box((0.0, -0.16, tall), (length, 0.16, tall + 0.06), stone),
        ]
    color = paint(rng)
    step = 0.16 if kind < 0.75 else 0.5
    parts = [tube((0.0, 0.0, z), (length, 0.0, z), (0.025, 0.025), color, 5) for z in (0.2, tall - 0.1)]
    for x in np.arange(0.05, length, step):
        half = 0.012 if kind < 0.75 else 0.2
        parts.append(box((float(x) - half, -0.012, 0.0), (float(x) + half, 0.012, tall), color))
    return parts


def rubble(rng: np.random.Generator) -> list[Part]:
    """A heap of sand or stones."""
    size = float(rng.uniform(1.0, 2.2))
    sand = cloudy((0.5, 0.42, 0.3), -0.3, 0.4, float(rng.uniform(3, 50)), 0.3)
    return [
        loft(
            [
                (-size, 0, 0.1, size * 0.6, size * 0.2),
                (0.0, 0.0, size * 0.6, size, size * 0.15),
                (size, 0, 0.08, size * 0.7, size * 0.2),
            ],
            sand,
        )
    ]
