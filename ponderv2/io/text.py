"""Text as other programs save it: byte order marks, line ends, comments, and numbers in many notations."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.suggestions import actual_file_type

LARGEST_FILE = 256 * 2**20
"""Bytes. A larger text file is not a list of poses."""
COMMENTS = ("#", "%", "//")
"""A comment begins with one of these, at the start of a line or after a blank."""
_MARKS = (  # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
COMMENT = re.compile(r"(?:^|(?<=\s))(?:#|%|//).*")
"""From its mark to the end of the line."""
_PRINTED = re.compile(
    r"(?:\b(?:np|numpy|torch)\.)?\b(?:array|matrix|tensor)\(|,?\s*\b(?:dtype|device)=[\w.:'\"]+"
)
_BRACKETS = str.maketrans("[](){}", "      ", "")
_WINDOWS_NAN = re.compile(
    r"[-+]?\d[.,]#(?:INF|IND|QNAN|SNAN|NAN)\d*|[-+]?nan\((?:ind|snan|qnan)\)", re.IGNORECASE
)
_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+]?\d)")


def decode_text(data: bytes, name: Path | str) -> str:
    """The text of UTF-8, UTF-16 or UTF-32 with or without its mark; every line ends with a line feed.

    What is not valid UTF-8 becomes U+FFFD. Raises SceneError for a binary file, naming it `name`.
    """
    what = actual_file_type(data) if data else None
    if what is not None:
        raise SceneError(f"{name} is no text file: it is {what[0]}", fix=what[1])
    data = data.rstrip(b"\0\x1a") if data[:4].count(0) == 0 else data  # what DOS and crashes leave at the end
    encoding = _encoding(data, name)
    text = data.decode(encoding, errors="replace").replace("\ufeff", "")  # marks of joined files, too
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The decoded text of a file; SceneError when it cannot be read, is too large or binary."""
    try:
        if path.stat().st_size > largest:
            raise SceneError(f"{path} is too large to be a text file of a recording")
        return decode_text(path.read_bytes(), path)
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error


def content_lines(text: str) -> list[str]:
    """Lines without comments and outer blanks; empty ones are left out."""
    stripped = (COMMENT.sub("", line).strip() for line in text.split("\n"))
    return [line for line in stripped if line]


def words(text: str, decimal_comma: bool = False) -> list[str]:
    """What stands between blanks, commas, semicolons and brackets, without comments.

    What numpy and torch print around an array is ignored, and numbers are written as `float` reads them.
    With `decimal_comma` a comma between digits is a decimal point.
    """
    text = "\n".join(content_lines(text))
    text = plain_notation(_PRINTED.sub(" ", text).translate(_BRACKETS))
    if decimal_comma:
        text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    return [word for word in re.split(r"[\s,;]+", text) if word]


def plain_notation(text: str) -> str:
    """Numbers as `float` reads them: exponents of Fortran (1.5d0), the minus of typography, nan of Windows.

    Windows prints 1.#IND, 1.#INF or -nan(ind): all become nan.
    """
    return _FORTRAN.sub("e", _WINDOWS_NAN.sub("nan", text.replace("\u2212", "-")))


def float_words(words: Sequence[bytes | str]) -> Float[ndarray, " word"]:
    """Words as numbers, in any of the notations of `plain_notation`; without points, commas are decimal.

    Raises ValueError for a word that is no number.
    """
    try:
        return np.array(words, np.float64)
    except ValueError:
        text = [word.decode("utf-8", errors="replace") if isinstance(word, bytes) else word for word in words]
        comma = not any("." in word and "#" not in word for word in text)
        return np.array([float(plain_notation(word.replace(",", ".") if comma else word)) for word in text])


def numbers(text: str, decimal_comma: bool = False) -> Float[ndarray, " number"]:
    """All `words` of a text as numbers, nan and inf among them. Raises ValueError for any other word."""
    return np.array([float(word) for word in words(text, decimal_comma)], np.float64)


def numbers_of_count(text: str, counts: tuple[int, ...]) -> Float[ndarray, " number"]:
    """Like `numbers`; without decimal points, commas are decimal where the count is then one of `counts`.

    The count of the result may still be another one. Raises ValueError as `numbers` does.
    """
    if "," in text and "." not in text:
        with contextlib.suppress(ValueError):  # 1,0,0,0 is no number
            found = numbers(text, decimal_comma=True)
            if len(found) in counts:
                return found
    return numbers(text)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; comment lines are ignored. SceneError, with line and column, for anything else."""
    values = parse_json(read_text(path), path)
    if not isinstance(values, dict):
        raise SceneError(f"{path} is not a JSON object")
    return values


def parse_json(text: str, name: Path | str) -> Any:
    """Any JSON value; SceneError names line and column of what is wrong."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        plain = "\n".join("" if line.lstrip().startswith(COMMENTS) else line for line in text.split("\n"))
        try:
            return json.loads(plain)
        except (ValueError, RecursionError):
            where = "open it at that place, or export it again" if text.strip() else "the file is empty"
            raise SceneError(f"{name} is not readable JSON ({error})", fix=where) from error


def _encoding(data: bytes, name: Path | str) -> str:
    """By the mark; without one, UTF-16 is known by the zero bytes of its Latin letters and digits."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    head = np.frombuffer(data[:4096], np.uint8)
    if head.all():
        return "utf-8"
    pairs = np.append(head, np.zeros(len(head) % 2, np.uint8)).reshape(-1, 2)
    even, odd = (pairs == 0).mean(axis=0)
    if odd > 0.9 and even < 0.1:
        return "utf-16-le"
    if even > 0.9 and odd < 0.1:
        return "utf-16-be"
    raise SceneError(f"{name} is a binary file, expected text", fix="give a text file (UTF-8)")


_ALLOWED = b"0123456789.-+ \n"


def parse_rows(text: bytes, width: int) -> Float64[ndarray, "width row"] | None:
    """Numbers of lines that all have `width` of them, one blank between two; the text ends with a line end.

    Nothing is guessed: None where a line is anything else, or holds another character than those of plain
    decimal numbers.
    """
    n_rows = text.count(b"\n")
    if text.translate(None, _ALLOWED) or text.count(b" ") != (width - 1) * n_rows:
        return None
    try:
        table = np.loadtxt(
            io.StringIO(text.decode("ascii")), np.float64, comments=None, delimiter=" ", ndmin=2
        )
    except ValueError:
        return None
    numbers = np.ascontiguousarray(table.T)
    return numbers if numbers.shape == (width, n_rows) and np.isfinite(numbers).all() else None
