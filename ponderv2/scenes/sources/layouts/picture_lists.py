"""Pairs of colour and depth pictures by their common name or number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ponderv2.errors import SceneError

PICTURES = {".jpg", ".jpeg", ".png"}


def pictures_in(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by the first number in their name, as text (or the name when it has none)."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            found.setdefault(frame_id(path.stem), path)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def frame_id(stem: str) -> str:
    """The first number of a name without leading zeros, or the name itself."""
    match = re.search(r"\d+", stem)
    return str(int(match.group())) if match else stem


def common_ids(folder: Path, **parts: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Ids that all parts have, in order, and a sentence per part that lacks some.

    Raises SceneError when nothing is left.
    """
    sets = {name: set(ids) for name, ids in parts.items()}
    everything = set().union(*sets.values())
    common = set.intersection(*sets.values())
    if not common:
        counts = ", ".join(f"{len(ids)} {name}" for name, ids in sets.items())
        raise SceneError(f"no frames in {folder}: found {counts}, none with a common number")
    repairs = tuple(
        f"{len(everything - ids)} frames without {name} were left out ({_some(everything - ids)})"
        for name, ids in sets.items()
        if everything - ids
    )
    return sorted(common, key=lambda one: (len(one), one)), repairs


def _some(ids: set[str]) -> str:
    first = sorted(ids, key=lambda one: (len(one), one))
    return ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")
