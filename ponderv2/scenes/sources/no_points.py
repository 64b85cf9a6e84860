"""Frames that have depth each, and no surface together: why, in one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.checks.agreement import Samples, sample_depth, spread_frames
from ponderv2.checks.check import cause_without_points
from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture
from ponderv2.scenes.sources.frame_loading import Limits, load_depth

MOST_FRAMES = 16


def no_points(path: Path, capture: Capture, limits: Limits, origin: Float64[ndarray, "3"]) -> SceneError:
    """The error to raise; names the reading under which the frames agree, if there is one.

    `origin`: metres, subtracted already from the poses of the capture.
    """
    cause = cause_without_points(_samples(capture, limits, origin))
    if not cause:
        return SceneError(
            f"{path}: the scene has no points, as no two frames see a surface at one place",
            fix="check the depth images, their scale and depth limits, and the poses",
        )
    return SceneError(
        f"{path}: the scene has no points, as frames do not agree: {cause}",
        fix="correct the poses, or give --depth-scale or --intrinsics",
    )


def _samples(capture: Capture, limits: Limits, origin: Float64[ndarray, "3"]) -> list[Samples]:
    moved = np.eye(4)
    moved[:3, 3] = -origin
    found = []
    for index in spread_frames(len(capture.frames), MOST_FRAMES):
        raw = capture.frames[index]
        try:
            depth, _, intrinsics = load_depth(raw, capture, limits)
        except SceneError:
            continue
        metres = depth.astype(np.float64) * capture.depth_scale
        pose = np.asarray(raw.camera_to_world, np.float64)
        found.append(sample_depth(metres, intrinsics, pose, 1000, recording_to_scene=moved))
    return found
