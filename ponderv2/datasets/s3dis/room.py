"""One room of S3DIS: its objects, text files with damaged lines corrected, and its angle."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8
from numpy import ndarray

from ponderv2.datasets.s3dis.classes import CLASS_NAMES, CLUTTER
from ponderv2.errors import SceneError
from ponderv2.io.text import parse_rows, read_text

ANNOTATIONS = "Annotations"
_COPY = re.compile(r"^(?P<original>.+?) ?\(\d+\)$")
SAME_POINTS = 0.95
"""Share of a copy's points that are in the original, above which it is left out."""
EYE_SPACING = 0.5
"""Metres between the viewpoints inside a room that normals are turned to."""
EYE_HEIGHTS = (1.2, 1.5, 1.8)
"""Metres above the floor: over tables, under ceilings."""
EYE_CLEARANCE = 0.3
"""Metres that a viewpoint keeps from all points."""
N_NEAR_EYES = 60_000
"""Points that are compared for that."""
BLOCK = 1 << 20
"""Bytes that are parsed at once; a damaged line slows down its own block only."""
MOST_REPORTED = 20
"""Lines of one file that are reported one by one."""
MOST_DAMAGED = 0.5
"""Share of lines without points, above which the file is something else."""
_NUMBER = re.compile(rb"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?")
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")
_RUN = re.compile(rb"[^\x20-\x7e]+")
MOST_UNPRINTABLE = 6
"""In one line; with more of them nothing is guessed."""
MANY_DROPPED = 1000
"""Lines without points, after which a file that has more of them than of others is given up."""
Row = tuple[float, ...]


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
    part_of: dict[str, int] = {}
    files, copies = _copies_last(files)
    for path in (*files, *copies):
        rows = read_points(path)
        repairs += rows.repairs
        if len(rows.coord) == 0:
            repairs.append(f"{_excerpt(path)} is empty and was left out")
            continue
        original = _original(path.stem)
        if path in copies and original in part_of and _is_copy(rows, parts[part_of[original]][0]):
            repairs.append(f"{_excerpt(path)} repeats '{original}.txt' and was left out")
            continue
        part_of[path.stem] = len(parts)
        parts.append((rows, _class_of(path, notes)))
    if not parts:
        raise SceneError(f"{room} has no points", fix="unpack the archive again")
    order = sorted(part_of, key=lambda stem: f"{stem}.txt")
    return _joined([parts[part_of[stem]] for stem in order], notes, repairs)


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


def _excerpt(path: Path) -> str:
    return "/".join(path.parts[-4:])


def read_angles(path: Path) -> dict[str, float]:
    """Degrees by room, from an Area_k_alignmentAngle.txt. Raises SceneError naming an invalid line."""
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


def inner_viewpoints(coord: Float64[ndarray, "point 3"]) -> Float64[ndarray, "eye 3"]:
    """Viewpoints in the open inside of a room, above its floor, that see its surfaces."""
    from scipy.spatial import KDTree

    lower, upper = coord.min(axis=0), coord.max(axis=0)
    middle = (lower + upper) / 2
    cells = np.unique(np.floor(coord[:, :2] / EYE_SPACING).astype(np.int64), axis=0)
    height = lower[2] + np.minimum(EYE_HEIGHTS, max(0.8 * (upper[2] - lower[2]), EYE_HEIGHTS[0]))
    viewpoints = np.concatenate(
        [np.tile((cells + 0.5) * EYE_SPACING, (len(height), 1)), np.repeat(height, len(cells))[:, None]],
        axis=1,
    )
    compared = coord[:: max(len(coord) // N_NEAR_EYES, 1)]
    clear = np.asarray(KDTree(compared).query(viewpoints)[0]) > EYE_CLEARANCE
    inside = ((viewpoints > lower) & (viewpoints < upper))[:, :2].all(axis=1)
    found = viewpoints[clear & inside]
    return found if len(found) else middle[None]


# `++`: digits are never given back, which would take quadratic time.


@dataclass(frozen=True)
class PointRows:
    """The points of one file."""

    coord: Float64[ndarray, "point 3"]
    """Metres, z up."""
    color: UInt8[ndarray, "point 3"]
    repairs: tuple[str, ...] = ()
    """One sentence per line that was corrected or dropped."""


def read_points(path: Path) -> PointRows:
    """All points of a file. Raises SceneError when it cannot be read or is not a list of points."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_points(text, path)


def parse_points(text: bytes, path: Path) -> PointRows:
    """Points of a file's text; `path` is for messages. Raises SceneError when most lines are not points."""
    parts: list[ndarray] = [np.empty((6, 0))]
    messages: list[str] = []
    n_lines, n_dropped = 0, 0
    for block in _blocks(text):
        rows = parse_rows(block, 6)
        if rows is None or not _are_colors(rows[3:]):
            rows, sentences, dropped = _careful_rows(block, n_lines, "/".join(path.parts[-4:]))
            messages += sentences
            n_dropped += dropped
        parts.append(rows)
        n_lines += block.count(b"\n")
        if n_dropped > max(MANY_DROPPED, MOST_DAMAGED * n_lines):
            break
    if n_dropped > MOST_DAMAGED * max(n_lines, 1):
        raise SceneError(
            f"{path} is not a list of points: {n_dropped} of {n_lines} lines are not `x y z r g b`",
            fix="unpack the archive again",
        )
    numbers = np.concatenate(parts, axis=1)
    color = np.ascontiguousarray(numbers[3:].T.astype(np.uint8))
    return PointRows(np.ascontiguousarray(numbers[:3].T), color, _shortened(messages, path))


def _are_colors(values: Float64[ndarray, "3 row"]) -> bool:
    return bool((values >= 0).all() and (values <= 255).all())


def _blocks(text: bytes) -> Iterator[bytes]:
    """Pieces of whole lines."""
    if text and not text.endswith(b"\n"):
        text += b"\n"
    start = 0
    while start < len(text):
        stop = text.rfind(b"\n", start, start + BLOCK) + 1 or text.index(b"\n", start) + 1
        yield _plain(text[start:stop])
        start = stop


def _plain(block: bytes) -> bytes:
    """Tabs and line ends of other systems as blanks and newlines."""
    if b"\t" in block:
        block = block.replace(b"\t", b" ")
    return block.replace(b"\r\n", b"\n") if b"\r" in block else block


def _careful_rows(block: bytes, n_before: int, name: str) -> tuple[Float64[ndarray, "6 row"], list[str], int]:
    """Line by line: rows, what was done to damaged lines, and how many lines were dropped."""
    rows: list[Row] = []
    messages: list[str] = []
    n_dropped = 0
    for number, line in enumerate(block.split(b"\n")[:-1], n_before + 1):
        row = _row(line.split())
        if row is None and line.strip():
            hopeless = n_dropped > max(MANY_DROPPED, 2 * len(rows))
            fields = None if hopeless else repaired(line)
            row = None if fields is None else _row(fields)
            after = "dropped" if fields is None else f"read as '{b' '.join(fields).decode()}'"
            messages.append(f"{name} line {number}: '{_shown(line)}' {after}")
            n_dropped += row is None
        if row is not None:
            rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 6).T, messages, n_dropped


def _row(fields: list[bytes]) -> Row | None:
    """Six numbers, the colours 0..255; None when they are not."""
    if len(fields) != 6 or not all(_NUMBER.fullmatch(field) for field in fields):
        return None
    values = tuple(float(field) for field in fields)
    sound = all(abs(one) < 1e6 for one in values[:3]) and all(0 <= one <= 255 for one in values[3:])
    return values if sound else None


def repaired(line: bytes) -> list[bytes] | None:
    """The six fields that a damaged line was meant to have; None where that is unclear.

    An unprintable byte is left out, or else separates two numbers: whichever gives six sound fields, with as
    few separations as possible. A blank that tore a number apart is closed where only one place is possible.
    """
    if len(_UNPRINTABLE.findall(line)) > MOST_UNPRINTABLE:
        return None
    pieces = _RUN.split(line)
    whole = b"".join(pieces).split()
    gaps = [at for at in range(len(pieces) - 1) if pieces[at][-1:].strip() and pieces[at + 1][:1].strip()]
    n_blanks = 6 - len(whole)  # each blank in a gap makes one field more
    for blanks in itertools.combinations(gaps, n_blanks) if n_blanks >= 0 else ():
        text = b"".join(piece + b" " * (at in blanks) for at, piece in enumerate(pieces))
        fields = text.split()
        if _row(fields) is not None:
            return fields
    return _rejoined(whole)


def _rejoined(fields: list[bytes]) -> list[bytes] | None:
    """Seven fields as six, where exactly one pair is a number with decimals and further digits."""
    if len(fields) != 7:
        return None
    joined = [
        [*fields[:at], fields[at] + fields[at + 1], *fields[at + 2 :]]
        for at in range(6)
        if b"." in fields[at] and fields[at + 1].isdigit()
    ]
    sound = [one for one in joined if _row(one) is not None]
    return sound[0] if len(sound) == 1 else None


def _shown(line: bytes) -> str:
    """Printable, not too long."""
    text = "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in line[:80])
    return text + ("..." if len(line) > 80 else "")


def _shortened(messages: list[str], path: Path) -> tuple[str, ...]:
    rest = len(messages) - MOST_REPORTED
    return (
        tuple(messages)
        if rest <= 0
        else (*messages[:MOST_REPORTED], f"{path.name}: {rest} more damaged lines")
    )
