"""Posed RGB-D recordings: find them, recognise their layout, list their scenes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from ponderv2.datasets.reader import DatasetReader, files_of_settings, fingerprint
from ponderv2.datasets.recordings import ImageFile, MaskFile
from ponderv2.datasets.rgbd.config import GenericConfig, RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS, detect_layout
from ponderv2.datasets.rgbd.layouts.generic import named_parts
from ponderv2.errors import SceneError
from ponderv2.io.files import files_below
from ponderv2.io.suggestions import similar_path
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import INFO_FILE, DatasetInfo

DEEPEST = 2
"""Levels below the given folder at which recordings are looked for."""
IMAGES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".tif", ".tiff", ".sens")
CLOUD_BYTES = 8_000_000
"""Size of a room's cloud at the usual voxel size, for the estimate of disk space."""
LEVELS_UP = 3
"""Folders above a file in which its recording is looked for."""
GENERIC = "then `ponder prepare rgbd DIR --layout generic` reads the folder (docs/formats.md)"
_ARCHIVE = "unpack it and give the folder"
_POINTS = "ponder features CHECKPOINT --cloud FILE --out FILE reads point clouds and meshes"
_LOG = f"export its colour and depth images and its poses, {GENERIC}"
_OTHER_FILES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (".r3d",),
        "a Record3D archive",
        "export the recording as EXR + RGB and give that folder",
    ),
    ((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "an archive", _ARCHIVE),
    ((".bag", ".mcap", ".db3", ".mkv", ".svo", ".oni", ".klg"), "the log of a sensor", _LOG),
    ((".db",), "a database", _LOG),
    (
        (".mp4", ".mov", ".avi", ".m4v", ".webm"),
        "a video, which has no depth",
        f"record depth too; {GENERIC}",
    ),
    (
        (".ply", ".obj", ".glb", ".gltf", ".usdz", ".las", ".laz", ".pcd", ".e57", ".stl"),
        "no recording",
        _POINTS,
    ),
)


@dataclass(frozen=True)
class RgbdScene:
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
        """Roughly the size of the selected images and of a fused cloud."""
        sizes = [
            one.stat().st_size for one in self._files() if one.suffix.lower() in IMAGES and one.is_file()
        ]
        share = 1.0 / self.config.stride
        if self.config.max_frames is not None and len(sizes) > 2:  # a colour and a depth image per frame
            share = min(share, 2 * self.config.max_frames / len(sizes))
        return int(sum(sizes) * share) + CLOUD_BYTES

    def _files(self) -> list[Path]:
        """All files of the recording, including those that its JSON files name."""
        if self.path.is_dir():
            return sorted(self.path.rglob("*"))
        return sorted(self.path.parent.rglob("*")) if _is_json(self.path) else [self.path]

    def read(self) -> SceneStream:
        """Read the recording, register it and rotate it upright."""
        from ponderv2.datasets.rgbd.scene import read_recording

        return read_recording(LAYOUTS[self.layout].read(self.path, self.config), self.path, self.config)


def find(config: RgbdConfig) -> DatasetReader:
    """All recordings. Raises SceneError when there is none, saying what was looked for."""
    root = config.path
    if not root.exists():
        near = similar_path(root)
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
    scenes = tuple(
        RgbdScene(_split(name, config), name, path, layout, config)
        for name, (path, layout) in zip(names, recordings, strict=True)
    )
    layouts = sorted({scene.layout for scene in scenes})
    how = "recognised" if config.layout == "auto" else "forced"
    notes = (f"layout {', '.join(layouts)} ({how}), recordings: {len(scenes)} in {root}",)
    notes = (given, *notes) if given else notes
    splits = tuple(dict.fromkeys((config.split, *(scene.split for scene in scenes))))
    warnings = _left_out(root, [path for path, _ in recordings])
    return DatasetReader(DatasetInfo(config.dataset, splits=splits), scenes, notes, warnings, root=root)


def _left_out(root: Path, recordings: list[Path]) -> tuple[str, ...]:
    """Folders beside recordings that are not recordings, for instance because poses are missing."""
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


def _named_elsewhere(path: Path, layout: str) -> set[Path]:
    """Images and masks of a list (transforms.json, rgb.txt) and the cloud, which may lie elsewhere."""
    if not LAYOUTS[layout].recognised:  # what it reads depends on the settings, which name it
        return set()
    try:
        recording = LAYOUTS[layout].read(path)
    except (SceneError, OSError):  # reported when the recording is prepared
        return set()
    values = (getattr(frame, field.name) for frame in recording.frames for field in fields(frame))
    images = {one.path for one in values if isinstance(one, ImageFile | MaskFile)}
    return images if recording.cloud is None else images | {recording.cloud}


def folder_of_recording(path: Path, is_recording: Callable[[Path], bool]) -> tuple[Path, str]:
    """The path itself, or for a file of a recording its folder with a note that says so.

    Raises SceneError for files that are no part of a recording: what they are, and what to do instead.
    """
    if path.is_dir() or (is_recording(path) and not _names_its_folder(path)):
        return path, ""
    for folder in list(path.absolute().parents)[:LEVELS_UP]:
        if is_recording(folder):
            shown = _as_given(path, folder)
            return shown, f"{path.name} is a file of the recording {shown}, which was taken"
    if is_recording(path):
        return path, ""
    for endings, what, fix in _OTHER_FILES:
        if path.suffix.lower() in endings:
            raise SceneError(f"{path} is {what}, expected the folder of an RGB-D recording", fix=fix)
    raise SceneError(
        f"{path} is a file, and no folder above it is an RGB-D recording",
        fix="give the folder of a recording",
    )


def advice_for_folder(root: Path, is_recording: Callable[[Path], bool]) -> str | None:
    """How to fix a folder without a known layout; None when there is no advice."""
    for folder in list(root.absolute().parents)[:LEVELS_UP]:
        if is_recording(folder):
            return f"give {_as_given(root, folder)}, the folder of the whole recording"
    for look, fix in _EXPORTS:
        if any(look(folder) for folder in (root, *_subfolders(root))):
            return fix
    archives = sorted(one.name for one in root.iterdir() if one.suffix.lower() in _OTHER_FILES[1][0])
    if archives and not _subfolders(root):
        return f"unpack {archives[0]} and give its folder"
    return None


def _names_its_folder(path: Path) -> bool:
    """The one file by which a folder is known: the folder is what was meant."""
    return path.name == "transforms.json"


def _as_given(path: Path, folder: Path) -> Path:
    """The folder as the user wrote it: relative where the path was relative."""
    up = len(path.absolute().relative_to(folder).parts)
    return folder if path.is_absolute() or up > len(path.parts) else Path(*path.parts[:-up])


def _is_polycam(folder: Path) -> bool:
    inside = folder / "keyframes"
    return any((inside / name).is_dir() for name in ("corrected_cameras", "cameras"))


def _is_record3d(folder: Path) -> bool:
    described = any((folder / name).is_file() for name in ("metadata.json", "metadata"))
    return described and any((folder / name).is_dir() for name in ("rgb", "rgbd", "depth"))


def _is_stray_scanner(folder: Path) -> bool:
    return (folder / "odometry.csv").is_file() and (folder / "depth").is_dir()


def _is_colmap(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("images.bin", "images.txt", "cameras.bin"))


_EXPORTS: tuple[tuple[Callable[[Path], bool], str], ...] = (
    (
        _is_polycam,
        "this is a raw export of Polycam: nerfstudio's `ns-process-data polycam --use-depth --data ZIP"
        " --output-dir DIR` writes a transforms.json with depth, then give DIR",
    ),
    (
        _is_record3d,
        'this is an export of Record3D: pip install "ponder[exr]", then ponder prepare rgbd DIR'
        " --layout generic"
        " --poses metadata.json --intrinsics DIR/metadata.json, with the DIR that holds rgb/ and depth/",
    ),
    (
        _is_stray_scanner,
        "this is an export of Stray Scanner: write the frames of rgb.mp4 as images (ffmpeg -i rgb.mp4"
        " -start_number 0 rgb/%06d.jpg), then ponder prepare rgbd DIR --layout generic --poses odometry.csv"
        " --intrinsics DIR/camera_matrix.csv",
    ),
    (_is_colmap, f"a COLMAP model has no depth images; with some and a text file of poses, {GENERIC}"),
)


def _subfolders(root: Path) -> list[Path]:
    return sorted(one for one in root.iterdir() if one.is_dir())
