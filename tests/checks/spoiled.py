"""Recordings in memory and the mistakes that are made with them: input of the tests of the reprojection
check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.geometry.cameras import Camera
from ponderv2.scenes.scene import Frame, PointCloud, Scene
from tests.scenes import box_room


@dataclass(frozen=True)
class Recording:
    """What the files of a recording say, right or wrong; a pinhole camera for both images."""

    ids: tuple[str, ...]
    depth: np.ndarray
    """[frame, row, column], metres."""
    color: np.ndarray
    """[frame, row, column, 3], 0..255."""
    intrinsics: np.ndarray
    poses: np.ndarray
    """[frame, 4, 4], camera-to-world."""

    def scene(self) -> Scene:
        """Frames as they are given, and the points that fusing them gives."""
        images = MemoryImages(self.depth.astype(np.float32), self.color)
        height, width = self.depth.shape[1:]
        frames, points = [], []
        for index, (name, pose) in enumerate(zip(self.ids, self.poses, strict=True)):
            camera = Camera(
                torch.from_numpy(self.intrinsics).float(),
                torch.from_numpy(np.linalg.inv(pose)).float(),
                width,
                height,
            )
            path = Path(str(index))
            frames.append(Frame(name, camera, 1.0, path, path, images=images))
            step = max(width // 60, 1)
            row, column = np.mgrid[0:height:step, 0:width:step]
            depth = self.depth[index, ::step, ::step]
            ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(self.intrinsics).T
            points.append((ray * depth[..., None])[depth > 0] @ pose[:3, :3].T + pose[:3, 3])
        coord = torch.from_numpy(np.concatenate(points)).float()
        return Scene(
            "spoiled", PointCloud(coord, torch.zeros_like(coord), torch.ones_like(coord)), tuple(frames)
        )

    def take(self, index: list[int] | range | np.ndarray) -> Recording:
        """Some of the frames."""
        chosen = list(index)
        ids = tuple(self.ids[one] for one in chosen)
        return replace(
            self, ids=ids, depth=self.depth[chosen], color=self.color[chosen], poses=self.poses[chosen]
        )


@dataclass(frozen=True)
class MemoryImages:
    """Images by the number of the frame."""

    depths: np.ndarray
    colors: np.ndarray

    def color(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        return self.colors[int(path.name)]

    def depth(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        return self.depths[int(path.name)]

    def semantic(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        return np.full((size[1], size[0]), -1, np.int64)


def room(count: int = 20) -> Recording:
    """Exact frames of the box room with chequered surfaces; the camera turns and moves unevenly."""
    intrinsics = np.array([[95.0, 0, 59.5], [0, 95.0, 44.5], [0, 0, 1]])
    depth, color, poses = [], [], []
    for index, step in enumerate(np.linspace(0.0, 1.0, count)):
        angle = 0.3 + 2.2 * step + 0.25 * np.sin(9.0 * step)
        eye = (1.5 * np.cos(angle), 1.1 * np.sin(angle), 1.4 + 0.2 * np.sin(7.0 * step))
        target = (-0.2 + 0.3 * np.sin(5.0 * step), 0.2, 0.8 + 0.2 * np.cos(11.0 * step + index % 2))
        shot = box_room.shoot(box_room.look(eye, target), intrinsics, (120, 90))
        depth.append(shot.depth)
        color.append(_chequered(shot, intrinsics))
        poses.append(shot.pose)
    ids = tuple(f"{one:06d}" for one in range(count))
    return Recording(ids, np.stack(depth), np.stack(color), intrinsics, np.stack(poses))


def _chequered(shot: box_room.Shot, intrinsics: np.ndarray) -> np.ndarray:
    height, width = shot.depth.shape
    row, column = np.mgrid[0:height, 0:width]
    ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(intrinsics).T
    point = (ray * shot.depth[..., None]) @ shot.pose[:3, :3].T + shot.pose[:3, 3] - 1e-4
    bright = np.floor(point / 0.3).astype(int).sum(axis=-1) % 2 == 0
    return (shot.color * np.where(bright, 1.0, 0.6)[..., None]).astype(np.uint8)


def kitchen(folder: Path, numbers: range | list[int] = range(0, 600, 4), shrink: int = 2) -> Recording:
    """Real frames of 7-Scenes, every `shrink`-th pixel, colour as it is: not registered to depth."""
    depth, color, poses = [], [], []
    for one in numbers:
        values = np.asarray(Image.open(folder / f"frame-{one:06d}.depth.png")).astype(np.float64) / 1000
        depth.append(np.where(values < 60, values, 0.0)[::shrink, ::shrink])
        image = Image.open(folder / f"frame-{one:06d}.color.jpg")
        color.append(np.asarray(image.resize((image.width // shrink, image.height // shrink))))
        poses.append(np.loadtxt(folder / f"frame-{one:06d}.pose.txt"))
    intrinsics = np.array(
        [[585.0 / shrink, 0, 320.0 / shrink], [0, 585.0 / shrink, 240.0 / shrink], [0, 0, 1]]
    )
    ids = tuple(f"{one:06d}" for one in numbers)
    return Recording(ids, np.stack(depth), np.stack(color), intrinsics, np.stack(poses))


# Mistakes ---------------------------------------------------------------------------------------------------


def with_poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Recording], Recording]:
    return lambda given: replace(given, poses=np.stack([change(one) for one in given.poses]))


def with_intrinsics(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Recording], Recording]:
    return lambda given: replace(given, intrinsics=change(given.intrinsics.copy()))


def with_depth(factor: float) -> Callable[[Recording], Recording]:
    return lambda given: replace(given, depth=given.depth * factor)


def with_color(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Recording], Recording]:
    return lambda given: replace(given, color=np.stack([change(one) for one in given.color]))


def along_ray(given: Recording) -> Recording:
    """Distance from the camera centre in place of depth."""
    height, width = given.depth.shape[1:]
    row, column = np.mgrid[0:height, 0:width]
    ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(given.intrinsics).T
    return replace(given, depth=given.depth * np.linalg.norm(ray, axis=-1))


def scaled_translation(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(pose: np.ndarray) -> np.ndarray:
        pose = pose.copy()
        pose[:3, 3] *= factor
        return pose

    return change


def rotation_transposed(pose: np.ndarray) -> np.ndarray:
    pose = pose.copy()
    pose[:3, :3] = pose[:3, :3].T
    return pose


def quaternion_rolled(columns: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The quaternion (x, y, z, w) written in another order and read as if it were not."""

    def change(pose: np.ndarray) -> np.ndarray:
        pose = pose.copy()
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        pose[:3, :3] = Rotation.from_quat(quaternion[columns]).as_matrix()
        return pose

    return change


def out_of_step(kinds: str, shift: int) -> Callable[[Recording], Recording]:
    """Images of frame i + shift stand beside the pose of frame i; `kinds`: color, both."""

    def change(given: Recording) -> Recording:
        n = len(given.ids)
        here = [one for one in range(n) if 0 <= one + shift < n]
        there = [one + shift for one in here]
        depth = given.depth[there] if kinds == "both" else given.depth[here]
        return replace(given.take(here), color=given.color[there], depth=depth)

    return change


def moved(right: int, down: int) -> Callable[[np.ndarray], np.ndarray]:
    """An image shifted by pixels, its border repeated."""

    def change(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        row = np.clip(np.arange(height) - down, 0, height - 1)
        column = np.clip(np.arange(width) - right, 0, width - 1)
        return image[row][:, column]

    return change


def zoomed(across: float, along: float | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """An image enlarged about its middle: what a wrong focal length of the colour camera gives."""
    along = across if along is None else along

    def change(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        row = (np.arange(height) - (height - 1) / 2) / along + (height - 1) / 2
        column = (np.arange(width) - (width - 1) / 2) / across + (width - 1) / 2
        row = np.clip(row.round().astype(int), 0, height - 1)
        column = np.clip(column.round().astype(int), 0, width - 1)
        return image[row][:, column]

    return change
