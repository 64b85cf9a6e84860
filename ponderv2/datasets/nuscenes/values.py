"""Values of the records of the tables of nuScenes: each is checked, what leads nowhere is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponderv2.datasets.lidar_files import is_file_name
from ponderv2.datasets.nuscenes.tables import AGAIN, Record
from ponderv2.errors import SceneError


def token_key(token: Any) -> bytes | str:
    """What stands for a token in the index: half the bytes where it is hexadecimal."""
    if not isinstance(token, str):
        raise TypeError(f"a token is text, not {token!r}"[:80])
    if len(token) == 32:
        try:
            made = bytes.fromhex(token)
        except ValueError:
            return token
        if made.hex() == token:
            return made
    return token


def token_text(key: bytes | str) -> str:
    """The token of a key."""
    return key.hex() if isinstance(key, bytes) else key


def inside(name: Any) -> str | None:
    """The name of a file below the folder of the data; None where it leads out of it, or is no name."""
    if not isinstance(name, str) or not is_file_name(name) or "\\" in name or ":" in name.split("/")[0]:
        return None
    return None if name.startswith("/") or ".." in name.split("/") else name


def pose_of(one: Record) -> tuple[float, ...]:
    """Translation and quaternion (w, x, y, z); SQLite stores not-a-number as NULL."""
    x, y, z = map(number_of, one["translation"])
    qw, qx, qy, qz = map(number_of, one["rotation"])
    return x, y, z, qw, qx, qy, qz


def number_of(value: Any) -> float:
    """A number; nan for null. Raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"expected a number, got {value!r}"[:80])
    return math.nan if value is None else float(value)


def whole_of(value: Any) -> int:
    """A whole number of 64 bits. Raises TypeError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != int(value)
        or abs(value) >= 2**63
    ):
        raise TypeError(f"expected a whole number, got {value!r}"[:80])
    return int(value)


def text_of(value: Any) -> str:
    """A name. Raises TypeError for anything but text."""
    if not isinstance(value, str):
        raise TypeError(f"a name is text, not {value!r}"[:80])
    return value


def flag_of(value: Any) -> bool:
    """True or false. Raises TypeError."""
    if value not in (True, False):
        raise TypeError(f"expected true or false, got {value!r}"[:80])
    return bool(value)


def token_or_none(token: Any) -> bytes | str | None:
    """What stands for a token in the index; None where there is none."""
    return token_key(token) or None


@dataclass
class References:
    """References of one kind from the records of a table."""

    what: str
    of: str
    table: str
    """That holds what they lead to."""
    total: int = 0
    lost: int = 0
    example: str = ""

    def count(self, lost: tuple[int, Any], total: int) -> None:
        """Takes what a query counted: how many lead nowhere, and one of their tokens in hexadecimal."""
        self.lost, self.example, self.total = lost[0], str(lost[1] or "").lower(), total

    def follow(self, found: Any, token: Any) -> bool:
        """Counts one; whether it leads anywhere."""
        self.total += 1
        if found is not None:
            return True
        self.lost += 1
        self.example = self.example or str(token)
        return False

    def problem(self) -> str | None:
        """What is to be reported. Raises SceneError where most lead nowhere."""
        if not self.lost:
            return None
        place = f"in {self.table}.json" if self.table else "below the folder of the data"
        words = (
            f"{self.lost} of {self.total} {self.of} name {self.what} that is not {place} "
            f"('{self.example[:40]}')"
        )
        if 2 * self.lost > self.total and not self.table:
            raise SceneError(words, fix="names of files start at the folder of samples/ and sweeps/")
        if 2 * self.lost > self.total:
            raise SceneError(f"{words}: the tables are of different versions", fix=AGAIN)
        return f"{words}; they are left out"


@dataclass(frozen=True)
class Reported:
    """Turns what is wrong with a record into a message."""

    path: Path
    number: int

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | OverflowError):
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SceneError(
                f"record {self.number} of {self.path} cannot be used: {why}", fix=AGAIN
            ) from error
