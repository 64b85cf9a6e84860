"""A .sens file as a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.datasets.camera_text import checked_intrinsics
from ponderv2.datasets.recordings import RawFrame, Recording
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.io.sens import SensFile, SensImage, open_sens

EXPECTS = "NAME.sens"


def matches(path: Path) -> bool:
    """The file itself, or a folder with exactly one."""
    return _file(path) is not None


def read(path: Path) -> Recording:
    """Poses are those of the depth camera; the extrinsics of both cameras lead to a common frame."""
    file = _file(path)
    if file is None:
        raise SceneError(f"no single .sens file at {path}")
    sens = open_sens(file)
    if len(sens) == 0:
        raise SceneError(f"no frames in {file}")
    color_intrinsics, depth_intrinsics = _intrinsics(sens)
    timed = bool(sens.timestamps.any())
    frames = tuple(
        RawFrame(
            f"{index:06d}",
            SensImage(sens, index),
            SensImage(sens, index),
            sens.camera_to_world[index],
            color_intrinsics,
            depth_intrinsics,
            time=float(sens.timestamps[index, 1]) / 1e6 if timed else None,
        )
        for index in range(len(sens))
    )
    ply = file.with_name(f"{file.stem}_vh_clean_2.ply")
    return Recording(
        "sens", frames, 1.0 / sens.header.depth_shift, depth_to_color=_depth_to_color(sens),
        z_is_up="scene" in file.stem, cloud=ply if ply.is_file() else None,
        notes=(f"{len(sens)} frames, version {sens.header.version}, sensor '{sens.header.sensor}'",),
    )  # fmt: skip


def _file(path: Path) -> Path | None:
    if path.suffix.lower() == ".sens" and path.is_file():
        return path
    inside = sorted(path.glob("*.sens")) if path.is_dir() else []
    return inside[0] if len(inside) == 1 else None


def _intrinsics(sens: SensFile) -> tuple[Intrinsics, Intrinsics]:
    head = sens.header
    color, depth = head.intrinsic_color[:3, :3], head.intrinsic_depth[:3, :3]
    return (
        Intrinsics(checked_intrinsics(color, sens.path), head.color_size),
        Intrinsics(checked_intrinsics(depth, sens.path), head.depth_size),
    )


def _depth_to_color(sens: SensFile) -> np.ndarray | None:
    color, depth = sens.header.extrinsic_color, sens.header.extrinsic_depth
    usable = np.isfinite(color).all() and np.isfinite(depth).all() and abs(np.linalg.det(color)) > 1e-9
    if not usable:
        return None
    matrix = np.linalg.inv(color) @ depth
    return None if np.allclose(matrix, np.eye(4), atol=1e-5) else matrix
