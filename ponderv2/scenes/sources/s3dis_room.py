"""One room of S3DIS: its annotated files as points with class and instance, and the turn that aligns it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.text import read_text
from ponderv2.scenes.labels.s3dis import CLASS_NAMES, CLUTTER
from ponderv2.scenes.sources.s3dis_text import PointRows, read_points

ANNOTATIONS = "Annotations"
_COPY = re.compile(r"^(?P<original>.+?) ?\(\d+\)$")
SAME_POINTS = 0.95
"""Share of a copy's points that are in the original, above which it is left out."""
EYE_SPACING = 0.5
"""Metres between the places from which the inside of a room is looked at."""
EYE_HEIGHTS = (1.2, 1.5, 1.8)
"""Metres above the floor: over tables, under ceilings."""
EYE_CLEARANCE = 0.3
"""Metres that such a place keeps from all points."""
N_NEAR_EYES = 60_000
"""Points that are looked at for that."""


@dataclass(frozen=True)
class RoomPoints:
    """All points of a room, in the frame of the archive: metres, z up."""

    coord: Float64[ndarray, "point 3"]
    color: UInt8[ndarray, "point 3"]
    segment: Int[ndarray, " point"]
    """Class, -1 where the room has no annotations."""
    instance: Int[ndarray, " point"]
    """Position of the object's file among the sorted files of the room."""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


def annotation_files(room: Path) -> tuple[Path, ...]:
    """The files of the objects, sorted by name as the published instance numbers mean it."""
    found = (room / ANNOTATIONS).glob("*.txt")
    return tuple(sorted(path for path in found if not path.name.startswith(".")))


def point_files(room: Path) -> tuple[Path, ...]:
    """The files that the points are read from: the objects or, without these, the room's own list."""
    files = annotation_files(room)
    if files:
        return files
    return tuple(sorted(path for path in room.glob("*.txt") if not path.name.startswith(".")))[:1]


def read_room(room: Path) -> RoomPoints:
    """Points in the order of the sorted files. Raises SceneError when there are none."""
    files = annotation_files(room)
    if not files:
        return _without_annotations(room)
    notes: list[str] = []
    repairs: list[str] = []
    parts: list[tuple[PointRows, int]] = []
    kept: dict[str, int] = {}
    files, copies = _copies_last(files)
    for path in (*files, *copies):
        rows = read_points(path)
        repairs += rows.repairs
        if len(rows.coord) == 0:
            repairs.append(f"{_shown(path)} is empty and was left out")
            continue
        original = _original(path.stem)
        if path in copies and original in kept and _is_copy(rows, parts[kept[original]][0]):
            repairs.append(f"{_shown(path)} repeats '{original}.txt' and was left out")
            continue
        kept[path.stem] = len(parts)
        parts.append((rows, _class_of(path, notes)))
    if not parts:
        raise SceneError(f"{room} has no points", fix="unpack the archive again")
    order = sorted(kept, key=lambda stem: f"{stem}.txt")
    return _joined([parts[kept[stem]] for stem in order], notes, repairs)


def _joined(parts: list[tuple[PointRows, int]], notes: list[str], repairs: list[str]) -> RoomPoints:
    sizes = [len(rows.coord) for rows, _ in parts]
    return RoomPoints(
        np.concatenate([rows.coord for rows, _ in parts]),
        np.concatenate([rows.color for rows, _ in parts]),
        np.repeat(np.array([number for _, number in parts], np.int16), sizes),
        np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        (f"{len(parts)} objects", *notes),
        tuple(repairs),
    )


def _without_annotations(room: Path) -> RoomPoints:
    files = point_files(room)
    if not files:
        raise SceneError(f"{room} has neither {ANNOTATIONS} nor points", fix="unpack the archive again")
    rows = read_points(files[0])
    if len(rows.coord) == 0:
        raise SceneError(f"{files[0]} has no points", fix="unpack the archive again")
    unknown = np.full(len(rows.coord), -1, np.int16)
    note = f"no {ANNOTATIONS}: points without classes from {files[0].name}"
    return RoomPoints(rows.coord, rows.color, unknown, unknown.astype(np.int32), (note,), rows.repairs)


def _class_of(path: Path, notes: list[str]) -> int:
    prefix = path.stem.split("_")[0].strip().lower()
    if prefix in CLASS_NAMES:
        return CLASS_NAMES.index(prefix)
    notes.append(f"'{path.name}' counts as clutter: no class is called '{prefix}'")
    return CLUTTER


def _copies_last(files: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """`wall_3 (1).txt` beside `wall_3.txt` may be a copy of it."""
    stems = {path.stem for path in files}
    copies = tuple(path for path in files if _original(path.stem) in stems - {path.stem})
    return tuple(path for path in files if path not in copies), copies


def _original(stem: str) -> str:
    found = _COPY.match(stem)
    return found["original"] if found else stem


def _is_copy(rows: PointRows, original: PointRows) -> bool:
    if len(rows.coord) == len(original.coord) and np.array_equal(rows.coord, original.coord):
        return True
    known = {row.tobytes() for row in np.unique(original.coord, axis=0)}
    shared = sum(row.tobytes() in known for row in rows.coord)
    return shared > SAME_POINTS * len(rows.coord)


def _shown(path: Path) -> str:
    return "/".join(path.parts[-4:])


def read_angles(path: Path) -> dict[str, float]:
    """Degrees by room, from an Area_k_alignmentAngle.txt. Raises SceneError naming a line that is none."""
    angles: dict[str, float] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            angles[words[0]] = float(words[1])
        except (IndexError, ValueError) as error:
            raise SceneError(f"{path} line {number}: '{line[:60]}' is not `room degrees`") from error
    return angles


def alignment(coord: Float64[ndarray, "point 3"], degrees: float) -> Float64[ndarray, "4 4"]:
    """The turn about z through the middle of the bounding box: theta = (2 - degrees / 180) pi.

    Points, normals and poses (x' = A x, from the left) are turned by the same matrix.
    """
    theta = (2.0 - degrees / 180.0) * np.pi
    cos, sin = np.cos(theta), np.sin(theta)
    centre = (coord.min(axis=0) + coord.max(axis=0)) / 2
    matrix = np.eye(4)
    matrix[:3, :3] = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    return matrix


def moved(coord: Float[ndarray, "point 3"], matrix: Float[ndarray, "4 4"]) -> Float[ndarray, "point 3"]:
    """x' = A x."""
    return coord @ matrix[:3, :3].T + matrix[:3, 3]


def inner_places(coord: Float64[ndarray, "point 3"]) -> Float64[ndarray, "eye 3"]:
    """Places in the open inside of a room, above its floor, from which its surfaces are seen."""
    from scipy.spatial import KDTree

    lower, upper = coord.min(axis=0), coord.max(axis=0)
    middle = (lower + upper) / 2
    cells = np.unique(np.floor(coord[:, :2] / EYE_SPACING).astype(np.int64), axis=0)
    height = lower[2] + np.minimum(EYE_HEIGHTS, max(0.8 * (upper[2] - lower[2]), EYE_HEIGHTS[0]))
    places = np.concatenate(
        [np.tile((cells + 0.5) * EYE_SPACING, (len(height), 1)), np.repeat(height, len(cells))[:, None]],
        axis=1,
    )
    looked_at = coord[:: max(len(coord) // N_NEAR_EYES, 1)]
    clear = np.asarray(KDTree(looked_at).query(places)[0]) > EYE_CLEARANCE
    inside = ((places > lower) & (places < upper))[:, :2].all(axis=1)
    found = places[clear & inside]
    return found if len(found) else middle[None]
