"""Cars, vans, trucks, buses and trailers of many shapes. Front at positive x."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Material
from ponderv2.synthetic.parts import Part, box
from ponderv2.synthetic.streets.materials import (
    DARK,
    GLASS,
    LAMP,
    METAL,
    PLATE,
    REAR_LAMP,
    RUBBER,
    any_color,
    flat,
    paint,
)
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.shapes import loft, wheel


def car(rng: np.random.Generator) -> Model:
    """Hatchback, saloon, estate, off-roader, van or pick-up."""
    kind = str(
        rng.choice(
            ("hatch", "saloon", "estate", "suv", "van", "pickup"), p=(0.24, 0.26, 0.14, 0.2, 0.1, 0.06)
        )
    )
    length = {"hatch": 3.9, "saloon": 4.6, "estate": 4.6, "suv": 4.6, "van": 5.0, "pickup": 5.3}[kind]
    length *= float(rng.uniform(0.93, 1.07))
    width = float(rng.uniform(1.68, 1.9)) + (0.08 if kind in ("suv", "van", "pickup") else 0.0)
    height = {"hatch": 1.48, "saloon": 1.44, "estate": 1.48, "suv": 1.7, "van": 1.98, "pickup": 1.8}[kind]
    height *= float(rng.uniform(0.97, 1.04))
    return Model.rigid("vehicle.car", _car_parts(rng, kind, (length, width, height)))


def hatchback(rng: np.random.Generator) -> Model:
    """The vehicle that carries the sensors."""
    return Model.rigid("vehicle.car", _car_parts(rng, "hatch", (4.1, 1.73, 1.5)))


def _car_parts(rng: np.random.Generator, kind: str, sizes: tuple[float, float, float]) -> list[Part]:
    length, width, height = sizes
    body = paint(rng)
    half, front, rear = width / 2, length / 2, -length / 2
    waist = height * float(rng.uniform(0.56, 0.62)) if kind != "van" else height * 0.5
    floor, radius = (
        (0.24 if kind in ("suv", "pickup") else 0.17),
        (0.36 if kind in ("suv", "pickup", "van") else 0.31),
    )
    hood = {"hatch": 0.22, "saloon": 0.27, "estate": 0.26, "suv": 0.24, "van": 0.12, "pickup": 0.26}[kind]
    boot = {"hatch": 0.03, "saloon": 0.2, "estate": 0.02, "suv": 0.02, "van": 0.01, "pickup": 0.38}[kind]
    scuttle, back = front - hood * length, rear + boot * length
    nose = waist * float(rng.uniform(0.78, 0.9))
    hull = loft(
        [
            (rear, floor + 0.12, waist * 0.9, half * 0.86, half * 0.84),
            (rear + 0.12, floor, waist, half * 0.95, half * 0.92),
            (rear + 0.3 * length, floor, waist, half, half * 0.95),
            (front - 0.3 * length, floor, waist, half, half * 0.95),
            (front - 0.16, floor, nose, half * 0.95, half * 0.9),
            (front, floor + 0.1, nose * 0.82, half * 0.84, half * 0.8),
        ],
        body,
    )
    rake, tail = (
        float(rng.uniform(0.32, 0.5)) * (height - waist + 0.35),
        0.16 if kind in ("van", "estate", "suv") else 0.42,
    )
    tail = tail if kind != "hatch" else 0.25
    cabin = [
        (back, waist - 0.03, waist + 0.01, half * 0.9, half * 0.88),
        (back + tail, waist - 0.03, height - 0.05, half * 0.92, half * 0.72),
        (scuttle - rake - 0.25, waist - 0.03, height - 0.04, half * 0.92, half * 0.74),
        (scuttle, waist - 0.03, waist + 0.01, half * 0.9, half * 0.86),
    ]
    roof = [
        (back + tail - 0.02, height - 0.09, height - 0.03, half * 0.73, half * 0.68),
        (back + tail + 0.3, height - 0.09, height, half * 0.76, half * 0.66),
        (scuttle - rake - 0.22, height - 0.09, height - 0.02, half * 0.76, half * 0.66),
    ]
    parts = [hull, loft(cabin, GLASS), loft(roof, body), *_pillars(cabin, body, half)]
    if kind == "van":
        parts.append(
            box((back + 0.05, -half * 0.93, waist - 0.05), (0.1 * length, half * 0.93, height - 0.12), body)
        )
    if kind == "pickup":
        parts += _bed(rear, back, half, waist, body)
    parts += _wheels((front - 0.19 * length, rear + 0.19 * length), half, radius, 0.2)
    parts += _lights(rear, front, half, waist * 0.72, nose * 0.66)
    mirror = scuttle - 0.28
    for side in (-1.0, 1.0):
        y = side * (half + 0.07)
        parts.append(box((mirror - 0.09, y - 0.08, waist), (mirror + 0.07, y + 0.08, waist + 0.14), body))
    return parts


def _pillars(
    cabin: list[tuple[float, float, float, float, float]], body: Material, half: float
) -> list[Part]:
    """The posts between the windows, slightly in front of the glass."""
    middle = (cabin[1][0] + cabin[2][0]) / 2
    return [
        loft(
            [(x - 0.04, z0, z1, half * 0.935, half * 0.755), (x + 0.04, z0, z1, half * 0.935, half * 0.755)],
            body,
        )
        for x, z0, z1 in ((middle, cabin[1][1], cabin[1][2]), (cabin[1][0], cabin[1][1], cabin[1][2]))
    ]


def _bed(rear: float, back: float, half: float, waist: float, body: Material) -> list[Part]:
    top = waist + 0.16
    return [
        box((rear + 0.05, -half * 0.93, waist - 0.02), (back, -half * 0.85, top), body),
        box((rear + 0.05, half * 0.85, waist - 0.02), (back, half * 0.93, top), body),
        box((rear + 0.02, -half * 0.9, waist - 0.02), (rear + 0.1, half * 0.9, top), body),
    ]


def _wheels(axles: tuple[float, ...], half: float, radius: float, width: float) -> list[Part]:
    tyres, hubs = [], []
    for x in axles:
        for side in (-1.0, 1.0):
            tyres.append(wheel(x, side * (half - width / 2 + 0.01), radius, width, RUBBER))
            hubs.append(wheel(x, side * (half - width / 2 + 0.02), radius, width, METAL, 8))
    for index, hub in enumerate(hubs):  # a hub is a smaller disc at the same axle
        centre = np.array([axles[index // 2], 0.0, radius])
        hubs[index] = Part((hub.vertices * np.array([0.55, 0.55, 1.0])), hub.faces, hub.material, hub.pose)
        assert np.isclose(hub.pose[2, 3], centre[2])
    return tyres + hubs


def _lights(rear: float, front: float, half: float, z_rear: float, z_front: float) -> list[Part]:
    parts = []
    for side in (-1.0, 1.0):
        y = side * half * 0.66
        parts.append(
            box((front - 0.2, y - 0.15, z_front - 0.05), (front + 0.005, y + 0.15, z_front + 0.07), LAMP)
        )
        parts.append(box((rear - 0.005, y - 0.13, z_rear), (rear + 0.2, y + 0.13, z_rear + 0.13), REAR_LAMP))
    for x in (rear - 0.015, front - 0.01):
        parts.append(box((x, -0.26, 0.42), (x + 0.03, 0.26, 0.53), PLATE))
    return parts


def truck(rng: np.random.Generator) -> Model:
    """A cab with a box, a flat bed with a load, a tank or a tipper."""
    length, width = float(rng.uniform(5.8, 9.8)), float(rng.uniform(2.1, 2.5))
    cab_length, cab_height = float(rng.uniform(1.7, 2.3)), float(rng.uniform(2.3, 3.0))
    half, front, rear = width / 2, length / 2, -length / 2
    body, load = paint(rng), paint(rng)
    parts = _cab(front, cab_length, cab_height, half, body)
    start = front - cab_length - 0.15
    parts.append(box((rear + 0.1, -half * 0.45, 0.55), (start, half * 0.45, 0.85), DARK))
    kind = str(rng.choice(("box", "flat", "tank", "tipper"), p=(0.55, 0.2, 0.1, 0.15)))
    top = float(rng.uniform(2.6, 3.7))
    if kind == "box":
        parts.append(box((rear, -half, 0.95), (start, half, top), load))
        parts.append(box((rear - 0.01, -0.03, 1.0), (rear + 0.03, 0.03, top - 0.1), METAL))
    elif kind == "tank":
        angle = np.linspace(0, 2 * np.pi, 13)[:-1]
        from ponderv2.synthetic.parts import tube

        parts.append(
            tube((rear, 0, 1.75), (start - 0.1, 0, 1.75), (half * 0.85, half * 0.85), load, len(angle))
        )
    else:
        parts.append(box((rear, -half, 0.85), (start, half, 1.0), load))
        wall = float(rng.uniform(0.4, 0.9))
        for side in (-1.0, 1.0):
            y = side * (half - 0.04)
            parts.append(box((rear, y - 0.03, 1.0), (start, y + 0.03, 1.0 + wall), load))
        parts.append(box((rear, -half, 1.0), (rear + 0.06, half, 1.0 + wall), load))
        for _ in range(int(rng.integers(0, 6))):
            x, y = float(rng.uniform(rear + 0.7, start - 0.7)), float(rng.uniform(-half * 0.5, half * 0.5))
            high = float(rng.uniform(0.3, 1.3))
            parts.append(
                box((x - 0.5, y - 0.45, 1.0), (x + 0.5, y + 0.45, 1.0 + high), flat(any_color(rng), 0.3))
            )
    axles = (front - 0.9, rear + 1.2) if length < 7.5 else (front - 0.9, rear + 1.1, rear + 2.3)
    parts += _wheels(axles, half, 0.48, 0.28) + _lights(rear, front, half, 0.75, 0.8)
    return Model.rigid("vehicle.truck", parts)


def _cab(front: float, length: float, height: float, half: float, body: Material) -> list[Part]:
    rear, sill = front - length, height * 0.56
    parts = [
        loft(
            [
                (rear, 0.5, height, half * 0.96, half * 0.92),
                (front - 0.35, 0.45, height, half * 0.97, half * 0.9),
                (front, 0.45, sill, half * 0.94, half * 0.92),
            ],
            body,
        ),
        loft(
            [
                (front - 0.33, sill + 0.05, height - 0.1, half * 0.88, half * 0.8),
                (front + 0.01, sill, sill + 0.06, half * 0.9, half * 0.88),
            ],
            GLASS,
        ),
    ]
    for side in (-1.0, 1.0):
        y = side * half * 0.955
        parts.append(
            box(
                (front - 0.35 - 0.4 * length, y - 0.03, sill + 0.05),
                (front - 0.4, y + 0.03, height - 0.3),
                GLASS,
            )
        )
        out = side * (half + 0.17)
        parts.append(
            box((front - 0.3, out - 0.12, sill + 0.1), (front - 0.15, out + 0.12, sill + 0.65), DARK)
        )
    return parts


def bus(rng: np.random.Generator) -> Model:
    """A coach or a city bus, sometimes of two sections or two decks."""
    bendy = rng.random() < 0.15
    double = not bendy and rng.random() < 0.2
    length = float(rng.uniform(16.5, 18.5)) if bendy else float(rng.uniform(8.5, 12.5))
    half, height = float(rng.uniform(1.2, 1.28)), 4.2 if double else float(rng.uniform(2.9, 3.4))
    front, rear, body = length / 2, -length / 2, paint(rng)
    stripe = flat(any_color(rng), float(rng.uniform(0.1, 0.5)))
    sections = [(rear, front)] if not bendy else [(rear, -0.9), (0.9, front)]
    parts: list[Part] = []
    for low, high in sections:
        parts.append(box((low, -half, 0.35), (high, half, height), body))
        parts.append(box((low + 0.02, -half - 0.01, 0.45), (high - 0.02, half + 0.01, 0.9), stripe))
        for deck in (1.25, 2.85) if double else (1.25,):
            parts += _windows(low, high, half, deck, min(deck + 1.05, height - 0.25))
    if bendy:
        parts.append(box((-0.95, -half * 0.93, 0.45), (0.95, half * 0.93, height - 0.15), DARK))
    parts.append(
        box(
            (front - 0.02, -half * 0.92, 1.05),
            (front + 0.02, half * 0.92, height - 0.5 if not double else 2.3),
            GLASS,
        )
    )
    parts.append(
        box((rear - 0.02, -half * 0.8, 1.5), (rear + 0.02, half * 0.8, min(height - 0.4, 2.4)), GLASS)
    )
    axles = (front - 2.4, rear + 2.7) if not bendy else (front - 2.4, 1.6 + 0.9, rear + 2.4)
    parts += _wheels(axles, half, 0.48, 0.28) + _lights(rear, front, half, 0.7, 0.7)
    return Model.rigid("vehicle.bus.bendy" if bendy else "vehicle.bus.rigid", parts)


def _windows(low: float, high: float, half: float, bottom: float, top: float) -> list[Part]:
    panes, n_panes = [], max(int((high - low - 0.6) / 1.4), 1)
    step = (high - low - 0.6) / n_panes
    for index in range(n_panes):
        start = low + 0.3 + index * step
        panes.append(
            box((start + 0.05, -half - 0.012, bottom), (start + step - 0.05, half + 0.012, top), GLASS)
        )
    return panes


def trailer(rng: np.random.Generator, small: bool) -> Model:
    """What is pulled: by a truck, or a small one by a car."""
    load = paint(rng)
    if small:
        length, half = float(rng.uniform(2.6, 4.2)), float(rng.uniform(0.8, 1.0))
        top = float(rng.choice((0.95, 1.9)))
        parts = [box((-length / 2, -half, 0.45), (length / 2, half, top), load)]
        parts.append(box((length / 2, -0.05, 0.42), (length / 2 + 1.1, 0.05, 0.52), METAL))
        parts += _wheels((-0.1,), half + 0.2, 0.3, 0.18)
    else:
        length, half = float(rng.uniform(9.0, 13.6)), float(rng.uniform(1.22, 1.28))
        rear, front = -length / 2, length / 2
        base, top = float(rng.uniform(1.0, 1.25)), float(rng.uniform(3.5, 4.0))
        parts = [box((rear, -half, base), (front, half, top), load)]
        parts.append(box((rear + 0.1, -half * 0.5, base - 0.3), (front - 0.2, half * 0.5, base), DARK))
        n_ribs = int(rng.integers(0, 12))
        for index in range(n_ribs):
            x = rear + (index + 0.5) * length / n_ribs
            parts.append(
                box((x - 0.04, -half - 0.025, base + 0.05), (x + 0.04, half + 0.025, top - 0.05), load)
            )
        parts += _wheels((rear + 1.2, rear + 2.5, rear + 3.8), half, 0.48, 0.3)
        for side in (-1.0, 1.0):
            parts.append(
                box((front - 2.6, side * 0.8 - 0.08, 0.02), (front - 2.4, side * 0.8 + 0.08, base), METAL)
            )
        parts.append(
            box((rear - 0.01, -half * 0.9, base - 0.35), (rear + 0.05, half * 0.9, base - 0.2), REAR_LAMP)
        )
    return Model.rigid("vehicle.trailer", parts)


def tractor(rng: np.random.Generator) -> Model:
    """The truck in front of a trailer: a cab and a short chassis."""
    half, height, body = 1.24, float(rng.uniform(3.0, 3.7)), paint(rng)
    parts = _cab(2.9, 2.2, height, half, body)
    parts.append(box((-2.9, -half * 0.45, 0.6), (0.9, half * 0.45, 0.95), DARK))
    parts += _wheels((1.9, -1.4, -2.5), half, 0.48, 0.3) + _lights(-2.9, 2.9, half, 0.7, 0.8)
    return Model.rigid("vehicle.truck", parts)
