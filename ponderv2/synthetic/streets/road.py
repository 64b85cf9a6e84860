"""The road: a curved centre line, a cross-section, crossings, gentle hills; and the ground that it makes.

Street coordinates: s metres along the centre line, d metres to its left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

KERB = 0.14
"""Height of sidewalks above the road, metres."""
BEYOND = 95.0
"""The ground reaches that far to both sides of the centre line, metres."""


@dataclass(frozen=True)
class Profile:
    """The cross-section, the same on both sides. Metres."""

    n_lanes: int
    """In each direction."""
    lane: float
    median: float
    """Width of the raised strip in the middle, 0 = a painted line."""
    bicycle: float
    """Width of the lane for bicycles, 0 = none."""
    parking: float
    verge: float
    """Grass and trees between road and sidewalk."""
    sidewalk: float

    @property
    def inner(self) -> float:
        """From the centre to the outer edge of the lanes."""
        return self.median / 2 + self.n_lanes * self.lane

    @property
    def half(self) -> float:
        """From the centre to the kerb."""
        return self.inner + self.bicycle + self.parking

    @property
    def walk(self) -> tuple[float, float]:
        """From the centre to the inner and the outer edge of the sidewalk."""
        return self.half + self.verge, self.half + self.verge + self.sidewalk


@dataclass(frozen=True)
class Crossing:
    """A road that crosses at a right angle, or ends here."""

    s: float
    half: float
    """Half of its width."""
    sidewalk: float
    sides: tuple[int, ...]
    """+1: it continues to the left, -1: to the right."""
    green_at: float
    """From then on the traffic along the street is free, seconds; 0 or less: always."""


@dataclass(frozen=True)
class Road:
    """Everything that follows from the plan of the street."""

    length: float
    profile: Profile
    crossings: tuple[Crossing, ...]
    side: int
    """Of the lanes that lead along +s: -1 = traffic on the right, +1 = on the left."""
    line: Float[np.ndarray, "step 3"]
    """x, y and heading of the centre line at every metre from s = -120."""
    hills: Float[np.ndarray, "wave 4"]
    """Amplitude, wave numbers in x and y, phase."""

    start = -120.0

    def to_world(
        self, s: Float[np.ndarray, "*shape"], d: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape 2"]:
        """x and y of street coordinates."""
        heading = self.heading(s)
        x, y = (np.interp(s, self._stations, self.line[:, axis]) for axis in range(2))
        return np.stack([x - d * np.sin(heading), y + d * np.cos(heading)], axis=-1)

    def heading(self, s: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Direction of the centre line, radians from +x."""
        return np.asarray(np.interp(s, self._stations, self.line[:, 2]))

    @cached_property
    def _stations(self) -> Float[np.ndarray, " step"]:
        return self.start + np.arange(len(self.line), dtype=float)

    def hill(self, xy: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape"]:
        """Height of the road's surface, metres."""
        phase = xy @ self.hills[:, 1:3].T + self.hills[:, 3]
        return np.asarray((np.sin(phase) * self.hills[:, 0]).sum(axis=-1))

    def ground(
        self, s: Float[np.ndarray, "*shape"], d: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Height of the ground, kerbs included."""
        return np.asarray(self.hill(self.to_world(s, d)) + self.level(s, d))

    def level(
        self, s: Float[np.ndarray, "*shape"], d: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Height above the road's surface."""
        return np.asarray(np.where(self.surface(s, d) == ROAD, 0.0, KERB))

    def surface(
        self, s: Float[np.ndarray, "*shape"], d: Float[np.ndarray, "*shape"]
    ) -> Int[np.ndarray, "*shape"]:
        """What the ground is: ROAD, WALK, GRASS, MEDIAN or FRONTAGE."""
        across, profile = np.abs(d), self.profile
        kind = np.full(np.shape(s), FRONTAGE)
        kind[across < profile.walk[1]] = WALK
        if profile.verge > 0:
            kind[(across >= profile.half) & (across < profile.walk[0])] = GRASS
        gaps = []
        for crossing in self.crossings:
            gap = np.abs(s - crossing.s)
            gaps.append(gap)
            leads = np.isin(np.sign(d), crossing.sides)
            kind[(gap < crossing.half + crossing.sidewalk) & (across < profile.walk[1])] = WALK
            kind[(gap < crossing.half + crossing.sidewalk) & leads] = WALK
        kind[across < profile.half] = ROAD
        if profile.median > 0:
            kind[across < profile.median / 2] = MEDIAN
        for crossing, gap in zip(self.crossings, gaps, strict=True):
            leads = np.isin(np.sign(d), crossing.sides)
            kind[(gap < crossing.half) & (leads | (across < profile.half))] = ROAD
            kind[(gap < crossing.half + 5.5) & (across < profile.half)] = ROAD
        return kind

    def blocks(self) -> list[tuple[float, float]]:
        """Stretches between crossings."""
        edges = [0.0]
        for crossing in self.crossings:
            reach = crossing.half + crossing.sidewalk
            edges += [crossing.s - reach, crossing.s + reach]
        edges.append(self.length)
        return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high - low > 6.0]

    def lanes(self, direction: int) -> list[float]:
        """d of the middle of each lane of +1 (along s) or -1, the innermost first."""
        sign = self.side * direction
        return [
            sign * (self.profile.median / 2 + (n + 0.5) * self.profile.lane)
            for n in range(self.profile.n_lanes)
        ]


ROAD, WALK, GRASS, MEDIAN, FRONTAGE = range(5)


def make_road(rng: np.random.Generator, length: float, seconds: float) -> Road:
    """Draw a street that is long enough to be driven along."""
    profile = Profile(
        n_lanes=int(rng.choice((1, 2), p=(0.55, 0.45))),
        lane=float(rng.uniform(3.0, 3.6)),
        median=float(rng.choice((0.0, rng.uniform(1.2, 2.6)), p=(0.75, 0.25))),
        bicycle=float(rng.choice((0.0, rng.uniform(1.4, 1.9)))),
        parking=float(rng.choice((0.0, rng.uniform(2.2, 2.5)), p=(0.2, 0.8))),
        verge=float(rng.choice((0.0, rng.uniform(1.0, 2.2)), p=(0.5, 0.5))),
        sidewalk=float(rng.uniform(2.0, 4.2)),
    )
    return Road(
        length,
        profile,
        _crossings(rng, length, seconds),
        int(rng.choice((-1, 1), p=(0.7, 0.3))),
        _line(rng, length),
        _hills(rng),
    )


def _crossings(rng: np.random.Generator, length: float, seconds: float) -> tuple[Crossing, ...]:
    found, s = [], float(rng.uniform(35.0, 110.0))
    while s < length - 30.0:
        sides = ((-1, 1), (1,), (-1,))[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
        stops = s > 105.0  # else the vehicle that measures would wait there before its first image
        waits = float(rng.choice((0.0, rng.uniform(0.25, 0.7)), p=(0.6, 0.4))) * stops
        found.append(
            Crossing(s, float(rng.uniform(3.2, 6.5)), float(rng.uniform(1.8, 3.0)), sides, waits * seconds)
        )
        s += float(rng.uniform(75.0, 150.0))
    return tuple(found)


def _line(rng: np.random.Generator, length: float) -> Float[np.ndarray, "step 3"]:
    stations = np.arange(-120.0, length + 121.0)
    curvature = np.zeros_like(stations)
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(1, 4))):
            middle, reach = rng.uniform(0.0, length), rng.uniform(25.0, 70.0)
            curvature += rng.uniform(-1.0, 1.0) / 140.0 * np.exp(-0.5 * ((stations - middle) / reach) ** 2)
        curvature = np.clip(curvature, -1.0 / 130.0, 1.0 / 130.0)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(curvature)
    xy = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    return np.column_stack([xy - xy.min(axis=0) + BEYOND + 30.0, heading])


def _hills(rng: np.random.Generator) -> Float[np.ndarray, "wave 4"]:
    waves = []
    for _ in range(3):
        number, direction = 2 * np.pi / rng.uniform(60.0, 160.0), rng.uniform(0, 2 * np.pi)
        waves.append(
            (
                rng.uniform(0.05, 0.3),
                number * np.cos(direction),
                number * np.sin(direction),
                rng.uniform(0, 2 * np.pi),
            )
        )
    return np.array(waves)
