"""Anybody's posed RGB-D recording: find it, recognise its layout, plan one job per recording."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.rgbd.config import GenericConfig, RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.io.suggestions import near_neighbour
from ponderv2.scenes.prepared import PreparedScene
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.sources.fingerprints import files_of_settings, fingerprint, recording_files
from ponderv2.scenes.sources.given_path import advice_for_folder, folder_of_recording
from ponderv2.scenes.sources.layouts import LAYOUTS, detect_layout
from ponderv2.scenes.sources.layouts.generic_parts import named_parts
from ponderv2.scenes.sources.source import SourcePlan

DEEPEST = 2
"""Levels below the given folder at which recordings are looked for."""
PICTURES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".tif", ".tiff", ".sens")
CLOUD_BYTES = 8_000_000
"""Of a room's cloud at the usual cell, for the estimate of disk space."""


@dataclass(frozen=True)
class RgbdJob:
    """One recording."""

    split: str
    name: str
    path: Path
    layout: str
    config: RgbdConfig

    def fingerprint(self) -> str:
        """Settings, the files that are named in them, and names and contents of the recording's files."""
        kept = self.config.model_dump(mode="json", exclude={"path", "split", "val_scenes", "name", "dataset"})
        root, file = (self.path, "") if self.path.is_dir() else (self.path.parent, self.path.name)
        files = [*recording_files(self.path, self.layout), *files_of_settings(self.config)]
        if self.layout == "generic":
            files += [one for one in named_parts(self.path, self.config.generic) if one.is_file()]
        return fingerprint(root, files, self.layout, file, str(kept))

    def estimated_bytes(self) -> int:
        """About the size of the pictures that are taken, and of a fused cloud."""
        sizes = [
            one.stat().st_size for one in self._files() if one.suffix.lower() in PICTURES and one.is_file()
        ]
        share = 1.0 / self.config.stride
        if self.config.max_frames is not None and len(sizes) > 2:  # a colour and a depth picture per frame
            share = min(share, 2 * self.config.max_frames / len(sizes))
        return int(sum(sizes) * share) + CLOUD_BYTES

    def _files(self) -> list[Path]:
        """All files that belong to it; a JSON file names others beside it."""
        if self.path.is_dir():
            return sorted(self.path.rglob("*"))
        return sorted(self.path.parent.rglob("*")) if _is_json(self.path) else [self.path]

    def prepare(self) -> PreparedScene:
        """Read the recording and register, fuse and turn it."""
        from ponderv2.scenes.sources.rgbd_scene import prepare_recording

        return prepare_recording(LAYOUTS[self.layout].read(self.path, self.config), self.path, self.config)


def find(config: RgbdConfig) -> SourcePlan:
    """One job per recording. Raises SceneError when there is none, saying what was looked for."""
    root = config.path
    if not root.exists():
        near = near_neighbour(root)
        raise SceneError(f"no file or folder {root}", fix=f"give {near or 'the path of a recording'}")
    _refuse_missing_files(config)
    root, given = folder_of_recording(root, lambda path: _layout_of(path, config.layout) is not None)
    try:
        recordings = _recordings(root, config.layout, config.generic)
    except OSError as error:
        raise SceneError(
            f"cannot read {error.filename or root}: {error.strerror}", fix="give the folder of one recording"
        ) from error
    if not recordings:
        advice = advice_for_folder(root, lambda path: _layout_of(path, config.layout) is not None)
        raise SceneError(_nothing_found(root, config.layout), fix=advice or _known_layouts(config.layout))
    names = _names(root, [path for path, _ in recordings], config.name)
    jobs = tuple(
        RgbdJob(_split(name, config), name, path, layout, config)
        for name, (path, layout) in zip(names, recordings, strict=True)
    )
    layouts = sorted({job.layout for job in jobs})
    how = "recognised" if config.layout == "auto" else "forced"
    notes = (f"layout {', '.join(layouts)} ({how}), recordings: {len(jobs)} in {root}",)
    notes = (given, *notes) if given else notes
    splits = tuple(dict.fromkeys((config.split, *(job.split for job in jobs))))
    warnings = _left_out(root, [path for path, _ in recordings])
    return SourcePlan(DatasetInfo(config.dataset, splits=splits), jobs, notes, warnings)


def _left_out(root: Path, recordings: list[Path]) -> tuple[str, ...]:
    """Folders beside recordings that are none, as a recording without its poses is."""
    if recordings == [root]:
        return ()
    beside = {one for path in recordings for one in path.parent.iterdir() if one.is_dir()}
    others = sorted(one for one in beside.difference(recordings) if any(one.iterdir()))
    if not others:
        return ()
    named = ", ".join(str(one.relative_to(root)) for one in others[:5]) + (", ..." if len(others) > 5 else "")
    return (f"{len(others)} folders have no layout of a recording that is known and were left out: {named}",)


def _refuse_missing_files(config: RgbdConfig) -> None:
    """Files of cameras that the settings name: one message in place of one per recording."""
    for name in ("intrinsics", "color_intrinsics", "depth_to_color"):
        file: Path | None = getattr(config, name)
        if file is not None and not file.is_file():
            raise SceneError(f"no file {file}, which source.{name} names", fix="give the path of the file")


def _recordings(root: Path, layout: str, given: GenericConfig) -> list[tuple[Path, str]]:
    """The folder itself, or else the folders below it; .sens files of one folder are one recording each."""
    if root.is_dir() and layout in ("auto", "sens"):
        files = sorted(root.glob("*.sens"))
        if len(files) > 1:
            return [(path, "sens") for path in files]
    own = "generic" if layout == "generic" and given.depth is not None else _layout_of(root, layout)
    if own is not None:
        return [(root, own)]
    level = [root] if root.is_dir() else []
    for _ in range(DEEPEST):
        level = [path for folder in level for path in sorted(folder.iterdir()) if path.is_dir()]
        found = [(path, name) for path in level if (name := _layout_of(path, layout)) is not None]
        if found:
            return found
    return []


def _layout_of(path: Path, layout: str) -> str | None:
    if layout == "auto":
        return detect_layout(path)
    return layout if LAYOUTS[layout].matches(path) else None


def _names(root: Path, paths: list[Path], name: str | None) -> list[str]:
    if name is not None and len(paths) == 1:
        return [_clean(name)]
    if len(paths) == 1 and paths[0] == root:
        whole = root.resolve()
        return [
            _clean(whole.parent.name if _is_json(whole) else whole.stem if root.is_file() else whole.name)
        ]
    return [_clean("_".join(path.relative_to(root).with_suffix("").parts)) for path in paths]


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _clean(name: str) -> str:
    """A folder name that needs no quoting."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "scene"


def _split(name: str, config: RgbdConfig) -> str:
    return "val" if any(fnmatch.fnmatch(name, pattern) for pattern in config.val_scenes) else config.split


def _nothing_found(root: Path, layout: str) -> str:
    return (
        f"no RGB-D recording in {root}" if layout == "auto" else f"{root} does not have the layout '{layout}'"
    )


def _known_layouts(layout: str) -> str:
    if layout != "auto":
        return f"a recording of this layout holds {LAYOUTS[layout].expects}"
    known = "; ".join(f"{name}: {one.expects}" for name, one in LAYOUTS.items() if one.recognised)
    return f"expected one of: {known}; or give --layout generic: {LAYOUTS['generic'].expects}"
