"""What a user gave as the path of a recording: its folder, a file of it, an archive, the export of an app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ponderv2.errors import SceneError

LEVELS_UP = 3
"""Folders above a file in which its recording is looked for."""
GENERIC = "then `ponder prepare rgbd DIR --layout generic` reads the folder (docs/formats.md)"
_ARCHIVE = "unpack it and give the folder"
_POINTS = "ponder features CHECKPOINT --cloud FILE --out FILE reads point clouds and meshes"
_LOG = f"export its colour and depth images and its poses, {GENERIC}"
_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
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
    for endings, what, fix in _KINDS:
        if path.suffix.lower() in endings:
            raise SceneError(f"{path} is {what}, expected the folder of an RGB-D recording", fix=fix)
    raise SceneError(
        f"{path} is a file, and no folder above it is an RGB-D recording",
        fix="give the folder of a recording",
    )


def advice_for_folder(root: Path, is_recording: Callable[[Path], bool]) -> str | None:
    """What to do with a folder that has no known layout; None when nothing is known of it."""
    for folder in list(root.absolute().parents)[:LEVELS_UP]:
        if is_recording(folder):
            return f"give {_as_given(root, folder)}, the folder of the whole recording"
    for look, fix in _EXPORTS:
        if any(look(folder) for folder in (root, *_subfolders(root))):
            return fix
    archives = sorted(one.name for one in root.iterdir() if one.suffix.lower() in _KINDS[1][0])
    if archives and not _subfolders(root):
        return f"unpack {archives[0]} and give its folder"
    return None


def _names_its_folder(path: Path) -> bool:
    """The one file by which a folder is known: the folder is what was meant."""
    return path.name == "transforms.json"


def _as_given(path: Path, folder: Path) -> Path:
    """The folder in the user's own words: relative where the path was relative."""
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
