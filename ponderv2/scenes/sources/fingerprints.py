"""Whether a scene has to be prepared anew: settings, names and every byte of the files it is made from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from ponderv2.config import StrictConfig
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_files, files_below
from ponderv2.scenes.sources.capture import MaskFile, PictureFile
from ponderv2.scenes.sources.layouts import LAYOUTS
from ponderv2.store.store import INFO_FILE

READERS_VERSION = 1
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


def recording_files(path: Path, layout: str) -> list[Path]:
    """All files that a recording may be read from: those below its folder, and those that it names elsewhere.

    The folder of a recording that is given by its JSON file is the one around it. Hidden files and folders of
    prepared scenes are none of it.
    """
    if not path.is_dir() and path.suffix.lower() != ".json":
        return [path]
    folder = path if path.is_dir() else path.parent
    found = files_below(folder)
    stores = {one.parent for one in found if one.name == INFO_FILE} - {folder}
    inside = [one for one in found if stores.isdisjoint(one.parents)]
    beside = {folder.parent / name.format(name=folder.name) for name in LAYOUTS[layout].beside}
    others = {one for one in beside if one.is_file()} | _named_elsewhere(path, layout)
    return [*inside, *sorted(others - set(inside))]


def files_of_settings(config: StrictConfig, without: Iterable[str] = ("path",)) -> list[Path]:
    """The files that settings name (cameras, lists), those of named folders included."""
    values = [value for name, value in config if name not in without and isinstance(value, Path)]
    return [one for value in values for one in (files_below(value) if value.is_dir() else [value])]


def _named_elsewhere(path: Path, layout: str) -> set[Path]:
    """Images and masks of a list (transforms.json, rgb.txt) and the cloud, which may lie elsewhere."""
    if not LAYOUTS[layout].recognised:  # what it reads depends on the settings, which name it
        return set()
    try:
        capture = LAYOUTS[layout].read(path)
    except (SceneError, OSError):  # reported when the recording is prepared
        return set()
    values = (getattr(frame, field.name) for frame in capture.frames for field in fields(frame))
    pictures = {one.path for one in values if isinstance(one, PictureFile | MaskFile)}
    return pictures if capture.cloud is None else pictures | {capture.cloud}
