"""Images, depth images and poses become frames: the one place where files of a recording are paired.

Colour and depth images are paired by whole name, else by the number that varies, else by time, else by order
where the counts agree and nothing else fits. Poses follow by the same rules; poses of other times than the
images are interpolated. What was left out is reported, and what can be paired in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from ponderv2.datasets.frame_names import by_number, equal_numbers, some, usual_one
from ponderv2.datasets.rgbd.config import PairingConfig
from ponderv2.datasets.rgbd.name_matching import Match, Names, by_whole_name, match
from ponderv2.datasets.rgbd.pose_pairing import AmbiguousCount, Poses, Slot, poses_of
from ponderv2.errors import SceneError


@dataclass(frozen=True)
class PairedFrame:
    """One frame: indices into the given lists, and its pose."""

    name: str
    """Of the depth image, else of the colour image. No two frames share one."""
    color: int | None
    depth: int | None
    camera_to_world: Float[ndarray, "4 4"]
    """Not-a-number where its pose is damaged."""


@dataclass(frozen=True)
class Pairing:
    """Frames in the order of their numbers or times, and what the report says about them."""

    frames: tuple[PairedFrame, ...]
    notes: tuple[str, ...]
    repairs: tuple[str, ...]


Decide = Callable[[Mapping[int, Pairing]], tuple[int | None, str]]
"""Of pairings by the number of the image that the first pose belongs to, the right one and why; or None."""


def pair_frames(
    where: Path,
    color: Sequence[str] | None,
    depth: Sequence[str] | None,
    poses: Poses,
    settings: PairingConfig = PairingConfig(),
    decide: Decide | None = None,
) -> Pairing:
    """Frames with a pose and every image that the recording has.

    `color` and `depth` are names of image files without their ending, or times of a list; None where the
    recording has no such images. `where` is named in messages. `decide` chooses where poses can be counted in
    two ways.

    Raises:
        SceneError: nothing fits, or two ways to pair are equally good and `decide` does not know.
    """
    try:
        return _paired(where, color, depth, poses, settings)
    except AmbiguousCount as error:
        options = {
            first: _paired(where, color, depth, poses, settings.model_copy(update={"first_pose": first}))
            for first in error.first_poses
        }
        chosen, reason = (None, "") if decide is None else decide(options)
        if chosen is None:
            if error.usual is None:
                raise
            chosen, reason = error.usual, f"as usual; see {error.fix}"
        pairing = options[chosen]
        return replace(pairing, notes=(*pairing.notes, f"the first pose is that of image {chosen}: {reason}"))


def _paired(
    where: Path,
    color: Sequence[str] | None,
    depth: Sequence[str] | None,
    poses: Poses,
    settings: PairingConfig,
) -> Pairing:
    parts = {"colour": color, "depth": depth, "pose": poses.camera_to_world}
    repairs: list[str] = []
    try:
        colors = None if color is None else _distinct("colour", color, repairs)
        depths = None if depth is None else _distinct("depth", depth, repairs)
        if colors is not None and depths is not None:
            colors, depths, found_pairs = _matched_images(colors, depths, settings, repairs)
        else:
            found_pairs = None
        pairs, rule = _image_pairs(colors, depths, found_pairs)
        slots = [
            Slot(
                None if one is None or colors is None else colors.names[one],
                None if two is None or depths is None else depths.names[two],
                (colors is None or one is not None) and (depths is None or two is not None),
            )
            for one, two in pairs
        ]
        if not any(slot.whole for slot in slots):
            raise SceneError("none with a common number", fix="check the folders and the names of the files")
        found = poses_of(slots, poses, settings)
    except SceneError as error:
        counts = ", ".join(f"{len(part)} {what}" for what, part in parts.items() if part is not None)
        message = f"no frames in {where}: found {counts}; {error.message}"
        if isinstance(error, AmbiguousCount):
            raise AmbiguousCount(message, error.fix, error.first_poses, error.usual) from error
        raise SceneError(message, fix=error.fix) from error
    repairs += _left_out("colour", [slot.name for slot in slots if colors is not None and slot.color is None])
    repairs += _left_out("depth", [slot.name for slot in slots if depths is not None and slot.depth is None])
    frames = tuple(
        PairedFrame(
            slots[index].name,
            _place(colors, pairs[index][0]),
            _place(depths, pairs[index][1]),
            pose,
        )
        for index, pose in sorted(found.poses.items())
    )
    return Pairing(frames, (*rule, *found.notes), (*repairs, *found.repairs))


@dataclass(frozen=True)
class _List:
    """Unique names, and their indices in the given list."""

    names: tuple[str, ...]
    places: tuple[int, ...]


def _distinct(what: str, names: Sequence[str], repairs: list[str]) -> _List:
    """Without repeated names."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        first.setdefault(name, index)
    if len(first) < len(names):
        repairs.append(f"{len(names) - len(first)} repeated {what} entries were left out")
    return _List(tuple(first), tuple(first.values()))


def _matched_images(
    colors: _List, depths: _List, settings: PairingConfig, repairs: list[str]
) -> tuple[_List, _List, Match | None]:
    """Colour and depth images by their names, else by what names mean, of which no two may mean the same."""
    if not colors.names or not depths.names:
        return colors, depths, None
    whole = settings.rule in ("auto", "name")
    found = by_whole_name(Names("colour", colors.names), Names("depth", depths.names)) if whole else None
    if found is None:
        colors = _without_twins("colour", colors, repairs)
        depths = _without_twins("depth", depths, repairs)
        found = match(Names("colour", colors.names), Names("depth", depths.names), settings)
    return colors, depths, found


def _without_twins(what: str, part: _List, repairs: list[str]) -> _List:
    """Of names that mean one frame (`1` and `0001`) only the one written like the majority."""
    dropped: set[int] = set()
    for places in equal_numbers(part.names).values():
        twins = [part.names[place] for place in places]
        usual = usual_one(part.names, places)
        if usual is None:
            raise SceneError(f"several {what} files mean one frame: {some(twins)}", fix="remove all but one")
        dropped.update(place for place in places if place != usual)
        others = [name for name in twins if name != part.names[usual]]
        repairs.append(f"{what} {some(others)} has the number of {part.names[usual]} and was left out")
    kept = [place for place in range(len(part.names)) if place not in dropped]
    return _List(tuple(part.names[one] for one in kept), tuple(part.places[one] for one in kept))


def _image_pairs(
    colors: _List | None, depths: _List | None, found: Match | None
) -> tuple[list[tuple[int | None, int | None]], tuple[str, ...]]:
    """Colour and depth images side by side, in order, and a note. Those without a partner are there too,
    as poses may count them."""
    pairs: list[tuple[int | None, int | None]]
    rule: tuple[str, ...] = ()
    if colors is None or depths is None:
        alone = colors or depths
        count = 0 if alone is None else len(alone.names)
        pairs = [(None, one) if colors is None else (one, None) for one in range(count)]
    elif found is None:
        return [], ()
    else:
        matched = set(found.pairs.values())
        pairs = list(found.pairs.items())
        pairs += [(one, None) for one in range(len(colors.names)) if one not in found.pairs]
        pairs += [(None, two) for two in range(len(depths.names)) if two not in matched]
        rule = (f"colour and depth images paired {found.rule}",)

    def order(pair: tuple[int | None, int | None]):
        one, two = pair
        if two is not None and depths is not None:
            return by_number(depths.names[two])
        assert one is not None and colors is not None
        return by_number(colors.names[one])

    return sorted(pairs, key=order), rule


def _place(part: _List | None, index: int | None) -> int | None:
    """Index in the given list."""
    return None if part is None or index is None else part.places[index]


def _left_out(what: str, names: list[str]) -> list[str]:
    return [f"{len(names)} frames without {what} were left out ({some(names)})"] if names else []
