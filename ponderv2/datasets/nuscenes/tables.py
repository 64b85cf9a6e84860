"""The tables of nuScenes: JSON lists of records, read one record at a time.

The largest have millions of records and more bytes than the memory of a small machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ponderv2.errors import SceneError
from ponderv2.io.suggestions import actual_file_type

NEEDED = (
    "scene", "sample", "sample_data", "sensor", "calibrated_sensor", "ego_pose", "sample_annotation",
    "instance", "category", "attribute",
)  # fmt: skip
"""Tables that every version has, also that of the test scenes, whose annotations are empty."""
OPTIONAL = ("lidarseg", "log")
CHUNK = 4 * 2**20
"""Characters that are read at once."""
LONGEST_RECORD = 2**20
"""Characters; an ordinary one has a few hundred."""
AGAIN = "extract the archive of the tables again"
SPACE = " \t\r\n,"
Record = dict[str, Any]


def records(path: Path) -> Iterator[Record]:
    """Every record of a table. Raises SceneError: missing, cut off, or no list of records."""
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(CHUNK).removeprefix("\ufeff")  # a byte order mark
            position = _skip(text, 0)
            if text[position : position + 1] != "[":
                raise _damaged(path, _what(path) or "it is no list")
            position += 1
            while True:
                position = _skip(text, position)
                if text[position : position + 1] == "]":
                    return
                try:
                    record, end = decoder.raw_decode(text, position)
                except json.JSONDecodeError as error:
                    more = stream.read(CHUNK) if len(text) - position < LONGEST_RECORD else ""
                    if not more:
                        raise _damaged(path, f"it is cut off or no JSON: {error.msg}") from error
                    text, position = text[position:] + more, 0
                    continue
                if not isinstance(record, dict):
                    raise _damaged(path, "it is no list of records")
                position = end
                yield record
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise _unreadable(path, error) from error


def estimated_records(path: Path) -> int:
    """About how many records a table has, by those in its first bytes."""
    with path.open("rb") as stream:
        start = stream.read(2**16)
    return max(start.count(b'"token"') * path.stat().st_size // max(len(start), 1), 1)


def read_small(path: Path) -> Any:
    """Everything in a JSON file. Raises SceneError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _skip(text: str, position: int) -> int:
    """Past white space and commas."""
    while position < len(text) and text[position] in SPACE:
        position += 1
    return position


def _unreadable(path: Path, error: Exception) -> SceneError:
    if isinstance(error, FileNotFoundError):
        return SceneError(f"no table {path}", fix=AGAIN)
    return _damaged(path, error.strerror or str(error) if isinstance(error, OSError) else str(error))


def _what(path: Path) -> str | None:
    with path.open("rb") as stream:
        found = actual_file_type(stream.read(512))
    return None if found is None else f"it is {found[0]}"


def _damaged(path: Path, why: str) -> SceneError:
    return SceneError(f"the table {path} cannot be read: {why[:200]}", fix=AGAIN)
