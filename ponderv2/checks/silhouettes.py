"""Where a LiDAR passes the side of an object, and where an image changes across: do these lie on each other?

Both are found without the other, so that they meet only where the calibration is right. Metres, degrees.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

NEAREST, FARTHEST = 3.0, 80.0
"""Of points that are used: nearer ones are the vehicle itself, farther ones too sparse."""
BESIDE, FLAT = 0.8, 6.0
"""Angle to the neighbours of a point, and how many times smaller it is upwards: those of one laser."""
NEIGHBOURS = 8
JUMP, LEAST_JUMP = 0.08, 0.6
"""Of the distance, and in metres: what lies that far behind is another object."""
WIDTH = 400
"""Columns to which images are reduced: a fifth of a degree each."""
AROUND = 0.03
"""Of the width: the neighbourhood whose mean and spread are taken out."""


def silhouettes(points: Float64[ndarray, "point 3"]) -> Float64[ndarray, "edge 3"]:
    """Points on the sides of objects, in the frame of the sensor that measured them.

    Between the last point on the object and the first beside it, at the distance of the object. A point
    counts where all neighbours on one side lie far behind and none on the other does.
    """
    from scipy.spatial import KDTree

    far = np.linalg.norm(points, axis=1)
    used = np.nonzero((np.linalg.norm(points[:, :2], axis=1) > NEAREST) & (far < FARTHEST))[0]
    if len(used) <= NEIGHBOURS:
        return np.zeros((0, 3))
    far, points = far[used], points[used]
    azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    elevation = np.degrees(np.arcsin(points[:, 2] / far))
    angles = np.stack([azimuth, FLAT * elevation], axis=1)
    away, index = KDTree(angles).query(angles, k=NEIGHBOURS + 1, distance_upper_bound=BESIDE)
    away, index = away[:, 1:], np.asarray(index)[:, 1:]
    there = index < len(points)
    beside: Int64[ndarray, "point neighbour"] = np.minimum(index, len(points) - 1)
    gap = far[beside] - far[:, None]
    jump = np.maximum(JUMP * far, LEAST_JUMP)[:, None]
    behind, same = gap > jump, np.abs(gap) <= jump / 2
    right = there & (azimuth[beside] < azimuth[:, None])
    left = there & ~right
    ends = [
        open_side.any(axis=1)
        & own.any(axis=1)
        & (~open_side | behind).all(axis=1)
        & (~own | same).all(axis=1)
        for open_side, own in ((left, right), (right, left))
    ]
    side = np.where(ends[0][:, None], left, right)
    chosen = ends[0] | ends[1]
    nearest = np.where(side, away, np.inf)[chosen].argmin(axis=1)
    first, second = points[chosen], points[beside[chosen, nearest]]
    distance = np.linalg.norm(first, axis=1, keepdims=True)
    return 0.5 * (first + second * distance / np.linalg.norm(second, axis=1, keepdims=True))


def changes_across(grey: Float64[ndarray, "row column"]) -> Float64[ndarray, "_row _column"]:
    """How much the brightness changes from left to right, against what it does nearby; mean 0, spread 1.

    Of an image that is reduced to about WIDTH columns.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter, sobel

    step = max(grey.shape[1] // WIDTH, 1)
    rows, columns = max(grey.shape[0] // step, 1) * step, grey.shape[1] // step * step
    padded = np.pad(grey, ((0, max(rows - grey.shape[0], 0)), (0, 0)), mode="edge")
    small = padded[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    change = np.abs(sobel(gaussian_filter(np.log(small + 8.0), 0.7), axis=1))
    change = np.sqrt(maximum_filter(change, size=3))
    around = AROUND * small.shape[1]
    centred = change - gaussian_filter(change, around)
    spread = gaussian_filter(centred**2, around)
    return centred / np.sqrt(spread + 0.02 * spread.mean() + 1e-9)
