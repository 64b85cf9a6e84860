"""Camera poses of a recording: what is invalid is dropped, what is only rounded is put right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

TOLERANCE = 2e-2
"""Largest deviation of R^T R from the identity that counts as rounding."""
EXACT = 1e-6
"""Deviation below which nothing is changed."""


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


def clean_poses(poses: Float[ndarray, "frame 4 4"]) -> CleanPoses:
    """The nearest orthonormal rotation of each pose (polar decomposition); mirrored poses stay mirrored."""
    reasons = [_fault(pose) for pose in poses]
    cleaned = np.array(poses, np.float64)
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
    return CleanPoses(cleaned, np.array([not reason for reason in reasons], bool), tuple(reasons), n_rounded)


def _fault(pose: Float[ndarray, "4 4"]) -> str:
    """What is wrong with a pose; empty when nothing is."""
    if not np.isfinite(pose).all():
        return "not finite"
    if not pose[:3, :3].any():
        return "zero"
    if np.abs(pose[3] - (0.0, 0.0, 0.0, 1.0)).max() > 1e-4 or _deviation(pose[:3, :3]) > TOLERANCE:
        return "not a rotation"
    return "too far away" if np.abs(pose[:3, 3]).max() > 1e6 else ""


def _deviation(rotation: Float[ndarray, "3 3"]) -> float:
    return float(np.abs(rotation.T @ rotation - np.eye(3)).max())
