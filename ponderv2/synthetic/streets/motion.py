"""Where things are at every time: tracks, and vehicles that follow each other and stop at lights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.streets.road import Road

STEP = 0.1
"""Of the simulation and of tracks, seconds."""
BEFORE = 12.0
"""Traffic moves that long before the first image, seconds."""


@dataclass(frozen=True)
class Track:
    """The path of an object's lower middle point; a single row for what stands still."""

    time: Float[np.ndarray, " step"]
    """Seconds."""
    pose: Float[np.ndarray, "step 4"]
    """x, y, z in metres, yaw in radians without jumps."""
    way: Float[np.ndarray, " step"]
    """Distance covered, metres."""
    tilt: Float[np.ndarray, "step 2"] | None = None
    """Pitch and roll, radians: of the vehicle that measures."""

    @staticmethod
    def still(x: float, y: float, z: float, yaw: float) -> Track:
        """Something that never moves."""
        return Track(np.zeros(1), np.array([[x, y, z, yaw]], dtype=float), np.zeros(1))

    @property
    def moves(self) -> bool:
        """Whether there is more than one position."""
        return len(self.time) > 1

    def at(self, time: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 4"]:
        """x, y, z, yaw, linear between the rows."""
        if not self.moves:
            return np.broadcast_to(self.pose[0], (*np.shape(time), 4))
        return np.stack([np.interp(time, self.time, column) for column in self.pose.T], axis=-1)

    def speed(self, time: float) -> float:
        """Metres per second."""
        if not self.moves:
            return 0.0
        near = np.interp([time - STEP / 2, time + STEP / 2], self.time, self.way)
        return float((near[1] - near[0]) / STEP)

    def covers(self, time: float) -> bool:
        """Whether the object is there at that time."""
        return not self.moves or bool(self.time[0] <= time <= self.time[-1])

    def matrices(self, time: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 4 4"]:
        """From the frame of the object to the world."""
        x = self.at(time)
        turn = _about_z(x[..., 3])
        if self.tilt is not None:
            pitch, roll = (np.asarray(np.interp(time, self.time, column)) for column in self.tilt.T)
            turn = turn @ _about_y(pitch) @ _about_x(roll)
        found = np.zeros((*np.shape(time), 4, 4))
        found[..., :3, :3], found[..., :3, 3], found[..., 3, 3] = turn, x[..., :3], 1.0
        return found


def _about_z(angle: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3 3"]:
    return _rotation(angle, 0, 1)


def _about_y(angle: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3 3"]:
    return _rotation(angle, 2, 0)


def _about_x(angle: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3 3"]:
    return _rotation(angle, 1, 2)


def _rotation(angle: Float[np.ndarray, "*shape"], one: int, other: int) -> Float[np.ndarray, "*shape 3 3"]:
    found = np.zeros((*np.shape(angle), 3, 3))
    found[..., range(3), range(3)] = 1.0
    found[..., one, one] = found[..., other, other] = np.cos(angle)
    found[..., other, one], found[..., one, other] = np.sin(angle), -np.sin(angle)
    return found


@dataclass(frozen=True)
class Stop:
    """A line that nobody drives over while a light is red."""

    at: float
    """Along the lane, metres."""
    red_from: float
    red_until: float


@dataclass
class Follower:
    """A vehicle in a lane, at the start of the simulation."""

    at: float
    """Of its middle, along the lane, metres."""
    length: float
    speed: float
    """What it would drive on an empty road, metres per second."""
    history: list[float] = field(default_factory=list)


def follow(vehicles: list[Follower], stops: list[Stop], seconds: float) -> None:
    """Drive a lane by the intelligent driver model (Treiber et al. 2000) and fill the histories.

    From BEFORE seconds before the start to `seconds` after it.
    """
    vehicles.sort(key=lambda one: -one.at)
    at = np.array([one.at for one in vehicles])
    length = np.array([one.length for one in vehicles])
    wanted = np.array([one.speed for one in vehicles])
    speed = wanted * 0.8
    for time in np.arange(-BEFORE, seconds + 1.5 * STEP, STEP):
        for index, one in enumerate(vehicles):
            one.history.append(float(at[index]))
        gap = np.full(len(at), 1e3)
        lead = np.zeros(len(at))
        gap[1:] = at[:-1] - at[1:] - (length[:-1] + length[1:]) / 2
        lead[1:] = speed[:-1]
        for stop in stops:
            if stop.red_from <= time < stop.red_until:
                room = stop.at - at - length / 2
                holds = (room > 0) & (room < gap) & (speed**2 / 9.0 < room + 0.5)
                gap, lead = np.where(holds, room + 1.0, gap), np.where(holds, 0.0, lead)
        gap = np.maximum(gap, 0.1)
        safe = 2.0 + np.maximum(speed * 1.3 + speed * (speed - lead) / (2 * np.sqrt(1.6 * 2.5)), 0.0)
        change = 1.6 * (1.0 - (speed / wanted) ** 4 - (safe / gap) ** 2)
        speed = np.maximum(speed + np.clip(change, -7.0, 1.6) * STEP, 0.0)
        at = at + np.minimum(speed * STEP, np.maximum(gap - 0.3, 0.0))


def lane_track(
    road: Road, history: list[float], lane: float, direction: int, sway: Float[np.ndarray, "3"]
) -> Track | None:
    """The path of a vehicle along the street; None where it never comes near."""
    way = np.array(history)
    time = -BEFORE + STEP * np.arange(len(way))
    s = way if direction > 0 else road.length - way
    inside = (s > -5.0) & (s < road.length + 5.0) & (time > -1.0)
    if inside.sum() < 2:
        return None
    first, last = np.flatnonzero(inside)[[0, -1]]
    s, way, time = s[first : last + 1], way[first : last + 1], time[first : last + 1]
    d = lane + sway[0] + sway[1] * np.sin(way / 23.0 + sway[2])
    slope = direction * sway[1] / 23.0 * np.cos(way / 23.0 + sway[2])
    yaw = road.heading(s) + np.arctan(slope) + (np.pi if direction < 0 else 0.0)
    return Track(time, np.column_stack([road.to_world(s, d), road.ground(s, d), yaw]), way)


def straight_track(
    road: Road, time: Float[np.ndarray, " step"], s: Float[np.ndarray, " step"], d: Float[np.ndarray, " step"]
) -> Track:
    """A path given in street coordinates; the heading is the direction of motion, kept while standing."""
    xy = road.to_world(s, d)
    step = np.diff(xy, axis=0)
    length = np.linalg.norm(step, axis=1)
    yaw = np.arctan2(step[:, 1], step[:, 0])
    moving = length > 1e-6
    known = np.flatnonzero(moving)
    yaw = (
        np.unwrap(yaw[known])[np.clip(np.searchsorted(known, np.arange(len(yaw))), 0, len(known) - 1)]
        if len(known)
        else yaw
    )
    way = np.concatenate([[0.0], np.cumsum(length)])
    height = road.hill(xy) + road.level(s, d)
    return Track(time, np.column_stack([xy, height, np.append(yaw, yaw[-1])]), way)


def with_tilt(rng: np.random.Generator, track: Track) -> Track:
    """A vehicle that nods when it brakes and rocks a little."""
    speed = np.gradient(track.way, track.time)
    change = np.gradient(speed, track.time)
    kernel = np.ones(5) / 5
    nod = np.convolve(np.pad(change, 2, mode="edge"), kernel, mode="valid")
    phase = rng.uniform(0, 2 * np.pi, 4)
    rock = [np.sin(2 * np.pi * f * track.time + p) for f, p in zip((1.1, 1.7, 0.9, 1.4), phase, strict=True)]
    share = np.clip(speed / 8.0, 0.0, 1.0)
    pitch = -0.0035 * nod + 0.0016 * share * (rock[0] + rock[1])
    roll = 0.002 * share * (rock[2] + rock[3])
    return Track(track.time, track.pose, track.way, np.column_stack([pitch, roll]))
