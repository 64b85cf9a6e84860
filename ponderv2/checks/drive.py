"""Do LiDAR, cameras and boxes of a drive agree? What it needs no image for is asked of every key frame.

Scenes of a drive are in the frame of their LiDAR, z up. Metres, seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.checks.camera_alignment import EXCHANGED, CameraFinding, check_cameras, standing
from ponderv2.checks.object_boxes import BoxFinding, check_boxes
from ponderv2.checks.vehicle_motion import check_motion
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Frame, Scene

NEAREST = 3.0
"""Planar distance of points that count: nearer ones are the vehicle itself."""
FAR_FROM_LIDAR = 15.0
"""Between a camera and the LiDAR, more than any vehicle."""
LATE = 0.2
"""Between an image and the scan, from which on it is reported."""
GAP = 2.5
"""Times the usual distance in time between two sweeps."""
ALIKE = 3
"""Cameras with one and the same cause: then it is that of the LiDAR."""


@dataclass(frozen=True)
class LidarFinding:
    """The figures of one key frame."""

    hits: dict[str, int]
    """Points inside the image of each camera, farther than NEAREST."""
    boxes: BoxFinding | None
    """None: there are none."""
    largest_lag: float | None
    """Between the scan and an image; None where times are unknown."""
    largest_gap: float | None
    """Between two sweeps that follow each other."""
    cause: str = ""
    """What is wrong; empty when nothing is."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriveFinding:
    """The figures of a drive, from several of its key frames."""

    key_frames: int
    cameras: tuple[CameraFinding, ...]
    boxes: BoxFinding | None
    cause: str = ""
    """What is wrong; empty when nothing is."""
    notes: tuple[str, ...] = ()
    """What could not be checked for want of evidence."""


def is_drive(scene: Scene) -> bool:
    """Whether a scene is a scan of a LiDAR: it has sweeps, and no image of depth."""
    return bool(scene.sweeps) and not any(frame.has_depth for frame in scene.frames)


def in_lidar(scene: Scene) -> Scene:
    """The scene in the frame of the LiDAR that measured its points: prepared ones may be shifted."""
    own = next((one for one in scene.sweeps if one.time == 0.0), None)
    return scene if own is None or is_identity(own.world_to_sensor) else scene.moved(own.world_to_sensor)


def is_identity(pose: Float[Tensor, "4 4"]) -> bool:
    """Whether a pose moves nothing."""
    return bool((pose - torch.eye(4, dtype=pose.dtype)).abs().max() < 1e-6)


def in_image(
    points: Float[Tensor, "point 3"], frame: Frame
) -> tuple[Float[Tensor, "point 2"], Bool[Tensor, " point"]]:
    """Pixels of points of the scene, and which of them are inside the image and farther than NEAREST.

    Inside is at least a pixel from the border, as published loaders choose rays of pre-training.
    """
    camera = frame.camera
    in_camera = transform_points(camera.world_to_camera.double(), points.double())
    pixel, depth = project(in_camera, camera.intrinsics.double())
    corner = torch.tensor([camera.width - 1.0, camera.height - 1.0], dtype=torch.float64)
    inside = (pixel > 0).all(dim=1) & (pixel < corner).all(dim=1) & (depth > 1e-5)
    return pixel, inside & (points[:, :2].norm(dim=1) > NEAREST)


def check_key_frame(scene: Scene) -> LidarFinding:
    """What needs no image: places of cameras, points in images and boxes, times, motion of the vehicle."""
    scene = in_lidar(scene)
    points = scene.cloud.coord
    hits = {frame.sensor or frame.id: int(in_image(points, frame)[1].sum()) for frame in scene.frames}
    causes, notes = _places(scene.frames), []
    for name, count in hits.items():
        if not count and not any(name in one for one in causes):
            notes.append(f"no point of the LiDAR is in the image of {name}")
    boxes = None
    if scene.boxes is not None and len(scene.boxes):
        boxes = check_boxes([(points, scene.boxes)])
        causes += [boxes.cause] if boxes.cause else []
        notes += [boxes.note] if boxes.note else []
    lag, gap = _times(scene, notes)
    causes += [one for one in (check_motion(scene),) if one]
    return LidarFinding(hits, boxes, lag, gap, "; ".join(causes), tuple(notes))


def check_drive(scenes: Sequence[Scene]) -> DriveFinding:
    """Several key frames of one drive. Raises SceneError for files that cannot be read."""
    scenes = [in_lidar(scene) for scene in scenes]
    causes = list(dict.fromkeys(one for scene in scenes for one in _places(scene.frames)))
    tilted = {
        name for scene in scenes for frame in scene.frames if standing(frame) for name in (frame.sensor,)
    }
    cameras = check_cameras(scenes)
    causes += _together([one for one in cameras if one.cause and one.sensor not in tilted], len(cameras))
    pairs = [(one.cloud.coord, one.boxes) for one in scenes if one.boxes is not None and len(one.boxes)]
    boxes = check_boxes(pairs) if pairs else None
    causes += [boxes.cause] if boxes is not None and boxes.cause else []
    unsure = [one.sensor for one in cameras if not one.sound and not one.cause and one.sensor not in tilted]
    notes = []
    if unsure:
        notes.append(
            f"too little to see for {', '.join(unsure)}: their calibration is neither confirmed nor refuted"
        )
    return DriveFinding(len(scenes), cameras, boxes, "; ".join(causes), tuple(notes))


def _places(frames: Sequence[Frame]) -> list[str]:
    """Cameras that stand where no camera stands."""
    found: dict[str, list[str]] = {}
    for frame in frames:
        away = float(frame.camera.centre.norm())
        why = standing(frame)
        if away > FAR_FROM_LIDAR:
            why = "too far from the LiDAR: the pose is of another time or clock, or in another frame"
        if why:
            found.setdefault(why, []).append(frame.sensor or frame.id)
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]


def _together(wrong: list[CameraFinding], n_cameras: int) -> list[str]:
    """Causes by camera; one that nearly all share is reported once."""
    found: dict[str, list[str]] = {}
    for one in wrong:
        found.setdefault(one.cause, []).append(one.sensor)
    turned = [one for one in wrong if "turned by" in one.cause]
    sides = {side for one in turned for side in ("left", "right") if f"to the {side}" in one.cause}
    if len(turned) >= max(ALIKE, 0.6 * n_cameras) and len(sides) == 1:
        listed = "; ".join(f"{one.sensor} {one.cause.partition('turned by ')[2]}" for one in turned)
        rest = [f"{', '.join(names)}: {why}" for why, names in found.items() if "turned by" not in why]
        return [f"the LiDAR is turned against all cameras: its extrinsics are wrong ({listed})", *rest]
    known = {one.sensor for one in wrong}
    swapped = {one.sensor: other for one in wrong if (other := one.cause.removeprefix(EXCHANGED)) in known}
    exchanged = sorted({tuple(sorted((a, b))) for a, b in swapped.items() if swapped.get(b) == a})
    made = [f"{a} and {b} are exchanged" for a, b in exchanged]
    done = {name for pair in exchanged for name in pair}
    for why, names in found.items():
        left = [name for name in names if name not in done]
        if left:
            made.append(f"{', '.join(left)}: {why}")
    return made


def _times(scene: Scene, notes: list[str]) -> tuple[float | None, float | None]:
    lags = {frame.sensor: abs(frame.time) for frame in scene.frames if frame.time is not None}
    late = {name: lag for name, lag in lags.items() if lag > LATE}
    for name, lag in late.items():
        notes.append(f"the image of {name} is {lag:.2f} s from the scan")
    times = np.sort([one.time for one in scene.sweeps if one.time is not None])
    gaps = np.diff(times)
    if len(gaps) and gaps.min() <= 0.0:
        notes.append("two sweeps are of the same time")
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    if len(gaps) >= 3 and gaps.max() > GAP * max(usual, 1e-6):
        notes.append(f"sweeps are {usual:.2f} s apart, but once {gaps.max():.2f} s")
    return (
        round(max(lags.values()), 4) if lags else None,
        round(float(gaps.max()), 4) if len(gaps) else None,
    )
