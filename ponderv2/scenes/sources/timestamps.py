"""Timestamps of images and poses: their unit, what belongs together in time, and poses between two others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from statistics import median

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from ponderv2.scenes.sources.poses import clean_poses

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "100 ns": 10**7}
EPOCH = (9 * 10**8, 5 * 10**9)
"""Seconds since 1970 that a clock shows: 1998 to 2128."""
TICKS = ((12 * 10**16, 2 * 10**17), (6 * 10**17, 7 * 10**17))
"""Windows counts 100 nanoseconds since 1601, and .NET since the year 1."""
WIDEST_STEP = 1000
"""Between numbers of frames that were thinned out evenly."""
LONGEST_STEP = 20
"""Seconds between two images of a recording, at most."""
SIMULTANEOUS = 0.01
"""Seconds. Before the first and after the last pose, and in a gap, a pose this near is taken as it is."""
EXACT = 1e-6
"""Seconds below which two times are one."""


def unit_of(values: Sequence[Decimal]) -> str | None:
    """`s`, `ms`, `us`, `ns` or `100 ns`, from size and spacing; None for what is no time: frame numbers.

    Times since 1970 have 10, 13, 16 or 19 digits. Smaller numbers are told apart by their spacing: images are
    a millisecond to some seconds apart. Whole numbers at multiples of one distance (0, 1, 2 or 0, 10, 30) are
    frame numbers.
    """
    if not values or min(values) < 0:
        return None
    ordered = sorted(set(values))
    steps = [two - one for one, two in pairwise(ordered)]
    spacing = median(steps) if steps else None
    if any(low <= ordered[0] and ordered[-1] < high for low, high in TICKS):
        return "100 ns"
    for unit in ("s", "ms", "us", "ns"):
        factor = PER_SECOND[unit]
        plausible = spacing is None or spacing <= LONGEST_STEP * factor
        if EPOCH[0] * factor <= ordered[0] and ordered[-1] < EPOCH[1] * factor and plausible:
            return unit
    if spacing is None:
        return None
    if any(one != int(one) for one in ordered):
        return "s" if spacing < 5 else "ms"
    even = spacing < WIDEST_STEP and math.gcd(*map(int, steps)) > spacing / 2
    if spacing < 5 or even:
        return None
    limits = (("ms", 2 * 10**3), ("us", 5 * 10**6), ("ns", 5 * 10**9))
    return next((unit for unit, limit in limits if spacing <= limit), None)


def is_certain(values: Sequence[Decimal]) -> bool:
    """Whether numbers with a unit can be nothing but times: other whole numbers may number chosen frames."""
    return values[0] >= EPOCH[0] or any(one != int(one) for one in values)


def in_seconds(values: Sequence[Decimal], unit: str, start: Decimal = Decimal(0)) -> Float[ndarray, " time"]:
    """Seconds after `start` (seconds), which keeps nanoseconds since 1970 apart from each other."""
    factor = PER_SECOND[unit]
    return np.array([float(one / factor - start) for one in values], np.float64)


def nearest_pairs(
    first: Float[ndarray, " one"], second: Float[ndarray, " two"], gap: float
) -> list[tuple[int, int]]:
    """Pairs of times at most `gap` seconds apart, the nearest first; each time is used once.

    The rule of the TUM benchmark's own tool. Returned in the order of `first`.
    """
    if len(first) == 0 or len(second) == 0:
        return []
    order = np.argsort(second, kind="stable")
    right = np.searchsorted(second[order], first)
    candidates = []
    for offset in (-2, -1, 0, 1):
        place = right + offset
        for index in np.flatnonzero((place >= 0) & (place < len(second))):
            other = int(order[place[index]])
            distance = abs(first[index] - second[other])
            if distance <= gap + EXACT:
                candidates.append((distance, int(index), other))
    taken: dict[int, int] = {}
    used: set[int] = set()
    for _, index, other in sorted(candidates):
        if index not in taken and other not in used:
            taken[index] = other
            used.add(other)
    return sorted(taken.items())


@dataclass(frozen=True)
class PosesInTime:
    """Poses at the times of images."""

    camera_to_world: Float[ndarray, "time 4 4"]
    """Not-a-number where there is none."""
    known: Bool[ndarray, " time"]
    interpolated: Bool[ndarray, " time"]
    neighbour: Bool[ndarray, " time"]
    """Has the pose of another time, at most `SIMULTANEOUS` seconds away."""
    distance: Float[ndarray, " time"]
    """Seconds to the nearest pose."""
    n_invalid: int
    """Poses that were left out beforehand: not finite, or no rotation."""


def poses_at(
    times: Float[ndarray, " time"],
    pose_times: Float[ndarray, " pose"],
    camera_to_world: Float[ndarray, "pose 4 4"],
    gap: float,
) -> PosesInTime:
    """Poses between two others that are at most `gap` seconds apart; `pose_times` may be in any order.

    Positions are interpolated linearly, rotations along the shortest turn (slerp). Invalid poses are left out
    beforehand. A time beyond the ends or in a longer gap has a pose only where one is `SIMULTANEOUS`.
    """
    clean = clean_poses(camera_to_world)
    n_valid = int(clean.valid.sum())
    n_invalid = len(clean.valid) - n_valid
    order = np.argsort(np.where(clean.valid, pose_times, np.inf), kind="stable")[:n_valid]
    when, poses = pose_times[order], clean.camera_to_world[order]
    result = np.full((len(times), 4, 4), np.nan)
    none = np.zeros(len(times), bool)
    if n_valid == 0:
        return PosesInTime(result, none, none, none, np.full(len(times), np.inf), n_invalid)
    after = np.searchsorted(when, times)
    one, two = np.clip(after - 1, 0, n_valid - 1), np.clip(after, 0, n_valid - 1)
    nearest = np.where(np.abs(times - when[one]) <= np.abs(times - when[two]), one, two)
    distance = np.abs(times - when[nearest])
    exact = distance <= EXACT
    inside = (when[one] <= times) & (times <= when[two]) & (when[two] - when[one] <= gap + EXACT)
    between = inside & ~exact
    neighbour = (distance <= SIMULTANEOUS) & ~exact & ~between
    taken = exact | neighbour
    result[taken] = poses[nearest[taken]]
    if between.any():
        span = when[two] - when[one]
        share = (times - when[one])[between] / span[between]
        result[between] = _between(poses[one[between]], poses[two[between]], share)
    return PosesInTime(result, taken | between, between, neighbour, distance, n_invalid)


def _between(
    first: Float[ndarray, "time 4 4"], second: Float[ndarray, "time 4 4"], share: Float[ndarray, " time"]
) -> Float[ndarray, "time 4 4"]:
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(np.swapaxes(first[:, :3, :3], 1, 2) @ second[:, :3, :3]).as_rotvec()
    poses = first.copy()
    poses[:, :3, :3] = first[:, :3, :3] @ Rotation.from_rotvec(share[:, None] * turn).as_matrix()
    poses[:, :3, 3] += share[:, None] * (second[:, :3, 3] - first[:, :3, 3])
    return poses
