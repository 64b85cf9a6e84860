"""Redwood and Open3D's reconstruction system: color/, depth/, trajectory.log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame, pinhole
from ponderv2.scenes.sources.layouts.picture_lists import common_ids, pictures_in
from ponderv2.scenes.sources.text_files import numbers, read_lens, read_text

EXPECTS = "color/ (or image/, rgb/), depth/, trajectory.log (or scene/trajectory.log)"
COLORS = ("color", "image", "rgb")
TRAJECTORIES = ("trajectory.log", "scene/trajectory.log", "trajectory.txt")


def matches(path: Path) -> bool:
    """A trajectory and both folders of pictures."""
    return (
        _trajectory(path) is not None
        and (path / "depth").is_dir()
        and any((path / name).is_dir() for name in COLORS)
    )


def read(path: Path) -> Capture:
    """Depth in millimetres. The n-th pose belongs to the n-th picture, whatever the pictures' names."""
    trajectory = _trajectory(path)
    folder = next((path / name for name in COLORS if (path / name).is_dir()), None)
    if trajectory is None or folder is None:
        raise SceneError(f"{path} lacks pictures or a trajectory", fix=f"Redwood recordings hold {EXPECTS}")
    poses = read_trajectory(trajectory)
    colors, depths = pictures_in(folder), pictures_in(path / "depth")
    by_order = len(colors) == len(depths)
    if by_order:
        pairs = dict(enumerate(zip(colors.values(), depths.values(), strict=True)))
        repairs: tuple[str, ...] = ()
    else:
        ids, repairs = common_ids(path, colour=colors, depth=depths)
        order = {one: index for index, one in enumerate(depths)}
        pairs = {order[one]: (colors[one], depths[one]) for one in ids}
    kept, more = common_ids(path, pictures=map(str, pairs), pose=map(str, poses))
    lens, note = _lens(path)
    frames = tuple(
        RawFrame(
            pairs[int(one)][1].stem,
            PictureFile(pairs[int(one)][0]),
            PictureFile(pairs[int(one)][1]),
            poses[int(one)],
            lens,
            lens,
        )
        for one in kept
    )
    return Capture("redwood", frames, 0.001, notes=(note,), repairs=(*repairs, *more))


def read_trajectory(path: Path) -> dict[int, np.ndarray]:
    """Poses by position: five lines each, `i j n` and 4x4."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    poses: dict[int, np.ndarray] = {}
    for start in range(0, len(lines) - 4, 5):
        try:
            position = int(lines[start].split()[0])
            pose = numbers(" ".join(lines[start + 1 : start + 5]))
        except (ValueError, IndexError) as error:
            raise SceneError(f"{path} is not a trajectory at line {start + 1} ({error})") from error
        poses[position] = pose.reshape(4, 4) if pose.size == 16 else np.full((4, 4), np.nan)
    if not poses or len(lines) % 5:
        raise SceneError(f"{path} is not a whole trajectory: {len(lines)} lines, expected five per pose")
    return poses


def _trajectory(path: Path) -> Path | None:
    return next((path / name for name in TRAJECTORIES if (path / name).is_file()), None)


def _lens(path: Path) -> tuple[Lens, str]:
    for candidate in (
        path / "intrinsic.json",
        path / "camera_primesense.json",
        *sorted(path.glob("camera*.json")),
    ):
        if candidate.is_file():
            return read_lens(candidate), f"camera from {candidate.name}"
    return Lens(
        pinhole(525.0, 525.0, 319.5, 239.5), (640, 480)
    ), "camera: the default f=525, c=(319.5, 239.5)"
