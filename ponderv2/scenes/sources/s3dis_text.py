"""Rows `x y z r g b` of S3DIS text files: quick where the text is sound, put right where it is not.

The archive holds a few damaged bytes: a NUL between two numbers, control characters inside a number. What was
done to a line is told, with file and line number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.text import parse_rows

BLOCK = 1 << 20
"""Bytes that are parsed at once; a damaged line slows down its own block only."""
MOST_TOLD = 20
"""Lines of one file that are told one by one."""
MOST_DAMAGED = 0.5
"""Share of lines without points, above which the file is something else."""
# `++`: digits are never given back, which would take quadratic time.
_NUMBER = re.compile(rb"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?")
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")
_RUN = re.compile(rb"[^\x20-\x7e]+")
MOST_UNPRINTABLE = 6
"""In one line; with more of them nothing is guessed."""
MANY_DROPPED = 1000
"""Lines without points, after which a file that has more of them than of others is given up."""

Row = tuple[float, ...]


@dataclass(frozen=True)
class PointRows:
    """The points of one file."""

    coord: Float64[ndarray, "point 3"]
    """Metres, z up."""
    color: UInt8[ndarray, "point 3"]
    repairs: tuple[str, ...] = ()
    """One sentence per line that was put right or dropped."""


def read_points(path: Path) -> PointRows:
    """All points of a file. Raises SceneError when it cannot be read or is no list of points."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_points(text, path)


def parse_points(text: bytes, path: Path) -> PointRows:
    """Points of the text of a file; `path` is for messages. Raises SceneError when most lines are none."""
    parts: list[ndarray] = [np.empty((6, 0))]
    told: list[str] = []
    n_lines, n_dropped = 0, 0
    for block in _blocks(text):
        rows = parse_rows(block, 6)
        if rows is None or not _are_colors(rows[3:]):
            rows, sentences, dropped = _careful_rows(block, n_lines, "/".join(path.parts[-4:]))
            told += sentences
            n_dropped += dropped
        parts.append(rows)
        n_lines += block.count(b"\n")
        if n_dropped > max(MANY_DROPPED, MOST_DAMAGED * n_lines):
            break
    if n_dropped > MOST_DAMAGED * max(n_lines, 1):
        raise SceneError(
            f"{path} is no list of points: {n_dropped} of {n_lines} lines are not `x y z r g b`",
            fix="unpack the archive again",
        )
    numbers = np.concatenate(parts, axis=1)
    color = np.ascontiguousarray(numbers[3:].T.astype(np.uint8))
    return PointRows(np.ascontiguousarray(numbers[:3].T), color, _shortened(told, path))


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
    told: list[str] = []
    n_dropped = 0
    for number, line in enumerate(block.split(b"\n")[:-1], n_before + 1):
        row = _row(line.split())
        if row is None and line.strip():
            hopeless = n_dropped > max(MANY_DROPPED, 2 * len(rows))
            fields = None if hopeless else repaired(line)
            row = None if fields is None else _row(fields)
            after = "dropped" if fields is None else f"read as '{b' '.join(fields).decode()}'"
            told.append(f"{name} line {number}: '{_shown(line)}' {after}")
            n_dropped += row is None
        if row is not None:
            rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 6).T, told, n_dropped


def _row(fields: list[bytes]) -> Row | None:
    """Six numbers, the colours 0..255; None when they are not."""
    if len(fields) != 6 or not all(_NUMBER.fullmatch(field) for field in fields):
        return None
    values = tuple(float(field) for field in fields)
    sound = all(abs(one) < 1e6 for one in values[:3]) and all(0 <= one <= 255 for one in values[3:])
    return values if sound else None


def repaired(line: bytes) -> list[bytes] | None:
    """The six fields that a damaged line was meant to have; None where that cannot be told.

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


def _shortened(told: list[str], path: Path) -> tuple[str, ...]:
    rest = len(told) - MOST_TOLD
    return tuple(told) if rest <= 0 else (*told[:MOST_TOLD], f"{path.name}: {rest} more damaged lines")
