"""The pose of each frame: at its time, by its number, or by order. `pairing` is what to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.datasets.frame_names import columns, some, unit_of
from ponderv2.datasets.rgbd.config import PairingConfig
from ponderv2.datasets.rgbd.name_matching import CHOOSE, Match, Names, by_order, match, times_of
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import poses_at

FIRST_POSE = "--set source.pairing.first_pose=NUMBER (of the image that the first pose belongs to)"
MOST_POSES = 10**7


class AmbiguousCount(SceneError):
    """Numbers of poses that fit the images in more than one way."""

    def __init__(
        self, message: str, fix: str | None, first_poses: tuple[int, ...], usual: int | None
    ) -> None:
        super().__init__(message, fix)
        self.first_poses = first_poses
        """Numbers of the image that the first pose may belong to."""
        self.usual = usual
        """The default where nothing decides; None: the user has to choose."""


@dataclass(frozen=True)
class Poses:
    """Poses of a recording, in one file or one file each."""

    camera_to_world: Float[ndarray, "pose 4 4"]
    """OpenCV axes, metres. Not-a-number where a pose is damaged."""
    names: tuple[str, ...] | None = None
    """Stems of the files, or number or time of each row; None: only the order of the rows is known."""


@dataclass(frozen=True)
class Slot:
    """A frame that may have a pose: the names of its images."""

    color: str | None
    depth: str | None
    whole: bool
    """Whether it has every image that a frame of this recording needs."""

    @property
    def name(self) -> str:
        """Of the depth image, else of the colour image."""
        return self.depth or self.color or ""


@dataclass
class PoseReport:
    """Poses by index of the slot, and notes."""

    poses: dict[int, Float[ndarray, "4 4"]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)


def poses_of(slots: Sequence[Slot], poses: Poses, settings: PairingConfig) -> PoseReport:
    """Poses of the complete slots. Raises SceneError where nothing fits, or two answers fit equally well."""
    report = PoseReport()
    if len(poses.camera_to_world) == 0:
        raise SceneError("there are no poses")
    poses = _one_of_each(poses, report)
    if (
        poses.names is not None
        and settings.rule in ("auto", "time")
        and _in_time(slots, poses, settings, report)
    ):
        return report
    if settings.first_pose is None and settings.rule == "auto" and poses.names is not None:
        _refuse_other_start(slots, poses)
    found, n_poses = _matched(slots, poses, settings), len(poses.camera_to_world)
    report.notes.append(f"poses paired {found.rule}")
    report.poses = {
        slot: poses.camera_to_world[pose] for slot, pose in found.pairs.items() if slots[slot].whole
    }
    without = [slot.name for index, slot in enumerate(slots) if slot.whole and index not in found.pairs]
    if without:
        report.repairs.append(f"{len(without)} frames without pose were left out ({some(without)})")
    if len(found.pairs) < n_poses:
        report.notes.append(f"{n_poses - len(found.pairs)} poses have no image")
    return report


def _one_of_each(poses: Poses, report: PoseReport) -> Poses:
    """Poses whose names are told apart: of equal ones the first."""
    if poses.names is None:
        return poses
    first: dict[str, int] = {}
    apart = 0.0
    for index, name in enumerate(poses.names):
        if first.setdefault(name, index) != index:
            both = poses.camera_to_world[first[name]] - poses.camera_to_world[index]
            apart = max(apart, float(np.nan_to_num(np.abs(both), nan=np.inf).max()))
    n_repeated = len(poses.names) - len(first)
    if n_repeated:
        differ = "; they differ, the first of each was taken" if apart > 1e-6 else ""
        report.repairs.append(
            f"{n_repeated} poses have the number or time of another and were left out{differ}"
        )
    return Poses(poses.camera_to_world[list(first.values())], tuple(first))


def _in_time(slots: Sequence[Slot], poses: Poses, settings: PairingConfig, report: PoseReport) -> bool:
    """Poses at the times of the depth images, interpolated; False where images or poses have no times."""
    assert poses.names is not None
    whole = [index for index, slot in enumerate(slots) if slot.whole]
    stream = Names("pose", poses.names)
    for what in ("depth", "color"):
        names = [getattr(slots[index], what) for index in whole]
        times = None if None in names else times_of(Names(what, tuple(names)), stream, settings)
        if times is not None:
            break
    else:
        return False
    ours, theirs = times.seconds()
    sequence = poses.camera_to_world[list(times.second.items)]
    found = poses_at(ours, theirs, sequence, settings.pose_gap)
    if not found.known.any():
        raise SceneError(
            f"no image has a pose in time: poses are at least {found.distance.min():.3f} s away, or more "
            f"than {settings.pose_gap:g} s apart",
            fix="--set source.pairing.pose_gap=SECONDS",
        )
    where = [whole[item] for item in times.first.items]
    report.poses = {where[index]: found.camera_to_world[index] for index in np.flatnonzero(found.known)}
    _note_times(slots, where, found, times.units, settings, report)
    if found.n_invalid:
        report.repairs.append(f"{found.n_invalid} invalid poses were left out")
    return True


def _note_times(slots, where, found, units, settings: PairingConfig, report: PoseReport) -> None:
    def named(chosen: ndarray) -> str:
        return some([slots[where[index]].name for index in np.flatnonzero(chosen)])

    n_between = int(found.interpolated.sum())
    n_exact = int((found.known & ~found.interpolated & ~found.neighbour).sum())
    unit = units[0] if len(set(units)) == 1 else f"images {units[0]}, poses {units[1]}"
    words = f"poses by time ({unit}): {n_exact} at the time of the image"
    if n_between:
        words += f", {n_between} interpolated between poses at most {settings.pose_gap:g} s apart"
    report.notes.append(words)
    if found.neighbour.any():
        farthest = 1000 * float(found.distance[found.neighbour].max())
        report.notes.append(
            f"{int(found.neighbour.sum())} frames took a pose up to {farthest:.1f} ms away, as none within "
            f"reach lies on the other side ({named(found.neighbour)})"
        )
    have = {where[index] for index in np.flatnonzero(found.known)}
    without = [slot.name for index, slot in enumerate(slots) if slot.whole and index not in have]
    if without:
        report.repairs.append(
            f"{len(without)} frames without pose were left out ({some(without)}): the poses around them are "
            f"more than {settings.pose_gap:g} s apart (source.pairing.pose_gap)"
        )


def _refuse_other_start(slots: Sequence[Slot], poses: Poses) -> None:
    """Images numbered from 1 and more poses from 0: were the first images lost, or do numbers start at 1?"""
    numbers = _whole_numbers(poses.names or ())
    images = set(_image_numbers(slots))
    if not numbers or not images or (min(images), min(numbers)) != (1, 0):
        return
    rows = set(numbers)
    if len(rows) > len(images) and images <= rows and {one - 1 for one in images} <= rows:
        raise AmbiguousCount(
            f"{len(images)} images from 1 on and {len(rows)} poses from 0 on", FIRST_POSE, (0, 1), 0
        )


def _matched(slots: Sequence[Slot], poses: Poses, settings: PairingConfig) -> Match:
    """Slots and poses by name or number, else by order."""
    if settings.first_pose is not None:
        return _counted_from(slots, poses, settings.first_pose, settings)
    lists = _name_lists(slots)
    if poses.names is None:
        if settings.rule in ("auto", "order"):
            found = _by_rows(lists, poses, settings)
            if found is not None:
                return found
        return _by_row_number(slots, poses, settings)
    if settings.rule == "time":
        raise SceneError("images and poses have no times in common", fix=CHOOSE)
    stream = Names("pose", poses.names)
    results: list[Match] = []
    errors: list[SceneError] = []
    for what, places in lists:
        names = Names(what, tuple(name for _, name in places))
        try:
            found = match(names, stream, settings)
        except SceneError as error:
            errors.append(error)
            continue
        results.append(replace(found, pairs={places[one][0]: two for one, two in found.pairs.items()}))
    sure = [one for one in results if not one.by_order]
    if not results:
        raise errors[0]
    return max(sure, key=lambda one: len(one.pairs)) if sure else _the_only(results)


def _name_lists(slots: Sequence[Slot]) -> list[tuple[str, list[tuple[int, str]]]]:
    """By what poses may count: depth images, colour images, frames that have all images, or all together."""
    lists = [
        ("depth", [(index, slot.depth) for index, slot in enumerate(slots) if slot.depth is not None]),
        ("colour", [(index, slot.color) for index, slot in enumerate(slots) if slot.color is not None]),
        ("whole frame", [(index, slot.name) for index, slot in enumerate(slots) if slot.whole]),
        ("frame", [(index, slot.name) for index, slot in enumerate(slots)]),
    ]
    return [
        (what, places)
        for what, places in lists
        if places and len({name for _, name in places}) == len(places)
    ]


def _the_only(results: list[Match]) -> Match:
    """The one answer that all give. Raises SceneError when they differ."""
    for one in results[1:]:
        common = one.pairs.keys() & results[0].pairs.keys()
        if any(one.pairs[slot] != results[0].pairs[slot] for slot in common):
            raise SceneError(
                "the poses could be counted by the colour or by the depth images", fix=FIRST_POSE
            )
    return max(results, key=lambda one: len(one.pairs))


def _by_rows(
    lists: list[tuple[str, list[tuple[int, str]]]], poses: Poses, settings: PairingConfig
) -> Match | None:
    """The n-th pose belongs to the n-th image, where there are as many of them."""
    n_poses = len(poses.camera_to_world)
    results = []
    for what, places in lists:
        if len(places) == n_poses:
            names = Names(what, tuple(name for _, name in places))
            rows = Names("pose", tuple(map(str, range(n_poses))), in_order=True)
            found = by_order(names, rows, "the poses have no numbers")
            results.append(replace(found, pairs={places[one][0]: two for one, two in found.pairs.items()}))
    if not results and settings.rule == "order":
        counts = ", ".join(f"{len(places)} {what}" for what, places in lists)
        raise SceneError(f"order cannot pair {n_poses} poses with {counts} images", fix=FIRST_POSE)
    return _the_only(results) if results else None


def _by_row_number(slots: Sequence[Slot], poses: Poses, settings: PairingConfig) -> Match:
    """Poses without numbers, counted from 0 or from 1 as the numbers of the images allow."""
    n_poses = len(poses.camera_to_world)
    numbers = _image_numbers(slots)
    if not numbers:
        raise SceneError(
            f"{n_poses} poses for {len(slots)} images, and the poses have no numbers", fix=FIRST_POSE
        )
    images = set(numbers)
    fitting = []
    for first in (0, 1):
        rows = set(range(first, first + n_poses))
        if images <= rows or rows <= images:
            fitting.append(first)
    lowest, highest = min(images), max(images)
    words = f"{len(images)} images numbered {lowest} to {highest}, {n_poses} poses without numbers"
    if not fitting:
        raise SceneError(words, fix=FIRST_POSE)
    if len(fitting) == 2 and lowest > 0:
        usual = None if lowest == 1 else 0
        raise AmbiguousCount(
            f"{words}, which can be counted from 0 or from 1", FIRST_POSE, tuple(fitting), usual
        )
    return _counted_from(slots, poses, fitting[0], settings)


def _image_numbers(slots: Sequence[Slot]) -> list[int]:
    """Numbers of the depth images, else of the colour images; none where the names hold times."""
    for what in ("depth", "color"):
        names = [getattr(slot, what) for slot in slots if getattr(slot, what) is not None]
        numbers = _whole_numbers(names)
        if numbers:
            return numbers
    return []


def _whole_numbers(names: Sequence[str]) -> list[int]:
    """The number of each name; none where the numbers are times, or names have several that vary."""
    for column in columns(names):
        if (
            column.is_number
            and len(column.items) == len(names)
            and all(one == int(one) and one < MOST_POSES for one in column.values)
            and unit_of(column.values) is None
        ):
            return [int(one) for one in column.values]
    return []


def _counted_from(slots: Sequence[Slot], poses: Poses, first: int, settings: PairingConfig) -> Match:
    """By number, where the first pose belongs to the image `first`."""
    given = range(len(poses.camera_to_world)) if poses.names is None else _whole_numbers(poses.names)
    if not given:
        raise SceneError("the poses have no numbers that first_pose could shift", fix=CHOOSE)
    named = replace(poses, names=tuple(str(one - min(given) + first) for one in given))
    found = _matched(slots, named, settings.model_copy(update={"rule": "number", "first_pose": None}))
    return Match(found.pairs, f"{found.rule}, the first pose is that of image {first}")
