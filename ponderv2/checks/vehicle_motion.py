"""Do earlier sweeps lie on the scan where the poses of the vehicle put them? Metres, seconds."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.scene import Scene, Sweep

MOVED = 1.0
"""Metres between two scans, below which poses cannot be told from none."""
FASTEST = 80.0
"""Metres per second."""
NEAR, FAR = 4.0, 35.0
"""Distance from the LiDAR of points that are compared."""
GROUND = 0.5
"""Metres above the 30 % lowest of them: those on the ground lie on each other under any motion."""
CLOSE = 0.3
"""Metres to the nearest point of the scan, which count as the same place."""
POINTS = 4000
"""That are compared at most."""
AGREEING, LEAD = 0.7, 0.15
"""Share from which on nobody asks, and by how much another motion must be better."""


STILL = "sweeps lie on the scan without the motion of the vehicle: they are in one frame already"
INVERTED = "the motion of the vehicle is inverted: poses from the vehicle and into it are exchanged"


def check_motion(scene: Scene) -> str:
    """What is wrong with the motion of the vehicle between scans; empty when nothing is, or it stands."""
    earlier = [one for one in scene.sweeps if one.time is not None and one.time < 0.0]
    if not earlier:
        return ""
    for one in earlier:
        away = float(np.linalg.norm(_to_scene(one)[:3, 3]))
        if away > FASTEST * max(-(one.time or 0.0), 0.05) + 1.0:
            return (
                "poses of sweeps are farther apart than any vehicle drives: they are of another time or "
                "clock, or in another unit"
            )
    far = [one for one in earlier if np.linalg.norm(_to_scene(one)[:3, 3]) > MOVED]
    if not far:
        return ""
    oldest = min(far, key=lambda one: abs(float(np.linalg.norm(_to_scene(one)[:3, 3])) - 2.0 * MOVED))
    try:
        points = oldest.read().coord.double().numpy()
    except SceneError:
        return ""
    return _other_motion(scene.cloud.coord.double().numpy(), points, _to_scene(oldest))


def _other_motion(
    scan: Float64[ndarray, "point 3"],
    sweep: Float64[ndarray, "sweep_point 3"],
    motion: Float64[ndarray, "4 4"],
) -> str:
    from scipy.spatial import KDTree

    scan, sweep = _standing_out(scan), _standing_out(sweep)
    sweep = sweep[:: max(len(sweep) // POINTS, 1)]
    if min(len(scan), len(sweep)) < 100:
        return ""
    tree = KDTree(scan)

    def share(pose: Float64[ndarray, "4 4"]) -> float:
        moved = sweep @ pose[:3, :3].T + pose[:3, 3]
        away, _ = tree.query(moved, distance_upper_bound=CLOSE)
        return float(np.isfinite(away).mean())

    stored = share(motion)
    if stored >= AGREEING:
        return ""
    others = ((STILL, np.eye(4)), (INVERTED, np.linalg.inv(motion)))
    best, cause = stored + LEAD, ""
    for description, pose in others:
        value = share(pose)
        if value > best:
            best, cause = value, description
    return cause


def _standing_out(points: Float64[ndarray, "point 3"]) -> Float64[ndarray, "_point 3"]:
    far = np.linalg.norm(points[:, :2], axis=1)
    points = points[(far > NEAR) & (far < FAR)]
    if not len(points):
        return points
    return points[points[:, 2] > np.percentile(points[:, 2], 30) + GROUND]


def _to_scene(one: Sweep) -> Float64[ndarray, "4 4"]:
    return torch.linalg.inv(one.world_to_sensor.double()).numpy()
