"""The rules by which two lists of names are paired: whole names, numbers, times, order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import numpy as np

from ponderv2.datasets.frame_names import (
    PER_SECOND,
    Column,
    Key,
    by_number,
    columns,
    frame_key,
    in_seconds,
    is_certain,
    nearest_pairs,
    numbers_of,
    some,
    unit_of,
)
from ponderv2.datasets.rgbd.config import PairingConfig
from ponderv2.errors import SceneError

ENOUGH = 0.5
"""Share of the shorter list that must have a partner where both lists have items without one."""
SAME_TIME = 0.5
"""Frames paired by number may be apart in time by this fraction of the usual frame interval."""
CHOOSE = (
    "rename the files so that images and poses of a frame share a number, or choose a rule: "
    "--set source.pairing.rule=order (or name, number, time)"
)
_FORMS: tuple[tuple[Callable[[str], object], str], ...] = (
    (str, "by whole name"),
    (str.lower, "by whole name, whatever the case"),
    (frame_key, "by name, but for leading zeros and words such as rgb and depth"),
)


@dataclass(frozen=True)
class Names:
    """One list: names of files, numbers or times of rows. No two are equal."""

    what: str
    """`colour`, `depth` or `pose`, for messages."""
    names: tuple[str, ...]
    in_order: bool = False
    """Rows of a file, whose order counts; files are ordered by the numbers in their names."""


@dataclass(frozen=True)
class Match:
    """Which item of one list belongs to which of the other."""

    pairs: dict[int, int]
    rule: str
    """Description for the report."""
    by_order: bool = False
    """Whether only the order fits: pairs by name or number take precedence."""


@dataclass(frozen=True)
class Times:
    """Times of two lists on one clock, seconds."""

    first: Column
    second: Column
    units: tuple[str, str]

    def seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """Both, relative to a common start."""
        start = Decimal(int(min(self.first.values) / PER_SECOND[self.units[0]]))
        return (
            in_seconds(self.first.values, self.units[0], start),
            in_seconds(self.second.values, self.units[1], start),
        )


def match(first: Names, second: Names, settings: PairingConfig) -> Match:
    """The first rule that fits. Raises SceneError when none does, or when two answers are equally good."""
    rules: dict[str, Callable[[], Match | None]] = {
        "name": lambda: _by_name(first, second),
        "number": lambda: _by_number(first, second),
        "time": lambda: _by_time(first, second, settings),
        "order": lambda: _by_counting(first, second),
    }
    if settings.rule == "order":
        return by_order(first, second, "as the settings say")
    if settings.rule != "auto":
        found = _forced(first, second, settings, rules)
        if found is None or not found.pairs:
            raise SceneError(f"{_both(first, second)} cannot be paired by {settings.rule}", fix=CHOOSE)
        return found
    for rule in rules.values():
        found = rule()
        if found is not None and found.pairs:
            return found
    raise SceneError(
        f"{_both(first, second)} cannot be paired: {_looks(first)}; {_looks(second)}", fix=CHOOSE
    )


def by_whole_name(first: Names, second: Names) -> Match | None:
    """Equal names, where one list has all names of the other."""
    return _by_name(first, second, forms=_FORMS[:1])


def by_order(first: Names, second: Names, why: str) -> Match:
    """The n-th belongs to the n-th. Raises SceneError where the counts differ."""
    if len(first.names) != len(second.names):
        raise SceneError(
            f"{_both(first, second)} cannot be paired by order: there are {len(first.names)} and "
            f"{len(second.names)} of them",
            fix=CHOOSE,
        )
    pairs = dict(zip(_ordered(first), _ordered(second), strict=True))
    return Match(pairs, f"by order ({len(pairs)} of each; {why})", by_order=True)


def times_of(first: Names, second: Names, settings: PairingConfig) -> Times | None:
    """The numbers that are times in both lists, on one clock; None when there are none."""
    best: tuple[int, Times] | None = None
    for one in _number_columns(first.names):
        for two in _number_columns(second.names):
            units = _units(one.values, two.values, settings)
            if units is None or _may_be_numbers(one, two, settings):
                continue
            found = Times(one, two, units)
            early, late = found.seconds()
            margin = max(settings.pose_gap, settings.image_gap)
            inside = int(((early >= late.min() - margin) & (early <= late.max() + margin)).sum())
            if inside and (best is None or inside > best[0]):
                best = inside, found
    return None if best is None else best[1]


def _may_be_numbers(one: Column, two: Column, settings: PairingConfig) -> bool:
    """Whether numbers that look like times fit as frame numbers: frames chosen at irregular intervals."""
    if settings.time_unit != "auto" or is_certain(one.values) or is_certain(two.values):
        return False
    return len(_equal_keys(one, two)) >= ENOUGH * min(len(one.items), len(two.items))


def _forced(
    first: Names, second: Names, settings: PairingConfig, rules: dict[str, Callable[[], Match | None]]
) -> Match | None:
    """A rule that the settings ask for; partners may be missing on both sides."""
    if settings.rule == "number":
        return _by_number(first, second, partly=True)
    if settings.rule == "name":
        return _by_name(first, second, partly=True)
    return rules[settings.rule]()


def _by_name(first: Names, second: Names, partly: bool = False, forms=_FORMS) -> Match | None:
    """Equal names, or names that are equal but for words such as `rgb` and `depth`."""
    for form, words in forms:
        ours = {form(name): index for index, name in enumerate(first.names)}
        theirs = {form(name): index for index, name in enumerate(second.names)}
        if len(ours) < len(first.names) or len(theirs) < len(second.names):
            continue
        common = [key for key in ours if key in theirs]
        if common and (partly or len(common) == min(len(ours), len(theirs))):
            return Match({ours[key]: theirs[key] for key in common}, words)
    return None


def _by_number(first: Names, second: Names, partly: bool = False) -> Match | None:
    """The number that varies, where one list has all numbers of the other."""
    best = _best_columns(first, second)
    if best is None:
        return None
    one, two = best
    found = _equal_keys(one, two)
    shorter = min(len(first.names), len(second.names))
    whole = len(found) == min(shorter, len(one.items), len(two.items)) and len(found) >= ENOUGH * shorter
    if not (whole or partly) or _other_times(first, second, found):
        return None
    return Match(found, "by the number in the name" if one.is_number else "by the numbers in the name")


def _by_time(first: Names, second: Names, settings: PairingConfig) -> Match | None:
    """The nearest in time, each used once."""
    times = times_of(first, second, settings)
    if times is None:
        return None
    pairs = nearest_pairs(*times.seconds(), settings.image_gap)
    unit = times.units[0] if len(set(times.units)) == 1 else " and ".join(times.units)
    found = {times.first.items[one]: times.second.items[two] for one, two in pairs}
    if not found:
        early, late = times.seconds()
        apart = min(abs(early - one).min() for one in late)
        raise SceneError(
            f"{_both(first, second)} are at least {apart:.3f} s apart, more than {settings.image_gap:g} s",
            fix="--set source.pairing.image_gap=SECONDS, or source.pairing.rule=order",
        )
    return Match(found, f"by time ({unit}; at most {settings.image_gap:g} s apart)")


def _by_counting(first: Names, second: Names) -> Match | None:
    """Numbers that fit in part, or order where nothing else fits. SceneError: it can be either."""
    best = _best_columns(first, second)
    if best is None:
        return _rows_in_order(first, second)
    one, two = best
    common = {} if _of_two_kinds(one, two) else _equal_keys(one, two)
    if len(one.items) == len(two.items):
        reason = _same_counting(one, two, len(common))
        if reason:
            pairs = dict(zip(_sorted_items(one), _sorted_items(two), strict=True))
            return Match(pairs, f"by order ({len(pairs)} of each; {reason})", by_order=True)
    shifted = max((_shifted(one, two, shift) for shift in (-1, 1)), default=0) if one.is_number else 0
    if len(common) >= ENOUGH * min(len(one.items), len(two.items)) and len(common) >= shifted:
        return Match(common, "by the number in the name")
    if common:
        raise SceneError(
            f"{_both(first, second)} can be paired in more than one way: {_looks(first)}; {_looks(second)}; "
            f"{len(common)} numbers are equal",
            fix=CHOOSE,
        )
    return None


def _of_two_kinds(one: Column, two: Column) -> bool:
    """Whether one has times and the other frame numbers, so that equal numbers mean nothing."""
    if not (one.is_number and two.is_number):
        return False
    times = [is_certain(part.values) and unit_of(part.values) is not None for part in (one, two)]
    return times[0] != times[1]


def _same_counting(one: Column, two: Column, n_common: int) -> str:
    """Why order decides between lists of equal length; empty where it does not."""
    if not (one.is_number and two.is_number):
        return "" if n_common else "the numbers in their names differ"
    ours, theirs = sorted(one.values), sorted(two.values)
    if n_common == 0:
        return f"they are numbered {_span(ours)} and {_span(theirs)}"
    steps = [[high - low for low, high in pairwise(row)] for row in (ours, theirs)]
    first, second = (row[0] if row else Decimal(1) for row in steps)
    alike = all(left * second == right * first for left, right in zip(*steps, strict=True))
    counted = {ours[0], theirs[0]}
    if alike and first == second and counted == {0, 1}:
        return "one is numbered from 0, the other from 1"
    consecutive = any(
        row[0] in (0, 1) and set(gaps) <= {1} for row, gaps in zip((ours, theirs), steps, strict=True)
    )
    if alike and first != second and consecutive:
        return f"they are numbered {_span(ours)} and {_span(theirs)}"
    return ""


def _rows_in_order(first: Names, second: Names) -> Match | None:
    """Names without any number: then only rows of a file are ordered."""
    if first.in_order and second.in_order and len(first.names) == len(second.names):
        return by_order(first, second, "they have no numbers")
    return None


def _best_columns(first: Names, second: Names) -> tuple[Column, Column] | None:
    """The keys with the most in common; of names with nothing in common those of the usual names.

    Raises SceneError where two kinds of names in one folder fit equally well.
    """
    ranked: list[tuple[int, Column, Column]] = []
    for one in columns(first.names):
        keys = set(one.keys)
        for two in columns(second.names):
            if len(one.keys[0]) == len(two.keys[0]):
                ranked.append((len(keys.intersection(two.keys)), one, two))
    if not ranked:
        return None
    ranked.sort(key=lambda item: -item[0])
    most, one, two = ranked[0]
    if most == 0:
        usual = max(ranked, key=lambda item: len(item[1].items) + len(item[2].items))
        return usual[1], usual[2]
    for count, other_one, other_two in ranked[1:]:
        patterns = {(one.pattern, two.pattern), (other_one.pattern, other_two.pattern)}
        if count == most and len(patterns) > 1:
            side, both = (
                (first, (one, other_one)) if one.pattern != other_one.pattern else (second, (two, other_two))
            )
            raise SceneError(
                f"two kinds of {side.what} fit equally well: names like '{both[0].pattern}' and "
                f"'{both[1].pattern}'",
                fix="keep one kind in the folder",
            )
    return one, two


def _other_times(first: Names, second: Names, found: dict[int, int]) -> bool:
    """Whether names hold times beside the number, and pairs by number were taken at different times."""
    times = times_of(first, second, PairingConfig())
    if times is None or times.first.is_number is False:
        return False
    early, late = times.seconds()
    ours = dict(zip(times.first.items, early, strict=True))
    theirs = dict(zip(times.second.items, late, strict=True))
    apart = sorted(
        abs(ours[one] - theirs[two]) for one, two in found.items() if one in ours and two in theirs
    )
    steps = sorted(abs(high - low) for low, high in pairwise(early))
    if not apart or not steps:
        return False
    return bool(apart[int(0.9 * (len(apart) - 1))] > SAME_TIME * steps[len(steps) // 2])


def _units(
    first: tuple[Decimal, ...], second: tuple[Decimal, ...], settings: PairingConfig
) -> tuple[str, str] | None:
    if settings.time_unit != "auto":
        return settings.time_unit, settings.time_unit
    one, two = unit_of(first), unit_of(second)
    if one is None and two is None:
        return None
    if one is not None and two is not None:
        return one, two
    unknown = first if one is None else second
    steps = sorted(high - low for low, high in pairwise(sorted(unknown)))
    if max(first) < min(second) or max(second) < min(first) or not steps or steps[len(steps) // 2] < 5:
        return None  # of another clock, or frame numbers
    known = one or two
    assert known is not None
    return known, known


def _number_columns(names: Sequence[str]) -> list[Column]:
    found = [column for column in columns(names) if column.is_number]
    largest = max((len(column.items) for column in found), default=0)
    return [column for column in found if len(column.items) == largest]


def _equal_keys(one: Column, two: Column) -> dict[int, int]:
    theirs: dict[Key, int] = dict(zip(two.keys, two.items, strict=True))
    return {item: theirs[key] for item, key in zip(one.items, one.keys, strict=True) if key in theirs}


def _shifted(one: Column, two: Column, shift: int) -> int:
    theirs = {value + shift for value in two.values}
    return len(theirs.intersection(one.values))


def _sorted_items(column: Column) -> list[int]:
    return [item for _, item in sorted(zip(column.keys, column.items, strict=True))]


def _ordered(part: Names) -> list[int]:
    """Places in order."""
    if part.in_order or len(part.names) == 1:
        return list(range(len(part.names)))
    if not all(numbers_of(name) for name in part.names):
        raise SceneError(
            f"the names of {part.what} have no numbers, so that they have no order: {some(part.names)}",
            fix="number the files",
        )
    return sorted(range(len(part.names)), key=lambda index: by_number(part.names[index]))


def _span(values: Sequence[Decimal]) -> str:
    return f"{values[0]} to {values[-1]}" if len(values) > 1 else str(values[0])


def _both(first: Names, second: Names) -> str:
    return f"{first.what} and {second.what}"


def _looks(part: Names) -> str:
    return f"{len(part.names)} {part.what} named {some(part.names, 3)}"
