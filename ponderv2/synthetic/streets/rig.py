"""The vehicle that measures: its sensors and its own surface. Frame: rear axle, x forward, z up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.streets.classes import CAMERAS
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.shapes import MergedMesh
from ponderv2.synthetic.streets.traffic import REAR_AXLE
from ponderv2.synthetic.streets.vehicles import hatchback

PERIOD = 0.05
"""Seconds of a revolution of the LiDAR."""
SEAM = np.deg2rad(106.0)
"""Where a revolution starts and ends, counter-clockwise from straight ahead; it turns clockwise."""
_PLACES: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "CAM_FRONT": ((1.70, 0.0, 1.51), 0.0, 1266.0),
    "CAM_FRONT_RIGHT": ((1.55, -0.49, 1.50), -55.0, 1261.0),
    "CAM_BACK_RIGHT": ((1.02, -0.48, 1.56), -110.0, 1259.0),
    "CAM_BACK": ((0.03, 0.0, 1.58), 180.0, 809.0),
    "CAM_BACK_LEFT": ((1.03, 0.48, 1.59), 110.0, 1257.0),
    "CAM_FRONT_LEFT": ((1.52, 0.49, 1.51), 55.0, 1272.0),
}
"""Position in metres, direction in degrees to the left, focal length in pixels of an image of 1600 x 900."""
_LIDAR_PLACE = (0.94, 0.0, 1.84)


@dataclass(frozen=True)
class MountedCamera:
    """A camera on the vehicle. OpenCV axes, pixel centres at integers."""

    channel: str
    intrinsics: Float[np.ndarray, "3 3"]
    to_ego: Float[np.ndarray, "4 4"]
    before_end: float
    """Seconds from its exposure to the end of the revolution that passes its axis."""


@dataclass(frozen=True)
class Rig:
    """All sensors. Every street is driven by another vehicle: angles and positions differ a little."""

    lidar_to_ego: Float[np.ndarray, "4 4"]
    cameras: tuple[MountedCamera, ...]

    @cached_property
    def body(self) -> MergedMesh:
        """The surface of the vehicle itself."""
        return hatchback(np.random.default_rng(0)).meshes[0].shifted(np.array([REAR_AXLE, 0.0, 0.0]))


def make_rig(rng: np.random.Generator, config: StreetConfig) -> Rig:
    """Mount the sensors."""
    scale = config.width / 1600.0
    cameras = []
    for channel in CAMERAS:
        place, direction, focal = _PLACES[channel]
        length = focal * scale * float(rng.uniform(0.99, 1.01))
        center = (config.width * rng.uniform(0.49, 0.515) - 0.5, config.height * rng.uniform(0.5, 0.55) - 0.5)
        intrinsics = np.array([[length, 0.0, center[0]], [0.0, length, center[1]], [0.0, 0.0, 1.0]])
        yaw = np.deg2rad(direction)
        axes = np.array([[np.sin(yaw), 0.0, np.cos(yaw)], [-np.cos(yaw), 0.0, np.sin(yaw)], [0.0, -1.0, 0.0]])
        passed = ((SEAM - yaw) % (2 * np.pi)) / (2 * np.pi)
        cameras.append(
            MountedCamera(channel, intrinsics, _mount(rng, axes, place), PERIOD * (1.0 - float(passed)))
        )
    lidar = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return Rig(_mount(rng, lidar, _LIDAR_PLACE), tuple(cameras))


def _mount(
    rng: np.random.Generator, axes: Float[np.ndarray, "3 3"], place: tuple[float, float, float]
) -> Float[np.ndarray, "4 4"]:
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zyx", rng.normal(0.0, 0.006, 3)).as_matrix() @ axes
    pose[:3, 3] = np.array(place) + rng.normal(0.0, 0.008, 3)
    return pose
