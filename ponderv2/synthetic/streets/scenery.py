"""What stands along the street and never moves: buildings, plants, street furniture, parked things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.parts import Part, shift
from ponderv2.synthetic.streets import buildings, fixtures, machines, objects, people, plants, vehicles
from ponderv2.synthetic.streets.actors import Actor
from ponderv2.synthetic.streets.classes import LABELS
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.motion import Track
from ponderv2.synthetic.streets.road import Road

MANMADE, PLANTS = LABELS["static.manmade"], LABELS["static.vegetation"]


@dataclass
class Site:
    """The street while it is being built. Places that are taken are rectangles in street coordinates."""

    road: Road
    rng: np.random.Generator
    static: list[tuple[int, Part]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    lamps: list[Float[np.ndarray, "3"]] = field(default_factory=list)
    """Bulbs of street lamps."""
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def claim(self, s: float, d: float, half_s: float, half_d: float) -> bool:
        """Take a rectangle, if it is free."""
        for low, high, right, left in self.taken:
            if s + half_s > low and s - half_s < high and d + half_d > right and d - half_d < left:
                return False
        self.taken.append((s - half_s, s + half_s, d - half_d, d + half_d))
        return True

    def frame(self, s: float, d: float, along: int = 1) -> Float[np.ndarray, "4 4"]:
        """x along the street (or against it), y towards its middle, on the ground; mirrored where need be."""
        heading = float(self.road.heading(np.array(s)))
        x = along * np.array([np.cos(heading), np.sin(heading), 0.0])
        y = (-1.0 if d > 0 else 1.0) * np.array([-np.sin(heading), np.cos(heading), 0.0])
        pose = np.eye(4)
        pose[:3, 0], pose[:3, 1] = x, y
        pose[:2, 3] = self.road.to_world(np.array(s), np.array(d))
        pose[2, 3] = float(self.road.ground(np.array(s), np.array(d)))
        return pose

    def put(self, parts: Sequence[Part], label: int, pose: Float[np.ndarray, "4 4"]) -> None:
        """Part of the background."""
        self.static += [(label, replace(part, pose=pose @ part.pose)) for part in parts]

    def stand(self, model: Model, s: float, d: float, turn: float, **state: bool) -> None:
        """An annotated object that never moves; `turn` is relative to the street."""
        x, y = self.road.to_world(np.array(s), np.array(d))
        z = float(self.road.ground(np.array(s), np.array(d)))
        yaw = float(self.road.heading(np.array(s))) + turn
        self.actors.append(Actor(model, Track.still(float(x), float(y), z, yaw), **state))

    def traffic_direction(self, d: float) -> int:
        """+1 where the nearest lane leads along s."""
        return 1 if np.sign(d) == self.road.side else -1


def choose_frontages(rng: np.random.Generator, road: Road) -> dict[tuple[int, int], str]:
    """What lies beyond the sidewalk of every block and side."""
    town = rng.random() < 0.7
    uses, shares = (
        ("buildings", "park", "parking", "site"),
        (0.68, 0.18, 0.08, 0.06) if town else (0.35, 0.5, 0.08, 0.07),
    )
    return {
        (number, side): str(rng.choice(uses, p=shares))
        for number in range(len(road.blocks()))
        for side in (-1, 1)
    }


def build(site: Site, frontages: dict[tuple[int, int], str], crowd: float) -> None:
    """Everything that stands."""
    rng, road = site.rng, site.road
    trees = [plants.tree(rng) for _ in range(7)]
    houses = rng.uniform(5.0, 9.0), rng.uniform(9.0, 26.0)
    for number, block in enumerate(road.blocks()):
        for side in (-1, 1):
            use = frontages[number, side]
            _works(site, block, side)
            if use == "buildings":
                _row_of_buildings(site, block, side, houses)
            elif use == "park":
                _park(site, block, side, trees)
            elif use == "parking":
                _car_park(site, block, side, crowd)
            else:
                _building_site(site, block, side)
            _kerbside(site, block, side, trees)
            _parked(site, block, side, crowd)
            _on_sidewalk(site, block, side, crowd)
    _backdrop(site)
    _signals(site)


def _row_of_buildings(site: Site, block: tuple[float, float], side: int, houses: tuple[float, float]) -> None:
    rng, road = site.rng, site.road
    s, low = block[0] + float(rng.uniform(0.0, 1.5)), road.profile.walk[1]
    setback = float(rng.choice((0.2, rng.uniform(2.0, 6.0))))
    while s < block[1] - 5.0:
        width = min(float(rng.uniform(7.0, 22.0)), block[1] - s - 0.3)
        if width < 5.0:
            break
        depth, height = float(rng.uniform(8.0, 15.0)), float(rng.uniform(*houses))
        if rng.random() < 0.9:
            d = side * (low + setback + float(rng.uniform(0.0, 0.8)))
            pose = site.frame(s + width / 2, d) @ shift(-width / 2, 0.0, 0.0)
            site.put(buildings.building(rng, width, depth, height), MANMADE, pose)
        if setback > 1.0:
            _front_garden(site, s, width, side, low + setback)
        s += width + float(rng.choice((0.0, rng.uniform(0.5, 4.0)), p=(0.6, 0.4)))


def _front_garden(site: Site, s: float, width: float, side: int, edge: float) -> None:
    rng, low = site.rng, site.road.profile.walk[1]
    choice = rng.random()
    frame = site.frame(s, side * (low + 0.3))
    if choice < 0.35:
        site.put(plants.hedge(rng, width * 0.4), PLANTS, frame)
    elif choice < 0.6:
        site.put(buildings.fence(rng, width * 0.42), MANMADE, frame)
    for _ in range(int(rng.integers(0, 4))):
        at, d = (
            s + float(rng.uniform(0.6, max(width - 0.6, 0.7))),
            side * float(rng.uniform(low + 0.7, edge - 0.6)),
        )
        site.put(plants.bush(rng), PLANTS, site.frame(at, d))


def _park(site: Site, block: tuple[float, float], side: int, trees: list[list[Part]]) -> None:
    rng, low = site.rng, site.road.profile.walk[1]
    area = (block[1] - block[0]) * 30.0
    for _ in range(int(area / 70.0)):
        s, d = (
            float(rng.uniform(block[0] + 1, block[1] - 1)),
            side * (low + 1.5 + float(rng.uniform(0.0, 1.0)) ** 1.4 * 38.0),
        )
        if not site.claim(s, d, 1.2, 1.2):
            continue
        if rng.random() < 0.62:
            _tree(site, trees, s, d)
        else:
            site.put(plants.bush(rng), PLANTS, site.frame(s, d))
    if rng.random() < 0.5:
        length = block[1] - block[0] - 2.0
        parts, label = (
            (plants.hedge(rng, length), PLANTS)
            if rng.random() < 0.4
            else (buildings.fence(rng, length), MANMADE)
        )
        if label == PLANTS or length < 80.0:
            pieces = max(int(length / 12.0), 1)
            for n in range(pieces):
                part = (
                    plants.hedge(rng, length / pieces)
                    if label == PLANTS
                    else buildings.fence(rng, length / pieces)
                )
                site.put(part, label, site.frame(block[0] + 1.0 + n * length / pieces, side * (low + 0.6)))
        del parts


def _tree(site: Site, trees: list[list[Part]], s: float, d: float) -> None:
    rng = site.rng
    parts = trees[int(rng.integers(len(trees)))]
    pose = site.frame(s, d)
    angle, scale = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.75, 1.2))
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    pose[:3, :3] = pose[:3, :3] @ turn * scale
    site.put(parts, PLANTS, pose)


def _car_park(site: Site, block: tuple[float, float], side: int, crowd: float) -> None:
    rng, low = site.rng, site.road.profile.walk[1]
    for row, turn in ((3.5, np.pi / 2), (15.0, -np.pi / 2)):
        for s in np.arange(block[0] + 2.5, block[1] - 2.0, 2.7):
            if rng.random() < 0.6 * min(crowd, 1.5):
                jitter = float(rng.normal(0.0, 0.03))
                flip = np.pi * float(rng.integers(2))
                site.stand(vehicles.car(rng), float(s), side * (low + row), turn + flip + jitter, parked=True)
    _backdrop_row(site, block, side, low + 24.0)


def _building_site(site: Site, block: tuple[float, float], side: int) -> None:
    rng, low = site.rng, site.road.profile.walk[1]
    for s in np.arange(block[0] + 1.0, block[1] - 3.0, 2.6):
        if rng.random() < 0.85:
            site.stand(
                objects.barrier(rng, "fence"),
                float(s) + 1.3,
                side * (low + 0.7),
                np.pi / 2 + float(rng.normal(0, 0.04)),
            )
    for _ in range(int(rng.integers(2, 5))):
        s, d = (
            float(rng.uniform(block[0] + 5, max(block[1] - 5, block[0] + 5.1))),
            side * (low + float(rng.uniform(5.0, 20.0))),
        )
        if site.claim(s, d, 4.5, 3.5):
            site.stand(
                machines.construction_vehicle(rng, 9.0), s, d, float(rng.uniform(0, 2 * np.pi)), parked=True
            )
    for _ in range(int(rng.integers(2, 6))):
        s, d = float(rng.uniform(block[0] + 3, block[1] - 3)), side * (low + float(rng.uniform(3.5, 18.0)))
        if site.claim(s, d, 2.0, 2.0):
            site.put(buildings.rubble(rng), MANMADE, site.frame(s, d))
    for _ in range(int(rng.integers(1, 4))):
        s, d = float(rng.uniform(block[0] + 3, block[1] - 3)), side * (low + float(rng.uniform(2.0, 14.0)))
        if site.claim(s, d, 0.5, 0.5):
            worker = people.pedestrian(rng, "human.pedestrian.construction_worker", walks=False)
            site.stand(worker, s, d, float(rng.uniform(0, 2 * np.pi)))
    _backdrop_row(site, block, side, low + 26.0)


def _kerbside(site: Site, block: tuple[float, float], side: int, trees: list[list[Part]]) -> None:
    """Lamps and trees in a row, and what stands between them."""
    rng, profile = site.rng, site.road.profile
    line = profile.half + (profile.verge / 2 if profile.verge > 0 else 0.45)
    spacing, first = float(rng.uniform(22.0, 32.0)), float(rng.uniform(2.0, 14.0))
    for s in np.arange(block[0] + first, block[1] - 1.0, spacing):
        if site.claim(float(s), side * line, 0.3, 0.3):
            pose = site.frame(float(s), side * line)
            parts = fixtures.lamp_post(rng)
            site.put(parts, MANMADE, pose)
            bulb = parts[-1].placed().mean(axis=0)
            site.lamps.append(pose[:3, :3] @ bulb + pose[:3, 3])
    if rng.random() < (0.85 if profile.verge > 0 else 0.35):
        for s in np.arange(block[0] + first + 4.0, block[1] - 2.0, float(rng.uniform(7.0, 14.0))):
            if rng.random() < 0.8 and site.claim(float(s), side * line, 0.5, 0.4):
                _tree(site, trees, float(s), side * line)
    _posts(site, block, side, line)


def _posts(site: Site, block: tuple[float, float], side: int, line: float) -> None:
    """Signs, boxes and bollards at the kerb."""
    rng, profile = site.rng, site.road.profile
    along = site.traffic_direction(side * 1.0)
    makers = (fixtures.sign, fixtures.sign, fixtures.bollard, fixtures.hydrant)
    for _ in range(int(rng.integers(2, 7))):
        s = float(rng.uniform(block[0], block[1]))
        if site.claim(s, side * line, 0.3, 0.3):
            site.put(makers[int(rng.integers(4))](rng), MANMADE, site.frame(s, side * line, along))
    if rng.random() < 0.2:
        for s in np.arange(block[0] + 1.0, block[1] - 1.0, 1.8):
            if site.claim(float(s), side * (profile.half + 0.25), 0.15, 0.15):
                site.put(fixtures.bollard(rng), MANMADE, site.frame(float(s), side * (profile.half + 0.25)))


def _parked(site: Site, block: tuple[float, float], side: int, crowd: float) -> None:
    rng, profile = site.rng, site.road.profile
    if profile.parking == 0:
        return
    middle = side * (profile.inner + profile.bicycle + profile.parking / 2)
    heading = 0.0 if site.traffic_direction(middle) > 0 else np.pi
    full, s = float(rng.uniform(0.35, 0.9)) * min(crowd, 1.4), block[0] + 7.0
    while s < block[1] - 9.0:
        if rng.random() > full:
            s += float(rng.uniform(3.0, 8.0))
            continue
        model = _parked_vehicle(rng, profile.parking)
        half = float(model.size[0]) / 2
        at, d = s + half, middle + float(rng.normal(0.0, 0.08))
        if at + half < block[1] - 7.0 and site.claim(at, d, half, float(model.size[1]) / 2):
            turn = heading + float(rng.normal(0.0, 0.025)) + (np.pi if rng.random() < 0.08 else 0.0)
            site.stand(model, at, d, turn, parked=True)
        s = at + half + float(rng.uniform(0.6, 1.8))


def _parked_vehicle(rng: np.random.Generator, room: float) -> Model:
    choice = rng.random()
    if choice < 0.82:
        return vehicles.car(rng)
    if choice < 0.9:
        return vehicles.truck(rng)
    if choice < 0.95:
        return vehicles.trailer(rng, small=rng.random() < 0.4)
    return people.motorcycle(rng, rider=False)


def _on_sidewalk(site: Site, block: tuple[float, float], side: int, crowd: float) -> None:
    """Benches, stops, bins, racks with bicycles, debris, motorcycles: along the outer or inner edge."""
    rng, (low, high) = site.rng, site.road.profile.walk
    inner, outer = side * (low + 0.6), side * (high - 0.6)
    for _ in range(max(int((block[1] - block[0]) / 14.0), 1)):
        s = float(rng.uniform(block[0] + 1.0, block[1] - 1.0))
        choice = rng.random()
        if choice < 0.14 and site.claim(s, outer, 1.1, 0.4):
            site.put(fixtures.bench(rng), MANMADE, site.frame(s, outer))
        elif choice < 0.22 and site.claim(s, outer, 2.6, 1.0):
            site.put(fixtures.shelter(rng), MANMADE, site.frame(s, outer))
        elif choice < 0.28 and site.claim(s, outer, 0.8, 0.8):
            site.put(fixtures.kiosk(rng), MANMADE, site.frame(s, outer))
        elif choice < 0.48 and site.claim(s, outer, 0.4, 0.4):
            site.stand(objects.bin_(rng), s, outer, float(rng.uniform(0, 2 * np.pi)))
        elif choice < 0.56 and site.claim(s, outer, 0.5, 0.5):
            site.stand(objects.debris(rng), s, outer, float(rng.uniform(0, 2 * np.pi)))
        elif choice < 0.72 and site.claim(s, inner, 1.1, 0.4):
            turn = float(rng.choice((0.0, np.pi)) + rng.normal(0.0, 0.1))
            maker = people.motorcycle if rng.random() < 0.5 else people.bicycle
            site.stand(maker(rng, rider=False), s, inner, turn)
        elif choice < 0.82:
            _rack(site, s, outer)
        elif choice < 0.82 + 0.1 * crowd and site.claim(s, outer, 0.4, 0.4):
            _standing_group(site, s, (inner + outer) / 2)


def _rack(site: Site, s: float, d: float) -> None:
    rng = site.rng
    n_bows = int(rng.integers(2, 5))
    if not site.claim(s, d, 0.4 * n_bows, 0.9):
        return
    site.stand(objects.bicycle_rack(rng, n_bows), s, d, np.pi / 2)
    for index in range(n_bows):
        if rng.random() < 0.6:
            at = s + (index - (n_bows - 1) / 2) * 0.8 + 0.2
            site.stand(people.bicycle(rng, rider=False), at, d, np.pi / 2 + float(rng.normal(0.0, 0.06)))


def _standing_group(site: Site, s: float, d: float) -> None:
    rng, facing = site.rng, float(site.rng.uniform(0, 2 * np.pi))
    for index in range(int(rng.integers(1, 4))):
        angle = facing + 2.1 * index
        x, y = 0.55 * np.cos(angle), 0.55 * np.sin(angle)
        site.stand(people.pedestrian(rng, walks=False), s + float(x), d + float(y), angle + np.pi)


def _works(site: Site, block: tuple[float, float], side: int) -> None:
    """Road works at the kerb: barriers and cones around a hole, machines and workers."""
    rng, profile = site.rng, site.road.profile
    room = block[1] - block[0] - 20.0
    if rng.random() > 0.5 or room < 12.0:
        return
    length = float(rng.uniform(9.0, min(24.0, room)))
    start = block[0] + 9.0 + float(rng.uniform(0.0, room - length))
    inner, outer = profile.inner + 0.5, profile.half + 0.2
    if outer - inner < 1.6:
        outer = profile.walk[1] - 0.5
    middle, half = side * (inner + outer) / 2, (outer - inner) / 2
    if not site.claim(start + length / 2, middle, length / 2 + 3.0, half):
        return
    kind = str(rng.choice(("concrete", "plastic", "fence", "cones")))
    for s in np.arange(start, start + length, 2.3):
        if kind == "cones":
            site.stand(objects.cone(rng), float(s), side * inner, float(rng.uniform(0, 6.0)))
        else:
            site.stand(
                objects.barrier(rng, kind), float(s), side * inner, np.pi / 2 + float(rng.normal(0.0, 0.05))
            )
    for end in (start - 1.2, start + length + 0.6):
        for share in np.linspace(0.0, 1.0, int(rng.integers(2, 5))):
            slip = 2.5 * float(share) * (-1.0 if end < start else 1.0)
            site.stand(
                objects.cone(rng),
                end + slip,
                side * (inner + 0.1 + float(share) * (outer - inner - 0.2)),
                0.0,
            )
    if rng.random() < 0.8 and half > 1.05:
        site.stand(
            machines.construction_vehicle(rng, 2 * half),
            start + length / 2,
            middle,
            float(rng.choice((0.0, np.pi))),
            parked=True,
        )
    for _ in range(int(rng.integers(1, 4))):
        s, d = start + float(rng.uniform(0.5, 2.5)), side * float(rng.uniform(inner + 0.7, outer - 0.3))
        worker = people.pedestrian(rng, "human.pedestrian.construction_worker", walks=False)
        site.stand(worker, s, d, float(rng.uniform(0, 2 * np.pi)))


def _backdrop_row(site: Site, block: tuple[float, float], side: int, start: float) -> None:
    rng, s = site.rng, block[0]
    while s < block[1]:
        width = float(rng.uniform(10.0, 24.0))
        d = side * (start + float(rng.uniform(0.0, 6.0)))
        pose = site.frame(s + width / 2, d) @ shift(-width / 2, 0.0, 0.0)
        site.put(buildings.block(rng, width, 10.0, float(rng.uniform(6.0, 26.0))), MANMADE, pose)
        s += width + float(rng.uniform(0.0, 6.0))


def _backdrop(site: Site) -> None:
    """Buildings far to the sides and at both ends of the street."""
    rng, road = site.rng, site.road
    for side in (-1, 1):
        for low, high in road.blocks():
            if rng.random() < 0.75:
                _backdrop_row(site, (low, high), side, 50.0)
    for s, far in ((-25.0, -1.0), (road.length + 25.0, 1.0)):
        for d in np.arange(-80.0, 80.0, 16.0):
            pose = site.frame(s + far * float(rng.uniform(0.0, 15.0)), float(d))
            site.put(buildings.block(rng, 15.0, 15.0, float(rng.uniform(6.0, 30.0))), MANMADE, pose)


def _signals(site: Site) -> None:
    """Traffic lights at the crossings, on both sides."""
    rng, profile = site.rng, site.road.profile
    for crossing in site.road.crossings:
        if rng.random() < 0.25 and crossing.green_at <= 0:
            continue
        for direction in (1, -1):
            s = crossing.s - direction * (crossing.half + 4.6)
            d = np.sign(site.road.lanes(direction)[0]) * (profile.half + 0.4)
            site.taken.append((s - 0.3, s + 0.3, d - 0.3, d + 0.3))
            light = fixtures.traffic_light(rng, green=crossing.green_at <= 0)
            site.put(light, MANMADE, site.frame(s, float(d), direction))
