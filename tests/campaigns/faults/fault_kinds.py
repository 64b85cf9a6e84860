"""What can be wrong with a file or a value of it, as faults that are brought about one at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.campaigns.faults.bad_datasets import DAMAGES, Files

MISSING = object()
"""In place of a value: its key is not there."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    name: str
    change: Callable[[Files], None]
    words: tuple[str, ...]
    """One of them must be in a report: a name of the file, the token, the sensor."""
    silent: bool = False
    """No report is needed: what is wrong is not used, or may be meant."""


def file_faults(
    files: Files, part: str, path: str, *words: str, silent: tuple[str, ...] = ()
) -> Iterator[Fault]:
    """Every damage of one file."""
    odd = {"cut": lambda data: data[: len(data) // 2 | 1], "one byte less": lambda data: data[:-1]}
    kinds: dict[str, Callable[[bytes], bytes | None]] = {**DAMAGES, **odd}
    for kind, damage in kinds.items():

        def change(found: Files, damage: Callable[[bytes], bytes | None] = damage) -> None:
            changed = damage(found.pop(path))
            if changed is not None:
                found[path] = changed

        yield Fault(f"{part}: {kind}", change, words or (Path(path).name,), kind in silent)
    assert path in files, f"{path} is no file of {sorted(files)[:9]}"


def json_fault(name: str, path: str, edit: Callable[[Any], Any], *words: str, silent: bool = False) -> Fault:
    """A change of the values of a JSON file."""

    def change(found: Files) -> None:
        values = json.loads(found[path])
        edit(values)
        found[path] = json.dumps(values).encode()

    return Fault(name, change, words or (Path(path).name,), silent)


def text_fault(name: str, path: str, old: str, new: str, *words: str, silent: bool = False) -> Fault:
    """A change of the text of a file."""

    def change(found: Files) -> None:
        assert old.encode() in found[path], f"{old} is not in {path}"
        found[path] = found[path].replace(old.encode(), new.encode(), 1)

    return Fault(name, change, words or (Path(path).name,), silent)


def data_fault(name: str, path: str, data: bytes, *words: str, silent: bool = False) -> Fault:
    """Another content of a file."""
    return Fault(name, lambda found: found.update({path: data}), words or (Path(path).name,), silent)


def wrong_values(value: Any) -> dict[str, Any]:
    """Values of other types or ranges than the one that belongs there."""
    found: dict[str, Any] = {"missing": MISSING, "an object": {"a": 1}, "null": None}
    if not isinstance(value, str):
        found["text"] = "x"
    if not isinstance(value, list):
        found["a list"] = [value]
    if isinstance(value, str | list):
        found["a number"] = 5
    if isinstance(value, list):
        found |= {
            "one number": [1.0],
            "lists": [[1.0, 2.0], [3.0]],
            "words": ["a", "b", "c", "d"][: len(value)],
        }
    if isinstance(value, int | float) and not isinstance(value, bool):
        found |= {"infinite": float("inf"), "beyond 64 bits": 2**70, "negative": -5}
    return found


def value_faults(
    files: Files, path: str, at: tuple[Any, ...], silent: tuple[str, ...] = (), words: tuple[str, ...] = ()
) -> Iterator[Fault]:
    """Faults of one value in a JSON file, where `at` leads to."""
    value = json.loads(files[path])
    for key in at:
        value = value[key]
    for kind, wrong in wrong_values(value).items():

        def edit(values: Any, wrong: Any = wrong) -> None:
            for key in at[:-1]:
                values = values[key]
            if wrong is MISSING:
                del values[at[-1]]
            else:
                values[at[-1]] = wrong

        label = f"{path.rpartition('/')[2]} {'.'.join(map(str, at))}: {kind}"
        yield json_fault(label, path, edit, *words, silent=kind in silent or "all" in silent)


def scan_faults(files: Files, path: str, width: int) -> Iterator[Fault]:
    """Of rows of numbers."""
    rows = np.frombuffer(files[path], "<f4").reshape(-1, width)

    def changed(index: Any, value: float) -> bytes:
        made = rows.copy()
        made[index] = value
        return made.tobytes()

    words = ("not finite", Path(path).name, "far", "no points")
    yield data_fault("scan: nan in one point", path, changed((3, 0), np.nan), *words)
    yield data_fault("scan: all nan", path, changed(slice(None), np.nan), *words)
    yield data_fault("scan: points at infinity", path, changed((slice(0, 9), 1), np.inf), *words)
    yield data_fault("scan: points beyond any LiDAR", path, changed((slice(None), 0), 1e30), *words)


def files_below(root: Path) -> Files:
    """All of a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def image(size: tuple[int, int] = (64, 36), mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """A picture of one colour."""
    target = io.BytesIO()
    Image.new(mode, size, 90 if mode == "L" else (90, 120, 30)).save(target, kind)
    return target.getvalue()
