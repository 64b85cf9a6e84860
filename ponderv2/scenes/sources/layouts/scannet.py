"""Folders exported from ScanNet recordings: color/, depth/, pose/, intrinsic/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.io.files import files_below
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame
from ponderv2.scenes.sources.layouts.picture_lists import common_ids, frame_id, pictures_in
from ponderv2.scenes.sources.text_files import checked_intrinsics, read_matrix, read_pose

EXPECTS = "color/0.jpg, depth/0.png, pose/0.txt, intrinsic/intrinsic_depth.txt"
CAMERAS = ("intrinsic_depth.txt", "intrinsic_color.txt", "extrinsic_depth.txt", "extrinsic_color.txt")
BESIDE = tuple(f"intrinsic/{name}" for name in CAMERAS)


def matches(path: Path) -> bool:
    """The three folders, at the top or below frames/."""
    return _root(path) is not None


def read(path: Path) -> Capture:
    """Depth in millimetres; ScanNet is z-up and treats colour and depth as one camera of two sizes."""
    root = _root(path)
    if root is None:
        raise SceneError(f"{path} lacks color/, depth/ or pose/", fix=f"a ScanNet export holds {EXPECTS}")
    colors, depths = pictures_in(root / "color"), pictures_in(root / "depth")
    poses = {frame_id(one.stem): one for one in sorted((root / "pose").glob("*.txt"))}
    ids, repairs = common_ids(path, colour=colors, depth=depths, pose=poses)
    depth_lens, color_lens = _lenses(root)
    frames = tuple(
        RawFrame(
            one,
            PictureFile(colors[one]),
            PictureFile(depths[one]),
            read_pose(poses[one]),
            color_lens,
            depth_lens,
        )
        for one in ids
    )
    clouds = sorted({*path.glob("*_vh_clean_2.ply"), *root.glob("*_vh_clean_2.ply")})
    return Capture(
        "scannet", frames, 0.001, depth_to_color=_depth_to_color(root), z_is_up=True,
        cloud=clouds[0] if clouds else None, repairs=repairs,
    )  # fmt: skip


def files(path: Path) -> list[Path]:
    """All files that `read` may take of a folder in which other files of a scene lie, too."""
    cameras = [path / name for name in CAMERAS] + [path.parent / name for name in BESIDE]
    below = [one for one in files_below(path) if one.parent != path]
    return [*below, *(one for one in cameras if one.is_file())]


def _root(path: Path) -> Path | None:
    for root in (path, path / "frames"):
        if all((root / name).is_dir() for name in ("color", "depth", "pose")):
            return root
    return None


def _intrinsic_file(root: Path, name: str) -> Path | None:
    places = (root / "intrinsic" / name, root / name, root.parent / "intrinsic" / name)
    return next((place for place in places if place.is_file()), None)


def _lenses(root: Path) -> tuple[Lens, Lens]:
    depth, color = _intrinsic_file(root, "intrinsic_depth.txt"), _intrinsic_file(root, "intrinsic_color.txt")
    if depth is None:
        raise SceneError(
            f"no intrinsic/intrinsic_depth.txt in {root}", fix="write its 4x4 numbers into that file"
        )
    lenses = [
        Lens(checked_intrinsics(read_matrix(one, (4, 4), (3, 3))[:3, :3], one))
        for one in (depth, color or depth)
    ]
    return lenses[0], lenses[1]


def _depth_to_color(root: Path) -> np.ndarray | None:
    """From the extrinsics of both cameras; None when they are one."""
    files = [_intrinsic_file(root, f"extrinsic_{kind}.txt") for kind in ("color", "depth")]
    if files[0] is None or files[1] is None:
        return None
    color, depth = (read_matrix(one, (4, 4)) for one in files if one is not None)
    if not (np.isfinite(color).all() and np.isfinite(depth).all()) or abs(np.linalg.det(color)) < 1e-9:
        return None
    matrix = np.linalg.inv(color) @ depth
    return None if np.allclose(matrix, np.eye(4), atol=1e-5) else matrix
