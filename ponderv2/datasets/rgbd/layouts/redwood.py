"""Redwood, SceneNN and Open3D's reconstruction system: color/, depth/, trajectory.log."""

from __future__ import annotations

from collections.abc import Sequence
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
from ponderv2.datasets.rgbd.pose_conventions import first_pose_by_depth
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole
from ponderv2.io.text import content_lines, numbers, read_text

EXPECTS = "color/ (or image/, rgb/; may be absent), depth/, trajectory.log (or scene/trajectory.log)"
COLORS = ("color", "image", "rgb")
TRAJECTORIES = ("trajectory.log", "scene/trajectory.log", "trajectory.txt")


def matches(path: Path) -> bool:
    """A trajectory and a folder of depth images; one of colour images is optional."""
    return _trajectory(path) is not None and folder_like(path, "depth") is not None


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Depth in millimetres. Poses have the numbers of the images, or there are as many as images."""
    trajectory = _trajectory(path)
    folder, depth_folder = folder_like(path, *COLORS), folder_like(path, "depth")
    if trajectory is None or depth_folder is None:
        raise SceneError(f"{path} lacks depth/ or a trajectory", fix=f"Redwood recordings hold {EXPECTS}")
    poses = read_trajectory(trajectory)
    colors = ImageFolder(()) if folder is None else list_images(folder)
    depths = list_images(depth_folder)
    names = None if folder is None else colors.names
    known = find_calibration(path)
    intrinsics = known.depth or Intrinsics(pinhole(525.0, 525.0, 319.5, 239.5), (640, 480))
    scale = known.depth_scale or 0.001
    decide = first_pose_by_depth(depths.paths, intrinsics, config.depth_scale or scale)
    pairing = pair_frames(path, names, depths.names, poses, config.pairing, decide)
    notes = known.notes if known.depth else ("camera: the default f=525, c=(319.5, 239.5)", *known.notes)
    ids = tuple(frame.name for frame in pairing.frames)
    return Recording(
        "redwood",
        raw_frames(pairing, ids, colors.paths, depths.paths, known.color or intrinsics, intrinsics),
        scale,
        notes=(*notes, *pairing.notes, *colors.notes, *depths.notes),
        repairs=(*known.repairs, *pairing.repairs),
        unit_declared=known.depth_scale is not None,
    )


def read_trajectory(path: Path) -> Poses:
    """Poses by number: five lines each, `i j n` and 4x4. A damaged pose is not-a-number."""
    lines = content_lines(read_text(path))
    heads: list[list[int]] = []
    poses = np.full((len(lines) // 5, 4, 4), np.nan)
    for index in range(len(poses)):
        try:
            heads.append([int(float(word)) for word in lines[5 * index].split()[:3]])
            values = numbers(" ".join(lines[5 * index + 1 : 5 * index + 5]))
        except (ValueError, IndexError, OverflowError) as error:
            raise SceneError(f"{path} is not a trajectory at line {5 * index + 1} ({error})") from error
        if values.size == 16:
            poses[index] = values.reshape(4, 4)
    if not heads or len(lines) % 5:
        raise SceneError(f"{path} is not a whole trajectory: {len(lines)} lines, expected five per pose")
    return Poses(poses, _numbers_of_heads(heads))


def _numbers_of_heads(heads: Sequence[list[int]]) -> tuple[str, ...] | None:
    """The first number of each head; of logs where that one is the same everywhere, the second.

    None where neither tells the poses apart: then only their order counts.
    """
    for place in (0, 1):
        column = [head[place] if len(head) > place else 0 for head in heads]
        if len(heads) == 1 or len(set(column)) > 1:
            return tuple(map(str, column))
    return None


def _trajectory(path: Path) -> Path | None:
    return next((found[0] for name in TRAJECTORIES if (found := files_like(*_split(path / name)))), None)


def _split(path: Path) -> tuple[Path, str]:
    return path.parent, path.name
