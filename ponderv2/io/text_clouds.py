"""Tables of points in text: .xyz, .xyzn, .xyzrgb, .pts, .asc, .txt, .csv of any usual program.

Separators, decimal commas, headers, comments, counts of points and wrapped lines are recognised. What could
be read in two ways, and what is no table, is refused with the number of the line.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.point_columns import has_position, plain_name
from ponderv2.io.text import COMMENT, COMMENTS, decode_text, plain_notation

TEXT_FILES = (".xyz", ".xyzn", ".xyzrgb", ".txt", ".csv", ".asc", ".pts")
_NAMES_OF_ENDING = {".xyzn": ("x", "y", "z", "nx", "ny", "nz"), ".xyzrgb": ("x", "y", "z", "r", "g", "b")}
"""What six columns of these files are, where no header says it."""
_DECIMAL = re.compile(r"[-+]?\d*(,\d+)?([eE][-+]?\d+)?")
_DECIMALS_BESIDE_COMMAS = re.compile(r",0\d+(?=[,\s;])")
_GRID_WORDS = {"ncols", "nrows", "xllcorner", "yllcorner", "cellsize"}
_DEGREES = {"lat", "latitude", "lon", "lng", "long", "longitude"}
_INSPECTED = 20000
"""Characters that decide about marks between thousands."""
_GROUPED = {
    ",": re.compile(r"[-+]?\d{1,3}(,\d{3})+\.\d*"),
    ".": re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d*"),
}
_TO_BLANKS = str.maketrans(",;\t", "   ")
_EMPTY = "nan"
_EMPTY_FIELD = {one: re.compile(rf"{one}[ ]*(?:{one}|\n|$)|(?:^|\n)[ ]*{one}") for one in ("\t", ";", ",")}
_NOTHING = {"nan", "null", "none", "na", "n/a", "inf", "infinity"}
_COMMAS_TWICE = "commas separate the numbers and seem to be decimal points, too"
_BOTH_DECIMAL = "some numbers have decimal commas and others decimal points"
_OTHER_SEPARATOR = "export it with decimal points, or with another separator than the comma"
_ONE_A_LINE = "one point per line: x y z [r g b [nx ny nz]]"


@dataclass(frozen=True)
class PointTable:
    """Numbers of all points, and what a header calls them."""

    values: Float64[ndarray, "point column"]
    names: tuple[str, ...] = ()
    """As in the file, one per column; empty where no header names x, y and z."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Head:
    """What stands above the points."""

    start: int
    """Where the first line of a point begins."""
    line: int
    """Lines above it."""
    names: tuple[str, ...] = ()
    n_promised: int | None = None
    titles: tuple[str, ...] = ()
    """Other lines of words."""


def read_point_text(path: Path) -> PointTable:
    """The numbers of a text file of points. Raises SceneError naming the file and the line."""
    try:
        text = decode_text(path.read_bytes(), path)
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    head = _head(text, path)
    body = text[head.start :]
    body = plain_notation(body) if "#" in body or "\u2212" in body else body  # no point of 1.#IND counts
    body, separator, notes = _separated(body, path)
    values = None if separator and _EMPTY_FIELD[separator].search(body) else _quick(body)
    if values is None:
        values, more = _careful(body, separator, head, path)
        notes += more
    values, more = _unwrapped(values, head, path)
    notes += more
    if separator == "," and "." not in body and values.shape[1] == 2 * len(head.names):
        raise SceneError(f"{path}: {_COMMAS_TWICE}", fix=_OTHER_SEPARATOR)
    names = head.names
    if not names:
        unknown = [title for title in head.titles if len(_words(title)) == values.shape[1]]
        notes += [
            f"the header '{one[:60]}' names no x, y, z: columns go by their order" for one in unknown[-1:]
        ]
        if values.shape[1] == 6:
            names = _NAMES_OF_ENDING.get(path.suffix.lower(), ())
    return PointTable(values, names, tuple(notes))


def _head(text: str, path: Path) -> _Head:
    """Goes through the lines above the first point."""
    head = _Head(0, 0)
    while head.start < len(text):
        end = text.find("\n", head.start)
        end = len(text) if end < 0 else end
        line = text[head.start : end].strip()
        words = _words(line)
        if not line.startswith(COMMENTS) and len(words) >= 3 and _is_number(words[0]):
            return head
        head = _with_line(replace(head, start=end + 1, line=head.line + 1), line, words, path)
    raise SceneError(f"{path} holds no line of three numbers: it is no table of points", fix=_ONE_A_LINE)


def _with_line(head: _Head, line: str, words: list[str], path: Path) -> _Head:
    plain = {plain_name(word) for word in words}
    if len(plain & _GRID_WORDS) and len(words) == 2:
        raise SceneError(f"{path} is a raster of heights, not a table of points", fix="export it as x y z")
    if has_position(words):
        return replace(head, names=tuple(words))
    if len(plain & _DEGREES) >= 2:
        raise SceneError(f"{path} holds degrees of latitude and longitude", fix="export it in metres (UTM)")
    if len(words) == 1 and words[0].isdigit():
        return replace(head, n_promised=int(words[0]))
    named = line and not line.startswith(COMMENTS) and not _is_number(words[0])
    return replace(head, titles=(*head.titles, line)) if named else head


def _words(line: str) -> list[str]:
    """Of a header or of numbers, whatever separates them."""
    line = line.strip().lstrip("/#%").strip()
    for separator in ("\t", ";", ","):
        if separator in line:
            words = [word.strip().strip("\"'") for word in line.split(separator)]
            if separator != "," or not _is_decimal_comma(line):
                return words[:-1] if words and not words[-1] else words
    return [word.strip("\"'") for word in line.split()]


def _is_number(word: str) -> bool:
    if any(pattern.fullmatch(word) for pattern in _GROUPED.values()):
        return True
    try:
        float(plain_notation(word.replace(",", ".")))
    except ValueError:
        return False
    return True


def _is_decimal_comma(line: str) -> bool:
    """Whether blanks separate and commas are decimal points: 1,5 2,25 -3,0."""
    words = plain_notation(line).split()
    return len(words) >= 3 and all(_DECIMAL.fullmatch(word) or word in _NOTHING for word in words)


def _separated(body: str, path: Path) -> tuple[str, str, list[str]]:
    """The lines of points with decimal points, and what separates their numbers ("" = blanks)."""
    if '"' in body:
        body = body.replace('","', '";"').replace('"', "")
    first = COMMENT.sub("", body[: body.find("\n") if "\n" in body else len(body)])
    separator = next((one for one in ("\t", ";") if one in first), "")
    grouped = _grouped_digits(body[:_INSPECTED], separator)
    if grouped:
        body = body.replace(grouped, "").replace(",", ".")
        return body, separator, [f"'{grouped}' was read as a mark between thousands"]
    separator = separator or ("," if "," in first and not _is_decimal_comma(first) else "")
    if not separator and "," in first and "." in body:  # decimal commas: points belong to comments alone
        body = "\n".join(COMMENT.sub("", line) for line in body.split("\n"))
        if "." in body:
            raise SceneError(f"{path}: {_BOTH_DECIMAL}", fix="export it with decimal points")
    if "," not in body or "." in body:
        return body, separator, []
    if separator != ",":
        return body.replace(",", "."), separator, ["commas were read as decimal points"]
    if _DECIMALS_BESIDE_COMMAS.search(body):
        raise SceneError(f"{path}: {_COMMAS_TWICE}", fix=_OTHER_SEPARATOR)
    return body, separator, []


def _grouped_digits(body: str, separator: str) -> str:
    """The mark between thousands (1,234.5 or 1.234,5), "" where numbers have none."""
    fields = [field.strip() for line in body.split("\n")[:-1] for field in line.split(separator or None)]
    both = [field for field in fields if "," in field and "." in field]
    for mark, pattern in _GROUPED.items():
        if both and all(pattern.fullmatch(field) for field in both):
            return mark
    return ""


def _quick(body: str) -> ndarray | None:
    """Where every line holds equally many plain numbers; else None."""
    comments = [mark for mark in COMMENTS if mark in body]
    blank = body.translate(_TO_BLANKS)
    try:
        return np.loadtxt(io.StringIO(blank), np.float64, comments=comments or None, ndmin=2)
    except ValueError:
        return None


def _careful(body: str, separator: str, head: _Head, path: Path) -> tuple[ndarray, list[str]]:
    """Line by line: empty fields, words among the numbers, counts between blocks, wrapped lines."""
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, text in enumerate(body.split("\n"), head.line + 1):
        words = _fields(COMMENT.sub("", text), separator)
        if words and not (path.suffix.lower() == ".pts" and len(words) == 1 and words[0].isdigit()):
            rows.append(words)
            lines.append(line)
    if separator and all(row[-1] == _EMPTY for row in rows):
        rows = [row[:-1] for row in rows]
    widths = [len(row) for row in rows]
    width = _full_width(widths, head)
    if width is None:
        usual = max(set(widths), key=widths.count)
        odd = next(index for index, one in enumerate(widths) if one != usual)
        raise SceneError(
            f"{path}, line {lines[odd]}: {widths[odd]} numbers, other lines have {usual}",
            fix=f"mend or remove the line; expected {_ONE_A_LINE}",
        )
    flat = [word for row in rows for word in row]
    columns, notes = [], []
    for column in range(width):
        words = flat[column::width]
        numbers = _numbers(words)
        bad = np.flatnonzero(np.isnan(numbers) & ~_is_missing(words)) if np.isnan(numbers).any() else []
        if len(bad) > len(words) / 2:
            notes.append(f"column {column + 1} holds words and was left out")
        elif len(bad):
            line = lines[int(np.searchsorted(np.cumsum(widths), int(bad[0]) * width + column, "right"))]
            raise SceneError(
                f"{path}, line {line}: '{words[int(bad[0])][:40]}' is no number",
                fix="mend or remove the line",
            )
        columns.append(numbers)
    return np.stack(columns, axis=1), notes


def _fields(line: str, separator: str) -> list[str]:
    """Of one line; what is empty between two separators counts."""
    if not line.strip():
        return []
    if not separator:
        return line.translate(_TO_BLANKS).split()
    return [word for one in line.split(separator) for word in (one.translate(_TO_BLANKS).split() or [_EMPTY])]


def _full_width(widths: list[int], head: _Head) -> int | None:
    """Numbers per point: those of all lines, or of all points where their lines are wrapped alike."""
    if len(set(widths)) == 1:
        return widths[0]
    ends = set(np.cumsum(widths).tolist())
    total = sum(widths)
    wanted = [len(head.names)] if head.names else []
    wanted += [total // head.n_promised] if head.n_promised else []
    # A pattern of lines that repeats itself, such as x y z / r g b a.
    wanted += [
        sum(widths[:n]) for n in (2, 3, 4) if widths == (widths[:n] * (len(widths) // n + 1))[: len(widths)]
    ]
    for width in wanted:
        if width >= 3 and total % width == 0 and ends.issuperset(range(width, total + 1, width)):
            return width
    return None


def _numbers(words: list[str]) -> Float64[ndarray, " word"]:
    """nan for every word that is no number."""
    try:
        return np.array(words, np.float64)
    except ValueError:
        return np.array([_number(word) for word in words])


def _number(word: str) -> float:
    try:
        return float(plain_notation(word))
    except ValueError:
        return np.nan


def _is_missing(words: list[str]) -> ndarray:
    """Whether a word stands for a number that is missing."""
    return np.array([plain_notation(word).lower().lstrip("+-") in _NOTHING for word in words])


def _unwrapped(values: ndarray, head: _Head, path: Path) -> tuple[ndarray, list[str]]:
    """Points whose numbers go over several lines of one length, known by the header or the count."""
    n_names, n_promised = len(head.names), head.n_promised
    width = values.shape[1]
    if n_names > width and n_names % width == 0 and values.size % n_names == 0:
        return values.reshape(-1, n_names), [f"{n_names // width} lines were read as one point"]
    if n_promised and len(values) > n_promised and len(values) % n_promised == 0 and width == 3:
        return values.reshape(n_promised, -1), [f"{len(values) // n_promised} lines were read as one point"]
    if n_names > width:
        raise SceneError(
            f"{path}: the header names {n_names} columns, {', '.join(head.names)[:90]}; lines have {width}",
            fix="mend the header",
        )
    if n_promised is not None and n_promised > len(values):
        return values, [f"the file promises {n_promised} points and holds {len(values)}"]
    return values, []
