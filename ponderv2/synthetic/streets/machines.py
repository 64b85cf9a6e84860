"""Construction vehicles: excavators, wheel loaders and rollers. Front at positive x."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.parts import Part, box, tube
from ponderv2.synthetic.streets.materials import DARK, GLASS, METAL, RUBBER, any_color, flat
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.shapes import loft, placed, pose_at, wheel


def construction_vehicle(rng: np.random.Generator, room: float) -> Model:
    """Any that is no wider than the room, metres, in any paint."""
    maker = (_excavator, _loader, _roller)[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    found = Model.rigid("vehicle.construction", maker(rng))
    return found if found.size[1] < room else Model.rigid("vehicle.construction", _roller(rng))


def _excavator(rng: np.random.Generator) -> list[Part]:
    size = float(rng.uniform(0.55, 1.0))
    body = flat(any_color(rng), float(rng.uniform(0.15, 0.5)))
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        y = side * 1.1 * size
        track = [(-2.0, 0.2, 0.7), (-1.7, 0.0, 0.85), (1.7, 0.0, 0.85), (2.0, 0.2, 0.7)]
        stations = [(x * size, low * size, high * size, 0.28 * size, 0.28 * size) for x, low, high in track]
        parts += placed([loft(stations, RUBBER)], pose_at(0.0, y, 0.0))
    turret = [box((-1.9 * size, -1.25 * size, 1.0 * size), (1.1 * size, 1.25 * size, 1.9 * size), body)]
    turret.append(box((-1.95 * size, -1.1 * size, 1.1 * size), (-1.2 * size, 1.1 * size, 2.2 * size), DARK))
    turret.append(box((0.0, 0.3 * size, 1.9 * size), (1.2 * size, 1.2 * size, 2.9 * size), GLASS))
    turret.append(box((-0.05, 0.25 * size, 2.85 * size), (1.25 * size, 1.25 * size, 3.0 * size), body))
    elbow_x, elbow_z = float(rng.uniform(2.2, 3.6)) * size, float(rng.uniform(3.4, 4.8)) * size
    tip_x, tip_z = elbow_x + float(rng.uniform(0.5, 1.9)) * size, float(rng.uniform(0.6, 2.0)) * size
    arm = 0.22 * size
    turret.append(
        tube(
            (0.9 * size, -0.2 * size, 1.6 * size), (elbow_x, -0.2 * size, elbow_z), (arm * 1.5, arm), body, 6
        )
    )
    turret.append(
        tube((elbow_x, -0.2 * size, elbow_z), (tip_x, -0.2 * size, tip_z), (arm, arm * 0.8), body, 6)
    )
    bucket = [
        (tip_x - 0.5 * size, tip_z - 0.75 * size, tip_z - 0.1, 0.55 * size, 0.55 * size),
        (tip_x + 0.35 * size, tip_z - 0.35 * size, tip_z + 0.1, 0.55 * size, 0.55 * size),
    ]
    turret += placed([loft(bucket, METAL)], pose_at(0.0, -0.2 * size, 0.0))
    return parts + list(placed(turret, pose_at(0.0, 0.0, float(rng.uniform(-0.6, 0.6)))))


def _loader(rng: np.random.Generator) -> list[Part]:
    size = float(rng.uniform(0.7, 1.05))
    body = flat(any_color(rng), float(rng.uniform(0.15, 0.5)))
    parts = [box((-2.9 * size, -0.9 * size, 0.9 * size), (-0.6 * size, 0.9 * size, 2.0 * size), body)]
    parts.append(box((-1.1 * size, -0.75 * size, 1.9 * size), (0.3 * size, 0.75 * size, 3.1 * size), GLASS))
    parts.append(box((-1.2 * size, -0.85 * size, 3.05 * size), (0.4 * size, 0.85 * size, 3.2 * size), body))
    parts.append(box((-0.6 * size, -0.5 * size, 0.8 * size), (1.6 * size, 0.5 * size, 1.4 * size), body))
    lift = float(rng.uniform(0.4, 1.8)) * size
    for side in (-0.55, 0.55):
        parts.append(
            tube(
                (0.6 * size, side * size, 1.5 * size),
                (2.6 * size, side * size, lift),
                (0.14 * size, 0.12 * size),
                body,
                6,
            )
        )
    parts.append(
        loft(
            [
                (2.4 * size, lift - 0.35 * size, lift + 0.6 * size, 1.3 * size, 1.3 * size),
                (3.3 * size, lift - 0.4 * size, lift - 0.25 * size, 1.3 * size, 1.3 * size),
            ],
            METAL,
        )
    )
    for x in (-2.0 * size, 1.3 * size):
        for side in (-1.0, 1.0):
            parts.append(wheel(x, side * 1.05 * size, 0.75 * size, 0.5 * size, RUBBER))
    return parts


def _roller(rng: np.random.Generator) -> list[Part]:
    body = flat(any_color(rng), float(rng.uniform(0.15, 0.5)))
    width = float(rng.uniform(1.3, 1.9))
    parts = [wheel(x, 0.0, 0.6, width, METAL, 20) for x in (-1.4, 1.4)]
    parts.append(box((-1.5, -width * 0.45, 0.9), (1.5, width * 0.45, 1.35), body))
    parts.append(box((-1.9, -width * 0.5, 0.55), (-1.3, width * 0.5, 1.3), body))
    for x in (-0.6, 0.6):
        for side in (-1.0, 1.0):
            parts.append(
                tube((x, side * width * 0.4, 1.3), (x, side * width * 0.4, 2.4), (0.04, 0.04), DARK, 5)
            )
    parts.append(box((-0.8, -width * 0.48, 2.4), (0.8, width * 0.48, 2.5), body))
    parts.append(box((-0.5, -0.25, 1.35), (-0.1, 0.25, 1.9), DARK))
    return parts
