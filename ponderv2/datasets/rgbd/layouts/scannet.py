"""Folders exported from ScanNet recordings: color/, depth/, pose/, intrinsic/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.datasets.camera_text import read_intrinsics, read_matrix, read_pose
from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.calibration import ABOVE, calibration_files, find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.image_folders import (
    ImageFolder,
    files_like,
    folder_like,
    ids_of,
    list_images,
    raw_frames,
)
from ponderv2.datasets.rgbd.pairing import Poses, pair_frames
from ponderv2.errors import SceneError
from ponderv2.io.files import files_below

EXPECTS = (
    "color/0.jpg (may be absent), depth/0.png, pose/0.txt, intrinsic/intrinsic_depth.txt "
    "(or intrinsics_depth.txt)"
)
EXTRINSICS = ("extrinsic_depth.txt", "extrinsic_color.txt")
BESIDE = (
    *ABOVE,
    *(f"intrinsic/{name}" for name in ("intrinsic_depth.txt", "intrinsic_color.txt", *EXTRINSICS)),
)


def matches(path: Path) -> bool:
    """The folders of depth and poses, at the top or below frames/; colour may be missing."""
    return _root(path) is not None


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Depth in millimetres; ScanNet is z-up and treats colour and depth as one camera of two sizes."""
    root = _root(path)
    if root is None:
        raise SceneError(f"{path} lacks depth/ or pose/", fix=f"a ScanNet export holds {EXPECTS}")
    color_folder, depth_folder, pose_folder = (folder_like(root, name) for name in ("color", "depth", "pose"))
    assert depth_folder is not None and pose_folder is not None
    colors = ImageFolder(()) if color_folder is None else list_images(color_folder)
    depths = list_images(depth_folder)
    files = files_like(pose_folder, "*.txt")
    matrices = np.stack([read_pose(one) for one in files]) if files else np.zeros((0, 4, 4))
    poses = Poses(matrices, tuple(one.stem for one in files))
    names = None if color_folder is None else colors.names
    pairing = pair_frames(path, names, depths.names, poses, config.pairing)
    known = find_calibration(*_camera_folders(root, path))
    depth_intrinsics = known.depth or (
        None if config.intrinsics is None else read_intrinsics(config.intrinsics)
    )
    if depth_intrinsics is None:
        raise SceneError(
            "; ".join(known.unread) or f"no intrinsic/intrinsic_depth.txt in {root}",
            fix="write its 4x4 numbers into that file, or give --intrinsics FILE",
        )
    frames = raw_frames(
        pairing,
        ids_of(pairing),
        colors.paths,
        depths.paths,
        known.color or depth_intrinsics,
        depth_intrinsics,
    )
    clouds = sorted({*path.glob("*_vh_clean_2.ply"), *root.glob("*_vh_clean_2.ply")})
    return Recording(
        "scannet", frames, 0.001, depth_to_color=_depth_to_color(root), z_is_up=True,
        cloud=clouds[0] if clouds else None,
        notes=(*known.notes, *pairing.notes, *colors.notes, *depths.notes),
        repairs=(*known.repairs, *pairing.repairs),
    )  # fmt: skip


def files(path: Path) -> list[Path]:
    """All files that `read` may take of a folder in which other files of a scene lie, too."""
    cameras = [file for _, file in calibration_files(*_camera_folders(path, path))]
    cameras += [one for name in EXTRINSICS if (one := _extrinsic_file(path, name)) is not None]
    below = [one for one in files_below(path) if one.parent != path]
    return list(dict.fromkeys((*below, *cameras)))


def _camera_folders(root: Path, path: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((root, path, root.parent / "intrinsic")))


def _root(path: Path) -> Path | None:
    for root in (path, path / "frames"):
        if all(folder_like(root, name) is not None for name in ("depth", "pose")):
            return root
    return None


def _extrinsic_file(root: Path, name: str) -> Path | None:
    places = (root / "intrinsic" / name, root / name, root.parent / "intrinsic" / name)
    return next((place for place in places if place.is_file()), None)


def _depth_to_color(root: Path) -> np.ndarray | None:
    """From the extrinsics of both cameras; None when they are one."""
    files = [_extrinsic_file(root, f"extrinsic_{kind}.txt") for kind in ("color", "depth")]
    if files[0] is None or files[1] is None:
        return None
    color, depth = (read_matrix(one, (4, 4)) for one in files if one is not None)
    if not (np.isfinite(color).all() and np.isfinite(depth).all()) or abs(np.linalg.det(color)) < 1e-9:
        return None
    matrix = np.linalg.inv(color) @ depth
    return None if np.allclose(matrix, np.eye(4), atol=1e-5) else matrix
