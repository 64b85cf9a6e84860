"""The scan of a room: its frames, the cloud that is fused from them, and the exact mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderv2.geometry.meshes import Mesh
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud
from ponderv2.synthetic.config import RoomConfig
from ponderv2.synthetic.rendering import (
    Pinhole,
    RenderedView,
    RoomRenderer,
    sense_color,
    sense_depth,
    to_bytes,
)
from ponderv2.synthetic.trajectory import make_cameras

DEPTH_SCALE = 0.001
"""Metres per unit of a stored depth image."""


@dataclass(frozen=True)
class Scan:
    """Everything that is stored of a room."""

    cameras: tuple[Pinhole, ...]
    exact: tuple[RenderedView, ...]
    frames: tuple[DecodedFrame, ...]
    cloud: PreparedCloud
    mesh: Mesh


def scan_room(rng: np.random.Generator, renderer: RoomRenderer, config: RoomConfig) -> Scan:
    """Walk through the room, take frames, fuse them."""
    cameras = make_cameras(rng, renderer, config)
    exact = tuple(renderer.render(camera) for camera in cameras)
    frames = tuple(
        _frame(rng, f"{index:04d}", camera, view, config)
        for index, (camera, view) in enumerate(zip(cameras, exact, strict=True))
    )
    cloud = fuse(rng, renderer, cameras, exact, frames, config)
    return Scan(cameras, exact, frames, cloud, reference_mesh(renderer))


def _frame(
    rng: np.random.Generator, name: str, camera: Pinhole, view: RenderedView, config: RoomConfig
) -> DecodedFrame:
    if config.noise:
        color, depth = sense_color(rng, view), sense_depth(rng, view, camera, config)
    else:
        color, depth = to_bytes(view.color), view.depth
    stored = np.round(depth / DEPTH_SCALE).astype(np.uint16)
    return DecodedFrame(
        name,
        camera.intrinsics,
        camera.camera_to_world,
        color,
        stored,
        DEPTH_SCALE,
        view.semantic.astype(np.int16),
    )


def fuse(
    rng: np.random.Generator,
    renderer: RoomRenderer,
    cameras: Sequence[Pinhole],
    exact: Sequence[RenderedView],
    frames: Sequence[DecodedFrame],
    config: RoomConfig,
) -> PreparedCloud:
    """Measured points averaged per cube; class and instance of the nearest true surface.

    Normals are those of the surfaces that the pixels show, averaged, and off by 4 degrees as in a real scan.
    """
    coord, color, normal = [], [], []
    for camera, view, frame in zip(cameras, exact, frames, strict=True):
        assert frame.color is not None and frame.depth is not None  # both images are always made
        seen = frame.depth > 0
        depth = frame.depth[seen] * frame.depth_scale
        coord.append(camera.camera_to_world[:3, 3] + camera.directions[seen] * depth[:, None])
        color.append(frame.color[seen])
        normal.append(view.normal[seen])
    values = np.concatenate([np.concatenate(coord), np.concatenate(color), np.concatenate(normal)], axis=1)
    mean = mean_per_cube(values, config.voxel)
    direction = _unit(mean[:, 6:9])
    if config.noise:
        direction = _unit(
            direction + np.tan(np.deg2rad(4.0)) / np.sqrt(2.0) * rng.standard_normal(direction.shape)
        )
    part = renderer.nearest(mean[:, :3])
    labels = {
        "segment": renderer.surface.part_class[part].astype(np.int16),
        "instance": renderer.surface.part_instance[part].astype(np.int32),
    }
    return PreparedCloud(mean[:, :3].astype(np.float32), to_bytes(mean[:, 3:6] / 255.0), direction, labels)


def _unit(vector: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
    """Unit length; opposite normals that cancelled out become up."""
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    safe = np.where(length > 1e-3, vector / np.maximum(length, 1e-9), np.array([0.0, 0.0, 1.0]))
    return safe.astype(np.float32)


def mean_per_cube(values: Float[np.ndarray, "point field"], edge: float) -> Float[np.ndarray, "cube field"]:
    """Mean of all fields over the points in each cube; the first three fields are the position."""
    cell = np.floor(values[:, :3] / edge).astype(np.int64)
    cell -= cell.min(axis=0)
    size = cell.max(axis=0) + 1
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    order = np.argsort(key, kind="stable")
    cube = np.empty(len(key), dtype=np.int64)
    cube[order] = np.cumsum(np.diff(key[order], prepend=key[order[0]]) > 0)
    sums = np.stack([np.bincount(cube, weights=field) for field in values.T], axis=1)
    return sums / np.bincount(cube)[:, None]


def reference_mesh(renderer: RoomRenderer) -> Mesh:
    """The exact surface, with the mean colour of each part at its vertices."""
    surface = renderer.surface
    color = np.array([(np.array(material.first) + material.second) / 2 for material in surface.materials])
    part = np.zeros(len(surface.vertices), dtype=np.int64)
    part[surface.faces] = surface.face_part[:, None]
    vertices = surface.vertices.astype(np.float32)
    return Mesh.of_arrays(vertices, surface.faces, to_bytes(color[part]))
