"""Which way is up: the most common surface direction near the mean up vector of the cameras."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

NEAR = 50.0
"""Degrees between the cameras' mean up vector and the true one, at most."""
SAME = 6.0
"""Degrees within which normals count as one plane direction."""
MIN_SUPPORT = 0.06
"""Share of all normals that must agree."""
AXES = {
    "x": (1.0, 0.0, 0.0), "-x": (-1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0),
    "-y": (0.0, -1.0, 0.0), "z": (0.0, 0.0, 1.0), "-z": (0.0, 0.0, -1.0),
}  # fmt: skip


def estimate_up(
    normals: Float[ndarray, "point 3"], camera_to_world: Float[ndarray, "frame 4 4"]
) -> tuple[Float[ndarray, "3"], float] | None:
    """Unit vector and the share of normals that agree; None when there is no clear answer.

    Normals of floors and table tops point up, those of ceilings down: both count.
    """
    mean = -camera_to_world[:, :3, 1].mean(axis=0)
    if np.linalg.norm(mean) < 0.3 or len(normals) < 100:
        return None
    mean = mean / np.linalg.norm(mean)
    upward = normals * np.where(normals @ mean < 0, -1.0, 1.0)[:, None]
    near = upward[upward @ mean > np.cos(np.deg2rad(NEAR))]
    if not len(near):
        return None
    step = max(len(near) // 500, 1)
    candidate = near[::step]
    votes = ((candidate @ near.T) > np.cos(np.deg2rad(SAME))).sum(axis=1)
    up = candidate[votes.argmax()]
    for _ in range(5):
        agreeing = near[near @ up > np.cos(np.deg2rad(SAME))]
        up = agreeing.mean(axis=0)
        up = up / np.linalg.norm(up)
    share = float((near @ up > np.cos(np.deg2rad(SAME))).sum() / len(normals))
    return (up, share) if share >= MIN_SUPPORT else None


def normals_of_depth(
    depth: Float[ndarray, "row column"], intrinsics: Float[ndarray, "3 3"], step: int
) -> Float[ndarray, "point 3"]:
    """Normals in camera coordinates on a coarse grid, from the neighbours `step` pixels away."""
    height, width = depth.shape
    row, column = np.mgrid[step : height - step : step, step : width - step : step]

    def points(dy: int, dx: int) -> ndarray:
        z = depth[row + dy, column + dx]
        x = (column + dx - intrinsics[0, 2]) / intrinsics[0, 0]
        y = (row + dy - intrinsics[1, 2]) / intrinsics[1, 1]
        return np.stack([x * z, y * z, z], axis=-1)

    left, right, above, below = points(0, -step), points(0, step), points(-step, 0), points(step, 0)
    corners = np.stack([left[..., 2], right[..., 2], above[..., 2], below[..., 2]])
    smooth = (corners > 0).all(axis=0) & (np.ptp(corners, axis=0) < 0.15 * corners.mean(axis=0) + 1e-6)
    normal = np.cross((below - above)[smooth], (right - left)[smooth])
    length = np.linalg.norm(normal, axis=1)
    return normal[length > 0] / length[length > 0, None]


def turn_up(up: Float[ndarray, "3"]) -> Float[ndarray, "4 4"]:
    """The smallest rotation that takes `up` to z."""
    target = np.array([0.0, 0.0, 1.0])
    axis, cosine = np.cross(up, target), float(up @ target)
    turn = np.eye(4)
    if cosine < -1 + 1e-12:
        turn[:3, :3] = np.diag([1.0, -1.0, -1.0])
    else:
        skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn[:3, :3] = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return turn
