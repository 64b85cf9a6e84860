"""Replica as rendered for NICE-SLAM: results/frame*.jpg, results/depth*.png, traj.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.calibration import ABOVE, find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.image_folders import (
    files_like,
    folder_like,
    ids_of,
    list_images,
    raw_frames,
)
from ponderv2.datasets.rgbd.pairing import Poses, pair_frames
from ponderv2.datasets.rgbd.pose_conventions import first_pose_by_depth
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import content_lines, numbers, read_text

EXPECTS = "results/frame000000.jpg, results/depth000000.png, traj.txt"
BESIDE = (*ABOVE, "{name}_mesh.ply")
PUBLISHED = Intrinsics(pinhole(600.0, 600.0, 599.5, 339.5), (1200, 680))


def matches(path: Path) -> bool:
    """The trajectory and the images by name."""
    results = folder_like(path, "results")
    return (
        bool(files_like(path, "traj.txt")) and results is not None and bool(files_like(results, "depth*.*"))
    )


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """6553.5 units per metre unless in cam_params.json; the mesh beside the folder is the cloud."""
    results, lists = folder_like(path, "results"), files_like(path, "traj.txt")
    if results is None or not lists:
        raise SceneError(f"{path} lacks results/ or traj.txt", fix=f"this layout holds {EXPECTS}")
    colors, depths = list_images(results, "frame*"), list_images(results, "depth*")
    poses = Poses(_read_rows(lists[0]))
    known = find_calibration(path)
    intrinsics = known.depth or PUBLISHED
    scale = known.depth_scale or 1.0 / 6553.5
    decide = first_pose_by_depth(depths.paths, intrinsics, config.depth_scale or scale)
    pairing = pair_frames(path, colors.names_or_none, depths.names, poses, config.pairing, decide)
    notes = known.notes if known.depth else ("camera: the published f=600, c=(599.5, 339.5)", *known.notes)
    mesh = path.parent / f"{path.name}_mesh.ply"
    return Recording(
        "replica",
        raw_frames(
            pairing, ids_of(pairing, 6), colors.paths, depths.paths, known.color or intrinsics, intrinsics
        ),
        scale,
        z_is_up=True,
        cloud=mesh if mesh.is_file() else None,
        notes=(*notes, *pairing.notes, *colors.notes, *depths.notes),
        repairs=(*known.repairs, *pairing.repairs),
        unit_declared=known.depth_scale is not None,
    )


def _read_rows(path: Path) -> np.ndarray:
    """One pose of 16 numbers a line; not-a-number where a line is damaged."""
    rows = [_pose(line) for line in content_lines(read_text(path))]
    return np.stack(rows) if rows else np.zeros((0, 4, 4))


def _pose(line: str) -> np.ndarray:
    try:
        return numbers(line).reshape(4, 4)
    except ValueError:
        return np.full((4, 4), np.nan)
