"""Who moves: the vehicle that measures, vehicles in lanes, cyclists, pedestrians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ponderv2.synthetic.streets import people, vehicles
from ponderv2.synthetic.streets.actors import Actor
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.motion import (
    BEFORE,
    STEP,
    Follower,
    Stop,
    Track,
    follow,
    lane_track,
    straight_track,
    with_tilt,
)
from ponderv2.synthetic.streets.road import Crossing, Road
from ponderv2.synthetic.streets.scenery import Site

EGO_LENGTH = 4.1
"""Of the vehicle that measures, metres."""
EGO_START = 95.0
"""Where it is about when the first image is taken, metres along the street."""
REAR_AXLE = 1.3
"""The frame of the vehicle that measures lies that far behind its middle, metres."""
_CLEAR = 3.5
"""Between the end of green for one road and its start for the other, seconds."""


@dataclass(frozen=True)
class LaneVehicle:
    """A vehicle before it is driven."""

    model: Model
    follower: Follower
    towed: Model | None = None
    """A trailer behind it."""

    @property
    def length(self) -> float:
        """With its trailer."""
        return float(self.model.size[0]) + (0.0 if self.towed is None else float(self.towed.size[0]) + 0.6)


def drive(site: Site, seconds: float, crowd: float) -> Track:
    """Fill the street with traffic; returns the track of the vehicle that measures, at its rear axle."""
    rng, road = site.rng, site.road
    limit = float(rng.uniform(7.5, 13.5))
    ego_lane = int(rng.integers(road.profile.n_lanes))
    ego = None
    for direction in (1, -1):
        for number, lane in enumerate(road.lanes(direction)):
            measures = direction > 0 and number == ego_lane
            found = _lane(site, lane, direction, limit, seconds, (crowd, measures))
            ego = found if measures else ego
        _cyclists(site, direction, seconds, crowd)
    for crossing in road.crossings:
        _cross_traffic(site, crossing, seconds, crowd)
    _walkers(site, seconds, crowd)
    assert ego is not None
    return with_tilt(rng, ego)


def _lane(
    site: Site, lane: float, direction: int, limit: float, seconds: float, how: tuple[float, bool]
) -> Track | None:
    """One lane of the street."""
    rng, road, (crowd, measures) = site.rng, site.road, how
    start = EGO_START - BEFORE * limit * 0.8
    found: list[LaneVehicle] = []
    me = Follower(start, EGO_LENGTH, limit) if measures else None
    at = -BEFORE * limit + float(rng.uniform(-25.0, 5.0))
    end = road.length - 20.0 if direction > 0 else road.length + 10.0
    while at < end:
        one = _vehicle(rng, limit)
        at += one.length / 2
        clear = me is None or abs(at - me.at) > one.length / 2 + EGO_LENGTH / 2 + 7.0
        if clear and rng.random() < 0.75:
            one.follower.at = at
            found.append(one)
        at += one.length / 2 + float(rng.uniform(8.0, 60.0)) / max(crowd, 0.1)
    followers = [one.follower for one in found]
    follow([*followers, me] if me else followers, _stops(road, direction), seconds)
    for one in found:
        _add(site, one, lane, direction)
    if me is None:
        return None
    sway = np.array([rng.normal(0.0, 0.1), 0.1, rng.uniform(0, 6.0)])
    behind = [at - REAR_AXLE for at in me.history]
    return lane_track(road, behind, lane, direction, sway)


def _vehicle(rng: np.random.Generator, limit: float) -> LaneVehicle:
    choice, towed = rng.random(), None
    if choice < 0.62:
        model = vehicles.car(rng)
        if rng.random() < 0.05:
            towed = vehicles.trailer(rng, small=True)
    elif choice < 0.73:
        model = vehicles.truck(rng)
    elif choice < 0.84:
        model = vehicles.bus(rng)
    elif choice < 0.9:
        model, towed = vehicles.tractor(rng), vehicles.trailer(rng, small=False)
    else:
        model = people.motorcycle(rng, rider=True)
    one = LaneVehicle(model, Follower(0.0, 0.0, limit * float(rng.uniform(0.85, 1.12))), towed)
    one.follower.length = one.length
    return one


def _add(site: Site, one: LaneVehicle, lane: float, direction: int) -> None:
    rng = site.rng
    sway = np.array([rng.normal(0.0, 0.06), 0.06, rng.uniform(0, 6.0)])
    front = one.length / 2 - float(one.model.size[0]) / 2
    rider = one.model.category == "vehicle.motorcycle"
    track = lane_track(site.road, [at + front for at in one.follower.history], lane, direction, sway)
    if track is not None:
        site.actors.append(Actor(one.model, track, rider=rider))
    if one.towed is not None:
        back = one.length / 2 - float(one.towed.size[0]) / 2
        track = lane_track(site.road, [at - back for at in one.follower.history], lane, direction, sway)
        if track is not None:
            site.actors.append(Actor(one.towed, track))


def _stops(road: Road, direction: int) -> list[Stop]:
    """The lights of the street, along a lane."""
    found = []
    for crossing in road.crossings:
        line = crossing.s - direction * (crossing.half + 5.2)
        if crossing.green_at > 0:
            found.append(Stop(line if direction > 0 else road.length - line, -BEFORE, crossing.green_at))
    return found


def _cyclists(site: Site, direction: int, seconds: float, crowd: float) -> None:
    """In the lane for bicycles, or at the edge of the sidewalk."""
    rng, road = site.rng, site.road
    sign = np.sign(road.lanes(direction)[0])
    profile = road.profile
    lane = profile.inner + profile.bicycle / 2 if profile.bicycle > 0 else profile.walk[1] - 0.5
    riders: list[LaneVehicle] = []
    at = -60.0 + float(rng.uniform(0.0, 60.0))
    while at < road.length:
        model = people.bicycle(rng, rider=True)
        follower = Follower(at, float(model.size[0]) + 0.5, float(rng.uniform(2.8, 6.5)))
        if rng.random() < (0.75 if profile.bicycle > 0 else 0.3):
            riders.append(LaneVehicle(model, follower))
        at += float(rng.uniform(15.0, 90.0)) / max(crowd, 0.1)
    follow([one.follower for one in riders], _stops(road, direction), seconds)
    for one in riders:
        sway = np.array([rng.normal(0.0, 0.1), 0.1, rng.uniform(0, 6.0)])
        track = lane_track(road, one.follower.history, float(sign * lane), direction, sway)
        if track is not None:
            site.actors.append(Actor(one.model, track, rider=True))


def _cross_traffic(site: Site, crossing: Crossing, seconds: float, crowd: float) -> None:
    """Vehicles of a crossing road: they drive while the street has red, and wait otherwise."""
    rng, road = site.rng, site.road
    if len(crossing.sides) < 2:
        return
    red = Stop(
        90.0 - road.profile.half - 2.5, crossing.green_at - _CLEAR if crossing.green_at > 0 else -99.0, 999.0
    )
    for direction in (1, -1):
        offset = -road.side * direction * crossing.half / 2
        found, at = [], -40.0 + float(rng.uniform(0.0, 30.0))
        while at < red.at - 3.0:
            one = _vehicle(rng, 8.0)
            at += one.length / 2
            if rng.random() < 0.6 and one.towed is None:
                one.follower.at = at
                found.append(one)
            at += one.length / 2 + float(rng.uniform(5.0, 40.0)) / max(crowd, 0.1)
        follow([one.follower for one in found], [red], seconds)
        for one in found:
            way = np.array(one.follower.history)
            time = -BEFORE + STEP * np.arange(len(way))
            inside = (way > 4.0) & (way < 176.0) & (time > -1.0)
            if inside.sum() < 2:
                continue
            chosen = slice(*(np.flatnonzero(inside)[[0, -1]] + (0, 1)))
            d = direction * (way[chosen] - 90.0)
            yaw = road.heading(np.array(crossing.s)) + direction * np.pi / 2
            s = np.full_like(d, crossing.s + offset)
            track = straight_track(road, time[chosen], s, d)
            pose = track.pose.copy()
            pose[:, 3] = yaw
            track = Track(track.time, pose, track.way)
            site.actors.append(Actor(one.model, track, rider=one.model.category == "vehicle.motorcycle"))


def _walkers(site: Site, seconds: float, crowd: float) -> None:
    """Along the sidewalks of every block, and across the street where its traffic waits."""
    rng, road = site.rng, site.road
    time = np.arange(-1.0, seconds + 1.5 * STEP, STEP)
    low, high = road.profile.walk
    for block in road.blocks():
        for side in (-1, 1):
            expected = 0.05 * (block[1] - block[0]) * crowd
            for _ in range(int(rng.poisson(expected))):
                direction = float(rng.choice((-1.0, 1.0)))
                room = max((high - low) / 2 - 1.2, 0.15)
                d = (low + high) / 2 + direction * float(rng.uniform(0.1, room + 0.1))
                _walker(site, block, side * d, direction, time)
    for crossing in road.crossings:
        if crossing.green_at < 6.0:
            continue
        for sign in (-1.0, 1.0):
            for _ in range(int(rng.poisson(1.6 * crowd))):
                _crosses(
                    site,
                    crossing.s + sign * (crossing.half + float(rng.uniform(1.2, 3.2))),
                    time,
                    crossing.green_at,
                )


def _walker(site: Site, block: tuple[float, float], d: float, direction: float, time: np.ndarray) -> None:
    """One person or a group side by side, who stop at the end of the block."""
    rng = site.rng
    speed = direction * float(rng.uniform(0.8, 1.7))
    start = float(rng.uniform(block[0] + 0.5, block[1] - 0.5))
    s = np.clip(start + speed * time, block[0] + rng.uniform(0.3, 5.0), block[1] - rng.uniform(0.3, 5.0))
    sway = 0.12 * np.sin(0.7 * time + rng.uniform(0, 6.0)) * (np.abs(np.gradient(s)) > 1e-6)
    for index in range(1 if rng.random() < 0.75 else 2):
        model = people.pedestrian(rng)
        beside = d + 0.85 * index * (-1.0 if d > 0 else 1.0)
        track = straight_track(site.road, time, s + 0.1 * index, beside + sway)
        site.actors.append(Actor(model, track))
        if index == 0 and model.category == "human.pedestrian.stroller":
            behind = straight_track(site.road, time, s - np.sign(speed) * 1.0, d + sway)
            site.actors.append(Actor(people.pedestrian(rng, "human.pedestrian.adult"), behind))


def _crosses(site: Site, s: float, time: np.ndarray, green_at: float) -> None:
    """Over the street before its traffic starts, and on along the sidewalk's middle."""
    rng, road = site.rng, site.road
    edge = road.profile.half + 0.8
    need = 2 * edge / 1.5
    sign, start = float(rng.choice((-1.0, 1.0))), float(rng.uniform(-need, green_at - need - 0.5))
    d = np.clip(sign * (-edge + 1.5 * (time - start)), -edge, edge)
    track = straight_track(road, time, np.full_like(d, s), d)
    site.actors.append(Actor(people.pedestrian(rng), track))
