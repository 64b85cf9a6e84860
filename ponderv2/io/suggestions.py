"""Wrong names and wrong files: what was probably meant, and what a file really is."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def similar_path(missing: Path, folders_only: bool = False) -> Path | None:
    """Something beside it with nearly the same name."""
    if not missing.parent.is_dir():
        return None
    beside = [path.name for path in missing.parent.iterdir() if path.is_dir() or not folders_only]
    near = get_close_matches(missing.name, beside, n=1)
    return missing.parent / near[0] if near else None


_INSPECTED = 512
"""Bytes."""
_PACKED = (
    (b"\x1f\x8b", "packed by gzip", "unpack it: gunzip FILE"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\xfd7zXZ\x00", "packed by xz", "unpack it: unxz FILE"),
    (b"BZh", "packed by bzip2", "unpack it: bunzip2 FILE"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it: unzstd FILE"),
)
"""First bytes, what such a file is, and what to do."""


def actual_file_type(data: bytes) -> tuple[str, str] | None:
    """What a file really is and what to do, from its first bytes; None where nothing is known of it."""
    if not data:
        return "empty", "copy or download the file again"
    head = data[:_INSPECTED].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself", "git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps of a failed download", "download the file again"
    return next(((what, fix) for first, what, fix in _PACKED if data.startswith(first)), None)
