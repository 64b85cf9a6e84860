"""A reader that is fed with damaged input, and how the input reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz import seeds

Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Target:
    """A reader, the files it starts from and how they are damaged."""

    seeds: Callable[[], list[bytes]]
    prepare: Callable[[Path], Read]
    """Gives the function that reads one input, with a folder of its own."""
    kind: str = "bytes"
    """bytes, text, zip or png: see mutation.py."""


def one_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Read]:
    """The input as one file."""

    def prepare(folder: Path) -> Read:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def run(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        return run

    return prepare


def several_files(names: tuple[str, ...], read: Callable[[Path], Any], pictures: tuple[str, ...] = ()) -> Any:
    """The input as several files of a folder; `images` are there too and sound."""

    def prepare(folder: Path) -> Read:
        for name in (*names, *pictures):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name in pictures:
            values = seeds.depth() if "depth" in name else seeds.color()
            (folder / name).write_bytes(seeds.picture(values, "JPEG" if name.endswith("jpg") else "PNG"))

        def run(data: bytes) -> None:
            parts = data.split(seeds.SEPARATOR)
            for index, name in enumerate(names):
                (folder / name).write_bytes(parts[index] if index < len(parts) else b"")
            read(folder)

        return run

    return prepare
