"""SUN3D: image/0000001-000000000000.jpg, depth/, extrinsics/*.txt (3x4 numbers a frame), intrinsics.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.calibration import find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.image_folders import (
    ImageFolder,
    files_like,
    folder_like,
    list_images,
    raw_frames,
)
from ponderv2.datasets.rgbd.pairing import Poses, pair_frames
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import numbers, read_text

EXPECTS = "image/ (may be missing), depth/, extrinsics/*.txt, intrinsics.txt"
PUBLISHED = Intrinsics(pinhole(570.342205, 570.342205, 320.0, 240.0), (640, 480))


def matches(path: Path) -> bool:
    """Depth images and a file of extrinsics; colour images may be missing."""
    folder = folder_like(path, "extrinsics")
    return folder_like(path, "depth") is not None and folder is not None and bool(files_like(folder, "*.txt"))


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Depth in millimetres; of several files of poses, which are named by their date, the newest."""
    color_folder, depth_folder, pose_folder = (
        folder_like(path, one) for one in ("image", "depth", "extrinsics")
    )
    if depth_folder is None or pose_folder is None:
        raise SceneError(f"{path} lacks depth/ or extrinsics/", fix=f"SUN3D holds {EXPECTS}")
    file = files_like(pose_folder, "*.txt")[-1]
    colors = ImageFolder(()) if color_folder is None else list_images(color_folder)
    depths = list_images(depth_folder)
    names = None if color_folder is None else colors.names
    pairing = pair_frames(path, names, depths.names, Poses(_poses(file)), config.pairing)
    known = find_calibration(path)
    intrinsics = known.depth or PUBLISHED
    notes = known.notes if known.depth else ("camera: the published f=570.3, c=(320, 240)", *known.notes)
    return Recording(
        "sun3d",
        raw_frames(
            pairing,
            tuple(frame.name for frame in pairing.frames),
            colors.paths,
            depths.paths,
            known.color or intrinsics,
            intrinsics,
        ),
        known.depth_scale or 0.001,
        notes=(*notes, f"poses from {file.name}", *pairing.notes, *colors.notes, *depths.notes),
        repairs=(*known.repairs, *pairing.repairs),
        unit_declared=known.depth_scale is not None,
    )


def _poses(file: Path) -> np.ndarray:
    """3x4 numbers a frame, camera to world."""
    try:
        values = numbers(read_text(file))
    except ValueError as error:
        raise SceneError(f"{file} does not hold numbers ({error})") from error
    if len(values) % 12 or not len(values):
        raise SceneError(f"{file} holds {len(values)} numbers, expected 12 per frame")
    poses = np.tile(np.eye(4), (len(values) // 12, 1, 1))
    poses[:, :3] = values.reshape(-1, 3, 4)
    return poses
