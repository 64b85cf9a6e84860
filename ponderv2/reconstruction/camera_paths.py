"""Camera paths: the scene's own cameras, a flight through them, an orbit, or a file of cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, assert_never

import numpy as np
import torch
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.reconstruction.camera_files import CameraPath, Viewpoint, read_cameras
from ponderv2.reconstruction.config import (
    CameraFileConfig,
    CameraPathConfig,
    InterpolatedPathConfig,
    OrbitPathConfig,
    OwnCamerasConfig,
)
from ponderv2.scenes.scene import Frame, Scene

TURN = 0.5
"""Metres that weigh as much as a rotation of one radian in the constant speed of a flight."""
_STEPS = 64


def viewpoints(scene: Scene, config: CameraPathConfig) -> tuple[Viewpoint, ...]:
    """The cameras of a path. SceneError: the scene has none, or the file is not as described."""
    return camera_path(scene, config).views


def camera_path(scene: Scene, config: CameraPathConfig) -> CameraPath:
    """The same, with notes on where they are and the frame rate of a video of them."""
    match config:
        case OwnCamerasConfig():
            return CameraPath(_own(scene, config))
        case InterpolatedPathConfig():
            keys = _spread([frame.camera for frame in _frames(scene)], config.n_keys)
            return CameraPath(tuple(_numbered(flight(keys, config.n_frames))))
        case OrbitPathConfig():
            return CameraPath(tuple(_numbered(_orbit(scene, config))))
        case CameraFileConfig():
            return read_cameras(config.path, scene.frames)
        case _:
            assert_never(config)


def flight(keys: Sequence[Camera], n_frames: int) -> list[Camera]:
    """From the first to the last key at constant speed: a smooth curve with the shortest turns.

    Speed counts metres and, `TURN` metres per radian, turning. SceneError: a pose is not rigid.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.spatial.transform import Rotation, Slerp

    poses = np.stack([_rigid_pose(camera) for camera in keys])
    if len(keys) == 1:
        return [keys[0]] * n_frames
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    times = _travelled(poses[:, :3, 3], rotations)
    turn, position_at = Slerp(times, rotations), PchipInterpolator(times, poses[:, :3, 3])
    dense = np.unique(np.concatenate([np.linspace(a, b, _STEPS) for a, b in pairwise(times)]))
    length = _travelled(position_at(dense), turn(dense))
    when = np.interp(np.linspace(0.0, length[-1], n_frames), length, dense)
    made = []
    for time, position, rotation in zip(when, position_at(when), turn(when).as_matrix(), strict=True):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, position
        made.append(_posed(keys[int(np.searchsorted(times, time, side="right")) - 1], pose))
    return made


def _travelled(positions: ndarray, rotations: Any) -> ndarray:
    """Way from the first pose to each, strictly increasing."""
    angles = (rotations[1:] * rotations[:-1].inv()).magnitude()
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1) + TURN * angles + 1e-9
    return np.append(0.0, np.cumsum(steps))


def _own(scene: Scene, config: OwnCamerasConfig) -> tuple[Viewpoint, ...]:
    frames = [frame for frame in _frames(scene) if frame.held_out or config.only == "all"]
    if not frames:
        raise SceneError(
            f"scene '{scene.name}' has no held-out frames", fix="--set cameras.only=all, or prepare with some"
        )
    return tuple(Viewpoint(frame.id, frame.camera, frame) for frame in frames[:: config.stride])


def _frames(scene: Scene) -> tuple[Frame, ...]:
    if not scene.frames:
        raise SceneError(f"scene '{scene.name}' has no cameras of its own", fix="--cameras path.json")
    return scene.frames


def _orbit(scene: Scene, config: OrbitPathConfig) -> list[Camera]:
    lower, upper = scene.cloud.coord.amin(dim=0).double(), scene.cloud.coord.amax(dim=0).double()
    middle = ((lower + upper) / 2).numpy()
    radius = config.radius or 0.3 * float((upper - lower)[:2].amin())
    template = scene.frames[0].camera if scene.frames else _default_camera()
    if config.height is not None:
        height = float(lower[2]) + config.height
    elif scene.frames:
        height = float(torch.stack([frame.camera.centre for frame in scene.frames])[:, 2].mean())
    else:
        height = float(middle[2])
    made = []
    for step in range(config.n_frames):
        angle = 2.0 * math.pi * step / config.n_frames
        position = np.array(
            [middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle), height]
        )
        made.append(_posed(template, look_at(position, middle)))
    return made


def look_at(position: ndarray, target: ndarray) -> ndarray:
    """Camera-to-world pose at `position`, optical axis towards `target`, upright (z up)."""
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any right will do
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def _default_camera() -> Camera:
    intrinsics = torch.tensor([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])
    return Camera(intrinsics, torch.eye(4), 640, 480)


def _rigid_pose(camera: Camera) -> ndarray:
    """Camera-to-world with an exact rotation. Poses from text files are off by up to 1e-3."""
    pose = np.linalg.inv(camera.world_to_camera.double().numpy())
    left, stretch, right = np.linalg.svd(pose[:3, :3])
    rotation = left @ right
    if np.abs(stretch - 1.0).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise SceneError(
            "a flight needs rigid poses: one of the scene's is scaled or mirrored",
            fix="--cameras own, or a camera-path file",
        )
    pose[:3, :3] = rotation
    return pose


def _posed(camera: Camera, camera_to_world: ndarray) -> Camera:
    return replace(camera, world_to_camera=_inverse(camera_to_world))


def _inverse(pose: ndarray) -> torch.Tensor:
    return torch.from_numpy(np.linalg.inv(pose)).float()


def _spread(cameras: list[Camera], n_keys: int) -> list[Camera]:
    if len(cameras) <= n_keys:
        return cameras
    return [cameras[round(i * (len(cameras) - 1) / (n_keys - 1))] for i in range(n_keys)]


def _numbered(cameras: Sequence[Camera]) -> list[Viewpoint]:
    return [Viewpoint(f"{index:04d}", camera) for index, camera in enumerate(cameras)]
