"""TUM RGB-D: lists of time stamps, associated with the nearest neighbour in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens, PictureFile, RawFrame, pinhole
from ponderv2.scenes.sources.text_files import read_text, rotation_of_quaternion

EXPECTS = "rgb.txt, depth.txt, groundtruth.txt"
PICTURE_TOLERANCE = 0.02
"""Seconds, as in the benchmark's own tool."""
POSE_TOLERANCE = 0.05
"""Seconds; poses are interpolated by nobody here, the nearest one is taken."""
CAMERAS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
DEFAULT = ((525.0, 525.0, 319.5, 239.5), (0.0, 0.0, 0.0, 0.0, 0.0))


def matches(path: Path) -> bool:
    """All three lists are there."""
    return all((path / name).is_file() for name in ("rgb.txt", "depth.txt", "groundtruth.txt"))


def read(path: Path) -> Capture:
    """Depth is registered to colour and has its distortion; 5000 units a metre; the tracker's z is up."""
    colors, depths, poses = (_list(path / name) for name in ("rgb.txt", "depth.txt", "groundtruth.txt"))
    if not colors or not depths or not poses:
        raise SceneError(f"a list of {path} is empty", fix="download the sequence again")
    lens, note = _lens(path)
    color_times, pose_times = _times(colors), _times(poses)
    frames: list[RawFrame] = []
    for time, words in depths:
        color, pose = _nearest(color_times, time), _nearest(pose_times, time)
        far = (
            abs(color_times[color] - time) > PICTURE_TOLERANCE
            or abs(pose_times[pose] - time) > POSE_TOLERANCE
        )
        if far or not words or not colors[color][1]:
            continue
        pictures = PictureFile(path / colors[color][1][0]), PictureFile(path / words[0])
        frames.append(RawFrame(f"{time:.6f}", *pictures, _pose(poses[pose][1]), lens, lens))
    if not frames:
        raise SceneError(f"no depth picture of {path} has a colour picture and a pose of about the same time")
    left_out = len(depths) - len(frames)
    repairs = (f"{left_out} depth pictures without colour or pose in time were left out",) if left_out else ()
    return Capture("tum", tuple(frames), 1.0 / 5000.0, z_is_up=True, notes=(note,), repairs=repairs)


def _lens(path: Path) -> tuple[Lens, str]:
    for name, (values, distortion) in CAMERAS.items():
        if name in path.resolve().name or name.replace("freiburg", "fr") in path.resolve().name:
            return Lens(pinhole(*values), (640, 480), distortion), f"camera of {name}"
    return Lens(pinhole(*DEFAULT[0]), (640, 480), DEFAULT[1]), "camera: the default f=525, c=(319.5, 239.5)"


def _list(path: Path) -> list[tuple[float, list[str]]]:
    """Time and the other words of each line that is not a comment, in order of time."""
    rows = []
    for line in read_text(path).splitlines():
        words = line.split("#", 1)[0].replace(",", " ").split()
        try:
            time = float(words[0]) if words else float("nan")
        except ValueError as error:
            raise SceneError(f"{path} has a line that does not start with a time: '{line[:60]}'") from error
        if np.isfinite(time):
            rows.append((time, words[1:]))
    return sorted(rows, key=lambda row: row[0])


def _times(rows: list[tuple[float, list[str]]]) -> ndarray:
    return np.array([time for time, _ in rows])


def _nearest(times: ndarray, time: float) -> int:
    right = int(np.clip(np.searchsorted(times, time), 1, max(len(times) - 1, 1)))
    if len(times) == 1:
        return 0
    return right if times[right] - time < time - times[right - 1] else right - 1


def _pose(words: list[str]) -> ndarray:
    pose = np.full((4, 4), np.nan)
    try:
        values = np.array([float(word) for word in words[:7]])
    except ValueError:
        return pose
    if len(values) == 7:
        pose[:3, :3], pose[:3, 3] = rotation_of_quaternion(values[3:]), values[:3]
        pose[3] = 0.0, 0.0, 0.0, 1.0
    return pose
