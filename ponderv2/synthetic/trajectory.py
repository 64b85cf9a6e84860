"""The camera path of a recorded room: hand-held, walking, turning around."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.config import RoomConfig
from ponderv2.synthetic.rendering import Pinhole, RoomRenderer
from ponderv2.synthetic.room import Room

CLEARANCE = 0.22
"""Between a camera and the box of any part, metres."""


def make_cameras(rng: np.random.Generator, renderer: RoomRenderer, config: RoomConfig) -> tuple[Pinhole, ...]:
    """Cameras along a walk through the free space. They turn one and a half times and nod."""
    spots = free_spots(rng, renderer.room)
    walk = _walk(rng, spots, config.frames)
    intrinsics = _intrinsics(rng, config)
    phase, turns = rng.uniform(0, 2 * np.pi), rng.choice((-1.0, 1.0)) * rng.uniform(1.2, 2.2)
    nod, nod_phase = rng.uniform(0.5, 3.0), rng.uniform(0, 2 * np.pi)
    cameras = []
    for index, eye in enumerate(walk):
        share = index / max(config.frames, 1)
        yaw = phase + 2 * np.pi * turns * share + rng.normal(0.0, 0.12)
        pitch = -0.3 + 0.32 * np.sin(2 * np.pi * nod * share + nod_phase) + rng.normal(0.0, 0.06)
        yaw = _clearest(renderer, eye, yaw, pitch, config.field_of_view[0])
        pose = pose_of_view(eye, yaw, pitch, float(rng.normal(0.0, 0.05)))
        cameras.append(Pinhole(intrinsics, pose, config.width, config.height))
    return tuple(cameras)


def pose_of_view(
    eye: Float[np.ndarray, "3"], yaw: float, pitch: float, roll: float
) -> Float[np.ndarray, "4 4"]:
    """Camera-to-world pose: yaw about the vertical from +x, pitch upwards, roll about the optical axis."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    pose[:3, 2] = forward
    pose[:3, 3] = eye
    return pose


def free_spots(rng: np.random.Generator, room: Room) -> Float[np.ndarray, "spot 3"]:
    """Positions at hand height away from walls and furniture; the clearest ones where the room is crammed."""
    low, high = room.plan.corners.min(axis=0), room.plan.corners.max(axis=0)
    x, y = np.meshgrid(np.arange(low[0], high[0], 0.15), np.arange(low[1], high[1], 0.15))
    flat = np.stack([x.ravel(), y.ravel()], axis=1)
    flat = flat[room.plan.contains(flat, 0.35)]
    spots = np.column_stack([flat, rng.uniform(1.15, 1.75, len(flat))])
    spots = spots[_gap(spots, room) > CLEARANCE]
    if len(spots) < 3:
        below_ceiling = np.column_stack([flat, np.full(len(flat), room.plan.height - 0.3)])
        spots = below_ceiling[np.argsort(-_gap(below_ceiling, room), kind="stable")[:8]]
    return spots


def _gap(points: Float[np.ndarray, "spot 3"], room: Room) -> Float[np.ndarray, " spot"]:
    """Distance to the nearest box of a part, 0 inside."""
    gap = np.full(len(points), np.inf)
    for thing in room.things:
        if thing.name in ("wall", "floor", "ceiling"):
            continue
        boxes = thing.boxes()
        local = (points - thing.pose[:3, 3]) @ thing.pose[:3, :3]
        outside = np.maximum(np.maximum(boxes[:, 0] - local[:, None], local[:, None] - boxes[:, 1]), 0.0)
        gap = np.minimum(gap, np.linalg.norm(outside, axis=-1).min(axis=1))
    return gap


def _walk(
    rng: np.random.Generator, spots: Float[np.ndarray, "spot 3"], count: int
) -> Float[np.ndarray, "frame 3"]:
    """A smooth closed way through random free spots; each frame stands on the free spot nearest to it."""
    stops = spots[rng.choice(len(spots), size=min(5, len(spots)), replace=False)]
    middle = stops.mean(axis=0)
    stops = stops[np.argsort(np.arctan2(stops[:, 1] - middle[1], stops[:, 0] - middle[0]), kind="stable")]
    at = np.arange(count) / count * len(stops)
    first = at.astype(int) % len(stops)
    share = (at - at.astype(int))[:, None]
    way = stops[first] * (1 - share) + stops[(first + 1) % len(stops)] * share
    nearest = np.linalg.norm(way[:, None] - spots[None], axis=2).argmin(axis=1)
    return spots[nearest] + rng.uniform(-0.05, 0.05, (count, 3))


def _intrinsics(rng: np.random.Generator, config: RoomConfig) -> Float[np.ndarray, "3 3"]:
    """Square pixels but for 1 %, the principal point near the middle."""
    angle = np.deg2rad(rng.uniform(*config.field_of_view))
    focal = config.width / 2 / np.tan(angle / 2)
    shift = rng.uniform(-0.01, 0.01, 2) * config.width
    matrix = np.eye(3)
    matrix[0, 0], matrix[1, 1] = focal, focal * rng.uniform(0.99, 1.01)
    matrix[0, 2], matrix[1, 2] = (config.width - 1) / 2 + shift[0], (config.height - 1) / 2 + shift[1]
    return matrix


def _clearest(
    renderer: RoomRenderer, eye: Float[np.ndarray, "3"], yaw: float, pitch: float, field_of_view: float
) -> float:
    """The wanted direction, or one a little beside it where that shows something near or hardly anything."""
    focal = 6.0 / np.tan(np.deg2rad(field_of_view) / 2)
    small = np.array([[focal, 0.0, 5.5], [0.0, focal, 4.0], [0.0, 0.0, 1.0]])
    best, best_score = yaw, 0.0
    for offset in (0.0, 0.4, -0.4, 0.8, -0.8, np.pi):
        directions = Pinhole(small, pose_of_view(eye, yaw + offset, pitch, 0.0), 12, 9).directions.reshape(
            -1, 3
        )
        depth, face, _ = renderer.cast(np.broadcast_to(eye, directions.shape), directions)
        part = renderer.surface.face_part[face[face >= 0]]
        n_things = len(np.unique(renderer.surface.part_instance[part]))
        score = min(float(np.quantile(depth, 0.4)) / 1.2, 1.0) * min(n_things / 5.0, 1.0)
        if score >= 1.0:
            return yaw + offset
        if score > best_score:
            best, best_score = yaw + offset, score
    return best
