"""Camera poses of a recording: what is invalid is dropped, what is only rounded is corrected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

TOLERANCE = 2e-2
"""Largest deviation of R^T R from the identity that counts as rounding."""
EXACT = 1e-6
"""Deviation below which nothing is changed."""
FARTHEST = 1e8
"""Metres. Coordinates fixed to the Earth reach 6.4e6; recordings that far away get an origin of their own."""
SAME_FACTOR = 1e-2
"""Relative difference up to which rotation parts of several poses have one common factor."""
SIMULTANEOUS = 0.01
"""Seconds. Before the first and after the last pose, and in a gap, a pose this near is taken as it is."""
SAME_TIME = 1e-6
"""Seconds below which two times are one."""


@dataclass(frozen=True)
class CleanPoses:
    """Poses after the inspection."""

    camera_to_world: Float[ndarray, "frame 4 4"]
    """Orthonormal where valid; undefined elsewhere."""
    valid: Bool[ndarray, " frame"]
    reasons: tuple[str, ...]
    """One word or two per frame: empty when valid."""
    n_rounded: int
    """Valid poses whose rotation was made orthonormal."""
    factor: float = 1.0
    """Of the rotation parts, divided out: poses were similarities. Translations are as they were."""


def clean_poses(poses: Float[ndarray, "frame 4 4"], similarities: bool = False) -> CleanPoses:
    """The nearest orthonormal rotation of each pose (polar decomposition); mirrored poses stay mirrored.

    With `similarities` a factor that the rotation parts have in common is divided out of them; otherwise
    such poses are not valid.
    """
    cleaned = np.array(poses, np.float64)
    factor = _common_factor(cleaned) if similarities else 1.0
    if factor != 1.0:
        cleaned[:, :3, :3] /= factor
    reasons = [_fault(pose) for pose in cleaned]
    n_rounded = 0
    for index, reason in enumerate(reasons):
        if reason:
            continue
        rotation = cleaned[index, :3, :3]
        cleaned[index, 3] = 0.0, 0.0, 0.0, 1.0
        if _deviation(rotation) > EXACT:
            left, _, right = np.linalg.svd(rotation)
            cleaned[index, :3, :3] = left @ right
            n_rounded += 1
    return CleanPoses(
        cleaned, np.array([not reason for reason in reasons], bool), tuple(reasons), n_rounded, factor
    )


def _common_factor(poses: Float[ndarray, "frame 4 4"]) -> float:
    """s where more than half of the usable rotation parts are s R; 1 where s is about 1, or none."""
    usable = np.isfinite(poses).all(axis=(1, 2)) & poses[:, :3, :3].any(axis=(1, 2))
    if not usable.any():
        return 1.0
    rotations = poses[usable, :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        factors = np.cbrt(np.abs(np.linalg.det(rotations)))
    middle = float(np.median(factors))
    if not 1e-4 < middle < 1e4 or abs(middle - 1.0) <= SAME_FACTOR:
        return 1.0
    similar = [
        abs(factor / middle - 1.0) < SAME_FACTOR and _deviation(rotation / factor) <= TOLERANCE
        for factor, rotation in zip(factors, rotations, strict=True)
    ]
    return middle if np.mean(similar) > 0.5 else 1.0


def _fault(pose: Float[ndarray, "4 4"]) -> str:
    """What is wrong with a pose; empty when nothing is."""
    if not np.isfinite(pose).all():
        return "not finite, or no numbers"
    if not pose[:3, :3].any():
        return "zero"
    if pose[3, :3].any() and not pose[:3, 3].any() and _deviation(pose[:3, :3]) <= TOLERANCE:
        return "transposed: the translation is in the last row"
    if np.abs(pose[3] - (0.0, 0.0, 0.0, 1.0)).max() > 1e-4 or _deviation(pose[:3, :3]) > TOLERANCE:
        return "not a rotation"
    return "too far away" if np.abs(pose[:3, 3]).max() > FARTHEST else ""


def _deviation(rotation: Float[ndarray, "3 3"]) -> float:
    return float(np.abs(rotation.T @ rotation - np.eye(3)).max())


def rotation_of_quaternion(quaternion: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """Rotation matrix of (x, y, z, w); not-a-number for a quaternion without length."""
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(norm) or norm < 1e-6:
        return np.full((3, 3), np.nan)
    x, y, z, w = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@dataclass(frozen=True)
class PosesInTime:
    """Poses at the times of images."""

    camera_to_world: Float[ndarray, "time 4 4"]
    """Not-a-number where there is none."""
    known: Bool[ndarray, " time"]
    interpolated: Bool[ndarray, " time"]
    neighbour: Bool[ndarray, " time"]
    """Has the pose of another time, at most `SIMULTANEOUS` seconds away."""
    distance: Float[ndarray, " time"]
    """Seconds to the nearest pose."""
    n_invalid: int
    """Poses that were left out beforehand: not finite, or no rotation."""


def poses_at(
    times: Float[ndarray, " time"],
    pose_times: Float[ndarray, " pose"],
    camera_to_world: Float[ndarray, "pose 4 4"],
    gap: float,
) -> PosesInTime:
    """Poses between two others that are at most `gap` seconds apart; `pose_times` may be in any order.

    Positions are interpolated linearly, rotations along the shortest turn (slerp). Invalid poses are left out
    beforehand. A time beyond the ends or in a longer gap has a pose only where one is `SIMULTANEOUS`.
    """
    clean = clean_poses(camera_to_world)
    n_valid = int(clean.valid.sum())
    n_invalid = len(clean.valid) - n_valid
    order = np.argsort(np.where(clean.valid, pose_times, np.inf), kind="stable")[:n_valid]
    when, poses = pose_times[order], clean.camera_to_world[order]
    result = np.full((len(times), 4, 4), np.nan)
    none = np.zeros(len(times), bool)
    if n_valid == 0:
        return PosesInTime(result, none, none, none, np.full(len(times), np.inf), n_invalid)
    after = np.searchsorted(when, times)
    one, two = np.clip(after - 1, 0, n_valid - 1), np.clip(after, 0, n_valid - 1)
    nearest = np.where(np.abs(times - when[one]) <= np.abs(times - when[two]), one, two)
    distance = np.abs(times - when[nearest])
    exact = distance <= SAME_TIME
    inside = (when[one] <= times) & (times <= when[two]) & (when[two] - when[one] <= gap + SAME_TIME)
    between = inside & ~exact
    neighbour = (distance <= SIMULTANEOUS) & ~exact & ~between
    taken = exact | neighbour
    result[taken] = poses[nearest[taken]]
    if between.any():
        span = when[two] - when[one]
        share = (times - when[one])[between] / span[between]
        result[between] = _between(poses[one[between]], poses[two[between]], share)
    return PosesInTime(result, taken | between, between, neighbour, distance, n_invalid)


def _between(
    first: Float[ndarray, "time 4 4"], second: Float[ndarray, "time 4 4"], share: Float[ndarray, " time"]
) -> Float[ndarray, "time 4 4"]:
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(np.swapaxes(first[:, :3, :3], 1, 2) @ second[:, :3, :3]).as_rotvec()
    poses = first.copy()
    poses[:, :3, :3] = first[:, :3, :3] @ Rotation.from_rotvec(share[:, None] * turn).as_matrix()
    poses[:, :3, 3] += share[:, None] * (second[:, :3, 3] - first[:, :3, 3])
    return poses
