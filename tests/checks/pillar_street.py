"""A street of pillars with a LiDAR and four cameras, in closed form: rays meet cylinders and the ground."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

WIDTH, HEIGHT, FOCAL = 320, 180, 200.0
INTRINSICS = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1.0]])
SENSORS = {"front": 0.0, "left": 90.0, "back": 180.0, "right": -90.0}
"""Degrees to the left that the camera looks."""
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
LIDAR_HEIGHT = 1.8


@dataclass(frozen=True)
class ArrayFiles:
    """Sweeps that are held in memory."""

    clouds: dict[str, np.ndarray]

    def points(self, path: Path) -> PointCloud:
        return PointCloud(torch.from_numpy(self.clouds[path.name]).float())


class Street:
    """Pillars beside a road; the vehicle drives along x."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        count = 90
        self.center = np.stack([rng.uniform(-45, 55, count), rng.uniform(5, 30, count)], axis=1)
        self.center[:, 1] *= rng.choice([-1.0, 1.0], count)
        self.radius = rng.uniform(0.2, 0.9, count)
        self.brightness = rng.integers(0, 80, count)

    def cast(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance along unit directions and brightness; infinite in the sky."""
        flat = direction[:, :2]
        distance = np.where(direction[:, 2] < -1e-3, -origin[2] / np.minimum(direction[:, 2], -1e-3), np.inf)
        seen = np.where(np.isfinite(distance), 110.0, 230.0)
        a = np.maximum((flat**2).sum(axis=1), 1e-9)
        for center, radius, brightness in zip(self.center, self.radius, self.brightness, strict=True):
            away = origin[:2] - center
            b = flat @ away
            inner = b**2 - a * (away @ away - radius**2)
            along = (-b - np.sqrt(np.maximum(inner, 0.0))) / a
            nearer = (inner > 0) & (along > 0.5) & (along < distance)
            nearer &= origin[2] + along * direction[:, 2] < 5.0
            distance, seen = np.where(nearer, along, distance), np.where(nearer, brightness, seen)
        return distance, seen

    def scan(self, place: np.ndarray) -> np.ndarray:
        """Points in the frame of the LiDAR, whose axes are those of the street."""
        azimuth, elevation = np.meshgrid(np.arange(-180, 180, 0.4), np.arange(-25, 8, 1.5))
        azimuth, elevation = np.radians(azimuth.ravel()), np.radians(elevation.ravel())
        direction = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)],
            axis=1,
        )
        distance, _ = self.cast(place, direction)
        near = distance < 70.0
        return direction[near] * distance[near, None]

    def image(self, place: np.ndarray, to_scene: np.ndarray) -> np.ndarray:
        row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
        pixel = np.stack([column.ravel(), row.ravel(), np.ones(row.size)], axis=1)
        direction = pixel @ np.linalg.inv(INTRINSICS).T @ to_scene[:3, :3].T
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        _, seen = self.cast(place + to_scene[:3, 3], direction)
        return seen.reshape(HEIGHT, WIDTH)


def camera_pose(degrees: float) -> np.ndarray:
    """Of a camera in the frame of the LiDAR."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ OPTICAL
    pose[:3, 3] = pose[:3, 2] * 0.8 + (0.3, 0.0, -0.3)
    return pose


def key_frame(folder: Path, number: int, seed: int = 0) -> Scene:
    """A scan with four images, an earlier sweep 2 m behind, and boxes around nothing."""
    street, folder = Street(seed), folder / f"{number}"
    folder.mkdir(parents=True)
    place = np.array([1.7 * number, 0.0, LIDAR_HEIGHT])
    points = street.scan(place)
    frames = []
    for name, degrees in SENSORS.items():
        pose = camera_pose(degrees)
        path = folder / f"{name}.png"
        grey = street.image(place, pose).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
        camera = Camera(
            torch.from_numpy(INTRINSICS).float(), torch.from_numpy(np.linalg.inv(pose)).float(), WIDTH, HEIGHT
        )
        frames.append(Frame(f"{name}_{number}", camera, color_path=path, time=0.01, sensor=name))
    before = np.array([2.0, 0.0, 0.0])
    files = ArrayFiles({"own": points, "before": street.scan(place - before)})
    sweeps = []
    for name, behind, time in (("own", np.zeros(3), 0.0), ("before", before, -0.2)):
        scene_to_sensor = torch.eye(4)
        scene_to_sensor[:3, 3] = torch.from_numpy(behind)
        sweeps.append(Sweep(name, "lidar", scene_to_sensor, Path(name), time, files=files))
    cloud = PointCloud(torch.from_numpy(points).float())
    return Scene(f"drive/{number:03d}", cloud, tuple(frames), tuple(sweeps), Boxes.empty())


def with_poses(scene: Scene, change: Callable[[str, np.ndarray], np.ndarray]) -> Scene:
    """The scene whose cameras have other poses from the scene into the camera."""

    def changed(frame: Frame) -> Frame:
        pose = change(frame.sensor, frame.camera.world_to_camera.double().numpy())
        return replace(frame, camera=replace(frame.camera, world_to_camera=torch.from_numpy(pose).float()))

    return replace(scene, frames=tuple(map(changed, scene.frames)))


def with_images_of(scene: Scene, names: dict[str, str]) -> Scene:
    """The scene whose cameras have the images of others."""
    paths = {frame.sensor: frame.color_path for frame in scene.frames}
    frames = tuple(
        replace(frame, color_path=paths[names.get(frame.sensor, frame.sensor)]) for frame in scene.frames
    )
    return replace(scene, frames=frames)
