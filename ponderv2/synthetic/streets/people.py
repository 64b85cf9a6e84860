"""Pedestrians, riders and their bicycles and motorcycles, whose legs move. Front at positive x."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.materials import Material
from ponderv2.synthetic.parts import Part, box, cushion, lathe, tube
from ponderv2.synthetic.streets.materials import DARK, METAL, RETRO, RUBBER, cloth, flat, paint, skin
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.shapes import hoop, placed, pose_at, wheel

N_PHASES = 8
"""Of a walk."""
PEDESTRIANS = {
    "human.pedestrian.adult": 0.78,
    "human.pedestrian.child": 0.1,
    "human.pedestrian.construction_worker": 0.04,
    "human.pedestrian.police_officer": 0.03,
    "human.pedestrian.stroller": 0.05,
}
"""Categories and how frequent they are."""


def pedestrian(rng: np.random.Generator, category: str | None = None, walks: bool = True) -> Model:
    """A person who walks or stands, of one of the categories."""
    category = category or str(rng.choice(list(PEDESTRIANS), p=list(PEDESTRIANS.values())))
    if category == "human.pedestrian.stroller":
        return _stroller(rng)
    tall = (
        float(rng.uniform(1.55, 1.92))
        if category != "human.pedestrian.child"
        else float(rng.uniform(0.95, 1.4))
    )
    stance = rng.integers(2**31)
    n_phases = N_PHASES if walks else 1
    swing = float(rng.uniform(0.38, 0.55)) if walks else float(rng.uniform(0.0, 0.12))
    phases = [
        _body(
            np.random.default_rng(stance),
            category,
            tall,
            swing * float(np.sin(2 * np.pi * n / n_phases + 0.7)),
        )
        for n in range(n_phases)
    ]
    return Model.moving(category, phases, 0.8 * tall)


def _body(rng: np.random.Generator, category: str, tall: float, swing: float) -> list[Part]:
    """One phase; `swing`: angle of the legs, radians. The draws are the same in every phase."""
    worker = category == "human.pedestrian.construction_worker"
    coat, trousers, shoes, face = cloth(rng), cloth(rng), DARK, skin(rng)
    broad = float(rng.uniform(0.9, 1.15)) * tall / 1.75
    hip, neck = 0.5 * tall, 0.83 * tall
    parts: list[Part] = []
    skirt, bag, hat, umbrella = rng.random(4)
    for side, angle in ((-1.0, swing), (1.0, -swing)):
        parts += _leg(side * 0.09 * broad, hip, angle, 0.075 * broad, trousers, shoes)
    if skirt < 0.2:
        low = float(rng.uniform(0.22, 0.4)) * tall
        parts.append(lathe([(0.25 * broad, low), (0.17 * broad, hip + 0.1)], coat, sides=10))
    parts.append(
        cushion((-0.13 * broad, -0.21 * broad, hip - 0.06), (0.13 * broad, 0.21 * broad, neck), coat, 0.6)
    )
    for side, angle in ((-1.0, -swing * 0.8), (1.0, swing * 0.8)):
        shoulder = (0.0, side * 0.24 * broad, neck - 0.06)
        hand = (
            0.33 * tall * np.sin(angle) + 0.03,
            side * 0.28 * broad,
            neck - 0.06 - 0.33 * tall * np.cos(angle),
        )
        parts.append(tube(shoulder, hand, (0.055 * broad, 0.04 * broad), coat, 6))
        parts.append(cushion(tuple(np.subtract(hand, 0.045)), tuple(np.add(hand, 0.045)), face, 1.0))
    head = 0.13 * max(tall, 1.3)
    parts.append(cushion((-0.1, -0.08, neck - 0.01), (0.1, 0.08, neck + head + 0.03), face, 0.9))
    parts.append(cushion((-0.11, -0.09, neck + head * 0.55), (0.09, 0.09, tall), cloth(rng), 0.8))
    if worker or category == "human.pedestrian.police_officer":
        vest = flat((0.85, 0.6, 0.05) if rng.random() < 0.5 else (0.7, 0.9, 0.1), 0.6)
        parts.append(
            cushion(
                (-0.15 * broad, -0.23 * broad, hip + 0.05),
                (0.15 * broad, 0.23 * broad, neck - 0.03),
                vest,
                0.6,
            )
        )
        for z in (hip + 0.18, hip + 0.34):
            parts.append(lathe([(0.21 * broad, z), (0.21 * broad, z + 0.05)], RETRO, sides=10))
    if worker or hat < 0.15:
        parts.append(
            lathe([(0.14, tall - 0.1), (0.13, tall - 0.02), (0.06, tall + 0.04)], cloth(rng), sides=10)
        )
    if bag < 0.3:
        parts.append(
            cushion(
                (-0.34 * broad, -0.16, neck - 0.48 * tall / 1.75),
                (-0.1 * broad, 0.16, neck - 0.02),
                cloth(rng),
                0.5,
            )
        )
    elif bag < 0.45:
        parts.append(box((-0.1, 0.3 * broad, 0.3 * tall), (0.18, 0.4 * broad, 0.47 * tall), cloth(rng)))
    if umbrella < 0.05:
        parts.append(tube((0.2, 0.2, neck - 0.3), (0.1, 0.1, tall + 0.3), (0.015, 0.015), METAL, 5))
        parts += placed(
            [lathe([(0.55, tall + 0.1), (0.35, tall + 0.25), (0.03, tall + 0.32)], cloth(rng), sides=10)],
            pose_at(0.1, 0.1, 0.0),
        )
    return parts


def _leg(y: float, hip: float, angle: float, thick: float, trousers: Material, shoes: Material) -> list[Part]:
    bend = max(-angle, 0.0) * 0.9
    knee = (0.5 * hip * np.sin(angle), y, hip - 0.5 * hip * np.cos(angle))
    lower = angle - bend
    foot_z = max(knee[2] - 0.46 * hip * np.cos(lower), 0.07)
    foot = (knee[0] + 0.46 * hip * np.sin(lower), y, foot_z)
    return [
        tube((0.0, y, hip + 0.02), knee, (thick * 1.1, thick * 0.85), trousers, 6),
        tube(knee, foot, (thick * 0.85, thick * 0.6), trousers, 6),
        box(
            (foot[0] - 0.09, y - 0.045, max(foot_z - 0.07, 0.0)),
            (foot[0] + 0.17, y + 0.045, max(foot_z - 0.07, 0.0) + 0.08),
            shoes,
        ),
    ]


def _stroller(rng: np.random.Generator) -> Model:
    cover = cloth(rng)
    parts = [cushion((-0.3, -0.22, 0.4), (0.4, 0.22, 0.75), cover, 0.5)]
    parts.append(cushion((-0.35, -0.24, 0.6), (0.1, 0.24, 1.02), cover, 0.8))
    parts.append(tube((-0.2, -0.2, 0.5), (-0.65, -0.2, 1.0), (0.015, 0.015), METAL, 5))
    parts.append(tube((-0.2, 0.2, 0.5), (-0.65, 0.2, 1.0), (0.015, 0.015), METAL, 5))
    parts.append(tube((-0.65, -0.2, 1.0), (-0.65, 0.2, 1.0), (0.02, 0.02), DARK, 5))
    for x in (-0.3, 0.35):
        for y in (-0.23, 0.23):
            parts.append(wheel(x, y, 0.13, 0.04, RUBBER, 10))
            parts.append(tube((x, y, 0.15), (0.0, y, 0.45), (0.015, 0.015), METAL, 5))
    return Model.rigid("human.pedestrian.stroller", parts)


def bicycle(rng: np.random.Generator, rider: bool) -> Model:
    """A bicycle, with somebody who pedals or without."""
    seed = rng.integers(2**31)
    phases = [
        _bicycle(np.random.default_rng(seed), rider, 2 * np.pi * n / N_PHASES)
        for n in range(N_PHASES if rider else 1)
    ]
    return Model.moving("vehicle.bicycle", phases, 4.5)


def _bicycle(rng: np.random.Generator, rider: bool, pedal: float) -> list[Part]:
    frame, radius = paint(rng), float(rng.uniform(0.31, 0.36))
    base = float(rng.uniform(1.0, 1.12)) / 2
    seat, bars = (-0.22, 0.0, float(rng.uniform(0.85, 1.0))), (base - 0.12, 0.0, float(rng.uniform(0.9, 1.1)))
    crank = (-0.08, 0.0, 0.3)
    parts = hoop((-base, 0.0, radius), radius - 0.02, 0.022, RUBBER) + hoop(
        (base, 0.0, radius), radius - 0.02, 0.022, RUBBER
    )
    for start, end in (
        ((-base, 0.0, radius), crank),
        ((-base, 0.0, radius), seat),
        (crank, seat),
        (crank, bars),
        (seat, (base - 0.16, 0.0, bars[2] - 0.15)),
        (bars, (base, 0.0, radius)),
    ):
        parts.append(tube(start, end, (0.02, 0.02), frame, 5))
    parts.append(tube((bars[0], -0.28, bars[2]), (bars[0], 0.28, bars[2]), (0.018, 0.018), METAL, 5))
    parts.append(box((seat[0] - 0.14, -0.08, seat[2]), (seat[0] + 0.12, 0.08, seat[2] + 0.06), DARK))
    if rng.random() < 0.35:
        parts.append(box((base - 0.1, -0.18, bars[2] - 0.2), (base + 0.25, 0.18, bars[2] + 0.05), cloth(rng)))
    if rider:
        parts += _rider(rng, (seat[0], seat[2] + 0.05), (bars[0], bars[2]), crank[2], pedal)
    return parts


def _rider(
    rng: np.random.Generator, seat: tuple[float, float], bars: tuple[float, float], feet: float, pedal: float
) -> list[Part]:
    """A person on a saddle who holds bars; `pedal`: angle of the crank, radians."""
    coat, trousers, face = cloth(rng), cloth(rng), skin(rng)
    lean = float(rng.uniform(0.1, 0.5))
    hip = np.array([seat[0], 0.0, seat[1] + 0.05])
    neck = hip + 0.58 * np.array([np.sin(lean), 0.0, np.cos(lean)])
    parts = [tube(tuple(hip), tuple(neck), (0.17, 0.19), coat, 8)]
    parts.append(
        cushion(
            tuple(neck + np.array([-0.08, -0.09, 0.0])), tuple(neck + np.array([0.14, 0.09, 0.28])), face, 0.9
        )
    )
    parts.append(
        cushion(
            tuple(neck + np.array([-0.1, -0.11, 0.13])),
            tuple(neck + np.array([0.14, 0.11, 0.32])),
            cloth(rng),
            0.8,
        )
    )
    for side in (-1.0, 1.0):
        shoulder = neck + np.array([0.0, side * 0.2, -0.05])
        parts.append(tube(tuple(shoulder), (bars[0], side * 0.25, bars[1] + 0.03), (0.05, 0.04), coat, 6))
        turn = pedal + (np.pi if side > 0 else 0.0)
        foot = np.array(
            [seat[0] + 0.16 + 0.16 * np.cos(turn), side * 0.12, feet + 0.03 + 0.16 * np.sin(turn)]
        )
        knee = (hip + foot) / 2 + (0.26, 0.0, 0.1)
        parts.append(
            tube(
                tuple(hip + np.array([0.0, side * 0.09, 0.0])),
                tuple(knee + np.array([0.0, side * 0.02, 0.0])),
                (0.085, 0.065),
                trousers,
                6,
            )
        )
        parts.append(tube(tuple(knee), tuple(foot), (0.06, 0.045), trousers, 6))
        parts.append(
            box(
                tuple(foot - np.array([0.08, 0.045, 0.05])), tuple(foot + np.array([0.17, 0.045, 0.03])), DARK
            )
        )
    if rng.random() < 0.2:
        parts.append(
            cushion(
                tuple(neck + np.array([-0.38, -0.16, -0.45])),
                tuple(neck + np.array([-0.1, 0.16, 0.0])),
                cloth(rng),
                0.5,
            )
        )
    return parts


def motorcycle(rng: np.random.Generator, rider: bool) -> Model:
    """A motorcycle or a scooter."""
    body, seat = paint(rng), float(rng.uniform(0.72, 0.85))
    base, radius = float(rng.uniform(0.62, 0.75)), float(rng.uniform(0.24, 0.32))
    scooter = rng.random() < 0.4
    parts = [wheel(x, 0.0, radius, 0.13, RUBBER) for x in (-base, base)]
    parts.append(box((-base * 0.8, -0.16, 0.3), (base * 0.25, 0.16, 0.55), DARK if not scooter else body))
    parts.append(cushion((-base * 1.15, -0.15, seat - 0.16), (base * 0.2, 0.15, seat), DARK, 0.5))
    parts.append(cushion((-base * 1.3, -0.14, seat - 0.3), (-base * 0.5, 0.14, seat - 0.08), body, 0.5))
    if scooter:
        parts.append(box((base * 0.45, -0.22, 0.32), (base * 0.58, 0.22, 1.0), body, 0.0))
        parts.append(box((-base * 0.2, -0.16, 0.26), (base * 0.5, 0.16, 0.34), body))
    else:
        parts.append(cushion((-base * 0.1, -0.18, seat - 0.15), (base * 0.65, 0.18, seat + 0.16), body, 0.7))
    bars = (base * 0.62, float(rng.uniform(0.98, 1.12)))
    for side in (-0.09, 0.09):
        parts.append(tube((base, side, radius), (bars[0], side, bars[1]), (0.03, 0.03), METAL, 5))
    parts.append(
        tube((bars[0] - 0.05, -0.36, bars[1]), (bars[0] - 0.05, 0.36, bars[1]), (0.02, 0.02), DARK, 5)
    )
    parts.append(
        cushion((base * 0.7, -0.1, bars[1] - 0.25), (base * 0.7 + 0.14, 0.1, bars[1] - 0.05), METAL, 0.8)
    )
    if rider:
        parts += _rider(rng, (-base * 0.35, seat + 0.02), bars, 0.34, 0.0)
    return Model.rigid("vehicle.motorcycle", parts)
