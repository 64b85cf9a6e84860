"""Whether a scene has to be prepared anew: settings, names and every byte of the files it is made from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ponderv2.config import StrictConfig
from ponderv2.io.files import digest_of_files, files_below

READERS_VERSION = 2
"""Raised whenever the same files and settings give other scenes, so that stored ones are made anew."""


def fingerprint(root: Path, files: Iterable[Path], *texts: str) -> str:
    """SHA-256 of texts and of the contents of files, by their names relative to `root`.

    Neither the times of files nor the place of `root` count. Every file is read whole.
    """
    pairs = ((_relative(path, root), path) for path in files)
    return digest_of_files(pairs, f"{READERS_VERSION}", *texts)


def _relative(path: Path, root: Path) -> str:
    try:
        return os.path.relpath(path, root)
    except ValueError:  # on another drive of Windows
        return str(path)


def files_of_settings(config: StrictConfig, without: Iterable[str] = ("path",)) -> list[Path]:
    """The files that settings name (cameras, lists), those of named folders included."""
    values = [value for name, value in config if name not in without and isinstance(value, Path)]
    return [one for value in values for one in (files_below(value) if value.is_dir() else [value])]
