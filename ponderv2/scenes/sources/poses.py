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
FARTHEST = 1e8
"""Metres. Coordinates fixed to the Earth reach 6.4e6; recordings that far away get an origin of their own."""
SAME_FACTOR = 1e-2
"""Relative difference up to which rotation parts of several poses have one common factor."""


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
