"""A box-shaped room with images computed in closed form: exact depth, colours given by position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore

SIZE = np.array([4.0, 3.0, 2.5])
"""The room spans 0..SIZE, metres."""
WIDTH, HEIGHT = 32, 24
CLASS_NAMES = ("wall", "floor", "ceiling")


def color_at(points: np.ndarray) -> np.ndarray:
    """Colour 0..255 of a place in the room: its position."""
    return np.clip(np.rint(points / SIZE * 255.0), 0, 255).astype(np.uint8)


def class_at(points: np.ndarray) -> np.ndarray:
    """0 wall, 1 floor, 2 ceiling."""
    z = points[..., 2]
    return np.where(z < 1e-4, 1, np.where(z > SIZE[2] - 1e-4, 2, 0)).astype(np.int64)


def room_cloud(n_points: int = 4000, seed: int = 0) -> PreparedCloud:
    """Points spread evenly over walls, floor and ceiling."""
    rng = np.random.default_rng(seed)
    axis = rng.choice(3, size=n_points, p=np.array([7.5, 10.0, 12.0]) / 29.5)
    coord = rng.uniform(0, 1, (n_points, 3)) * SIZE
    far = rng.integers(0, 2, n_points)
    rows = np.arange(n_points)
    coord[rows, axis] = far * SIZE[axis]
    normal = np.zeros((n_points, 3))
    normal[rows, axis] = 1.0 - 2.0 * far
    labels = {"segment": class_at(coord), "instance": np.arange(n_points)}
    return PreparedCloud(coord.astype(np.float32), color_at(coord), normal.astype(np.float32), labels)


def look(position: np.ndarray, angle: float) -> np.ndarray:
    """Camera-to-world pose with a horizontal view in the direction of `angle`, radians from +x."""
    forward = np.array([np.cos(angle), np.sin(angle), -0.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def exact_image(name: str, position: np.ndarray, angle: float) -> DecodedFrame:
    """Depth to the nearest wall by the slab rule."""
    intrinsics = np.array([[25.0, 0, (WIDTH - 1) / 2], [0, 25.0, (HEIGHT - 1) / 2], [0, 0, 1.0]])
    pose = look(position, angle)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float64)
    directions = pixels @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        reach = np.where(directions > 0, (SIZE - position) / directions, -position / directions)
    depth = reach.min(axis=-1)
    surface = position + directions * depth[..., None]
    millimetres = np.rint(depth * 1000).astype(np.uint16)
    return DecodedFrame(name, intrinsics, pose, color_at(surface), millimetres, 0.001, class_at(surface))


def room_frames(n_frames: int = 6, n_held_out: int = 2) -> list[DecodedFrame]:
    """Images from places around the middle; the last ones are held out."""
    frames = []
    for i in range(n_frames):
        angle = 2 * np.pi * i / n_frames
        position = np.array([2.0 - 0.5 * np.cos(angle), 1.5 - 0.5 * np.sin(angle), 1.4])
        frame = exact_image(f"{i:04d}", position, angle)
        frames.append(replace(frame, held_out=i >= n_frames - n_held_out))
    return frames


def write_store(
    root: Path,
    n_scenes: int = 3,
    frames: list[DecodedFrame] | None = None,
    n_points: int = 4000,
    splits: tuple[str, ...] = ("train",),
) -> SceneStore:
    """Rooms of one shape with different points."""
    info = DatasetInfo("boxes", CLASS_NAMES, ((1, 2, 3), (4, 5, 6), (7, 8, 9)), splits=splits)
    store = SceneStore.create(root, info)
    for split in splits:
        for i in range(n_scenes):
            taken = room_frames() if frames is None else frames
            store.write(split, f"room{i}", SceneStream.of(room_cloud(n_points, seed=i), taken))
    return store
