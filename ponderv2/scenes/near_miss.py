"""What was not found, and what was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def near_neighbour(missing: Path, folders_only: bool = False) -> Path | None:
    """Something beside it with nearly the same name."""
    if not missing.parent.is_dir():
        return None
    beside = [path.name for path in missing.parent.iterdir() if path.is_dir() or not folders_only]
    near = get_close_matches(missing.name, beside, n=1)
    return missing.parent / near[0] if near else None
