"""Numbers in the names of frames: their order, and the keys by which two folders of images can be paired."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from statistics import median

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.geometry.poses import SAME_TIME

NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d{1,2}")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
KIND_WORDS = frozenset(
    {"color", "colour", "colors", "rgb", "rgbd", "image", "images", "img", "frame", "frames", "photo"}
    | {"depth", "depths", "aligned", "pose", "poses"}
)
"""Words for the kind of a file, not for the frame it belongs to."""
MOST_GROUPS = 24
"""Kinds of names in one folder that are compared with those of another."""

Key = tuple[Decimal | str, ...]
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "100 ns": 10**7}
EPOCH = (9 * 10**8, 5 * 10**9)
"""Plausible seconds since 1970: 1998 to 2128."""
TICKS = ((12 * 10**16, 2 * 10**17), (6 * 10**17, 7 * 10**17))
"""Windows counts 100 nanoseconds since 1601, and .NET since the year 1."""
WIDEST_STEP = 1000
"""Between numbers of frames that were thinned out evenly."""
LONGEST_STEP = 20
"""Seconds between two images of a recording, at most."""


def by_number(name: str) -> tuple[tuple[Decimal, str], ...]:
    """A key for `sorted`: numbers in names count as numbers, so that frame_2 comes before frame_10."""
    if _SCIENTIFIC.fullmatch(name):
        return ((Decimal(-1), ""), (Decimal(name), ""))
    words = re.split(r"(\d+(?:\.\d+)?)", name)
    return tuple((Decimal(one), "") if index % 2 else (Decimal(-1), one) for index, one in enumerate(words))


@lru_cache(maxsize=65536)
def numbers_of(name: str) -> tuple[Decimal, ...]:
    """The numbers of a name. `1305031102.1753` is one number, and so is `1.3050e+09`."""
    if _SCIENTIFIC.fullmatch(name):
        return (Decimal(name),)
    return tuple(Decimal(one) for one in NUMBER.findall(name))


def pattern_of(name: str) -> str:
    """The name with `#` in place of its numbers, in lower case."""
    return "#" if _SCIENTIFIC.fullmatch(name) else NUMBER.sub("#", name).lower()


def frame_key(name: str) -> Key:
    """Words and numbers of a name, without the words for colour, depth and pose."""
    words = (one.lower() for one in _WORD.findall(name))
    return tuple(
        Decimal(one) if one[0].isdigit() else one
        for one in words
        if one[0].isdigit() or one not in KIND_WORDS
    )


@dataclass(frozen=True)
class Column:
    """A key for some of the names: one number of theirs, or all numbers that vary."""

    items: tuple[int, ...]
    """Indices of the names that have it."""
    keys: tuple[Key, ...]
    """One per item; no two are equal."""
    pattern: str
    """What the names look like."""

    @property
    def is_number(self) -> bool:
        """Whether a key is one number."""
        return len(self.keys[0]) == 1

    @property
    def values(self) -> tuple[Decimal, ...]:
        """The numbers, of a column of single numbers."""
        return tuple(Decimal(key[0]) for key in self.keys)


def columns(names: Sequence[str]) -> list[Column]:
    """All keys that tell the names of one kind apart; names of different patterns are different kinds."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[pattern_of(name)].append(index)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))[:MOST_GROUPS]
    return [column for pattern, items in largest for column in _columns_of_group(pattern, items, names)]


def _columns_of_group(pattern: str, items: list[int], names: Sequence[str]) -> list[Column]:
    rows = [numbers_of(names[index]) for index in items]
    places = range(len(rows[0]))
    varying = [place for place in places if len({row[place] for row in rows}) > 1] or list(places)
    found = [
        Column(tuple(items), tuple((row[place],) for row in rows), pattern)
        for place in varying
        if len({row[place] for row in rows}) == len(rows)
    ]
    together = tuple(tuple(row[place] for place in varying) for row in rows)
    if len(varying) > 1 and len(set(together)) == len(rows):
        found.append(Column(tuple(items), together, pattern))
    return found


def equal_numbers(names: Sequence[str]) -> dict[Key, list[int]]:
    """Indices of names that differ in leading zeros or capitals only (`1` and `0001`), by what they share."""
    same: dict[Key, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        same[(pattern_of(name), *numbers_of(name))].append(index)
    return {key: places for key, places in same.items() if len(places) > 1}


def writing_of(name: str) -> str:
    """How a name writes its numbers: `0` in place of every digit."""
    return re.sub(r"\d", "0", name)


def usual_one(names: Sequence[str], places: Sequence[int]) -> int | None:
    """Of names that mean one frame, the index of the one written like most names; None for a tie."""
    how_many = Counter(writing_of(name) for name in names)
    first, second = sorted((how_many[writing_of(names[place])] for place in places), reverse=True)[:2]
    if first == second:
        return None
    return next(place for place in places if how_many[writing_of(names[place])] == first)


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, in order."""
    first = sorted(names, key=by_number)
    return ", ".join(first[:most]) + (", ..." if len(first) > most else "")


def unit_of(values: Sequence[Decimal]) -> str | None:
    """`s`, `ms`, `us`, `ns` or `100 ns`, from size and spacing; None for what is not a time: frame numbers.

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
    """Whether numbers with a unit can only be times: other whole numbers may be numbers of chosen frames."""
    return values[0] >= EPOCH[0] or any(one != int(one) for one in values)


def in_seconds(values: Sequence[Decimal], unit: str, start: Decimal = Decimal(0)) -> Float[ndarray, " time"]:
    """Seconds after `start` (seconds), so that nanoseconds since 1970 stay distinct."""
    factor = PER_SECOND[unit]
    return np.array([float(one / factor - start) for one in values], np.float64)


def times_of_names(names: Sequence[str]) -> tuple[float | None, ...]:
    """Seconds, where every name is one number that can only be a time; else None for each."""
    values = [numbers_of(name) for name in names]
    times = [one[0] for one in values if len(one) == 1]
    unit = unit_of(times) if len(times) == len(names) else None
    if unit is None or not is_certain(times):
        return (None,) * len(names)
    return tuple(in_seconds(times, unit).tolist())


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
            if distance <= gap + SAME_TIME:
                candidates.append((distance, int(index), other))
    taken: dict[int, int] = {}
    used: set[int] = set()
    for _, index, other in sorted(candidates):
        if index not in taken and other not in used:
            taken[index] = other
            used.add(other)
    return sorted(taken.items())
