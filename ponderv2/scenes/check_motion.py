"""Do poses change when images change? They should, whatever the conventions of poses and intrinsics are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ponderv2.scenes.check_agreement import Samples
from ponderv2.scenes.check_scale import median_depth

FEWEST_STEPS = 6
TOGETHER, APART = 0.5, 0.2
"""Rank correlation of the two changes from which on poses and images belong together, and below which they do
not. Every recording at hand reaches 0.6 or more; its images in another order stay below 0.2."""
SAME_POSE, SAME_IMAGE = 1e-6, 1e-4
"""Changes below these are none. Sensors have noise: the depth of a camera at rest changes by more than the
second."""


def motion_correlation(samples: list[Samples]) -> float | None:
    """Spearman's, of the sizes of pose and image changes of neighbours; None for fewer than 7 frames."""
    pose, image = changes(samples)
    if len(pose) < FEWEST_STEPS or np.ptp(pose) == 0 or np.ptp(image) == 0:
        return None
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (pose, image)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def words_on_motion(samples: list[Samples]) -> str:
    """What pose and image changes say where frames disagree and no reading explains it; may be empty."""
    pose, image = changes(samples)
    if len(pose) and pose.max() < SAME_POSE < SAME_IMAGE < image.max():
        return "all poses are the same, though the images differ"
    if len(pose) and image.max() < SAME_IMAGE and pose.max() > SAME_POSE:
        return "all depth images are the same, though the poses differ"
    found = motion_correlation(samples)
    if found is not None and found > TOGETHER:
        return "poses change when images change: conventions or intrinsics are wrong, not the order"
    if found is not None and found < APART:
        return "poses do not change when images change: they are out of step or of another recording"
    return ""


def changes(samples: list[Samples]) -> tuple[np.ndarray, np.ndarray]:
    """Of neighbours: radians plus translation over median depth, and mean relative change of depth, at most
    1."""
    unit = max(median_depth(samples), 1e-9)
    pose, image = [], []
    for one, two in pairwise(samples):
        if one.depth.shape != two.depth.shape:
            continue
        relative = np.linalg.inv(one.camera_to_world) @ two.camera_to_world
        cosine = np.clip((np.trace(relative[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
        pose.append(float(np.arccos(cosine) + np.linalg.norm(relative[:3, 3]) / unit))
        row, column = one.pixel[:, 1].astype(np.int64), one.pixel[:, 0].astype(np.int64)
        before, after = one.depth[row, column], two.depth[row, column]
        change = np.where(after > 0, np.abs(after - before) / before, 1.0)
        image.append(float(np.minimum(change, 1.0).mean()))
    return np.array(pose), np.array(image)
