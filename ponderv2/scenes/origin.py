"""Coordinates far from zero, and points far from all others. Metres, double precision.

Single precision has steps of half a metre at 5 000 000 m, where UTM and ECEF coordinates lie. What is far is
therefore moved by an origin that is subtracted in double precision before anything becomes single precision;
adding it to a result leads back. Points far from all others (a return from the sun, a zero among UTM
coordinates) are ignored in where a cloud is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

Origin = tuple[float, float, float]
"""Metres. What was subtracted from coordinates."""
FAR_FROM_ZERO = 200.0
"""Metres, along an axis, to the nearest coordinate. Single precision has steps of 0.015 mm there."""
APART = 20.0
"""Metres that a point has to lie away from the middle at least before it counts as far from all others."""
TIMES_APART = 10.0
"""And N times as far as nearly all others."""
_MOST_GROUPS = 16
_CUBE = 200.0
"""Metres."""
LARGE = 500.0
"""Metres. A larger scene is perhaps not in metres."""
COARSE = 1.0e-3
"""Metres. A file whose numbers have larger steps is reported."""


def far_outliers(coord: Float[ndarray, "point 3"]) -> Bool[ndarray, " point"]:
    """Points at least ten times as far from the middle (median) as 90 % of all points, and at least 20 m.

    Distances are largest differences along an axis. Of few points a smaller share has to be near: 80 % of
    fewer than 40, half of fewer than 5. Of two points none is far. Points that are not finite are not far.
    """
    far = np.zeros(len(coord), bool)
    finite = np.isfinite(coord).all(axis=1)
    known = coord if finite.all() else coord[finite]
    if len(known) < 3 or (known.max(axis=0) - known.min(axis=0)).max() <= APART:
        return far
    known = known.astype(np.float64)
    distance = np.abs(known - np.median(known, axis=0)).max(axis=1)
    share = 0.9 if len(known) >= 40 else 0.8 if len(known) >= 5 else 0.5
    usual = float(np.quantile(distance, share, method="lower"))
    far[finite] = distance > max(TIMES_APART * usual, APART)
    return far


def far_groups(
    coord: Float[ndarray, "point 3"],
) -> tuple[list[Int[ndarray, " member"]], Int[ndarray, " single"]]:
    """The points without those far from all others; of these, the points of the fullest cubes of 200 m.

    Returns at most sixteen groups, the first of which is not empty where there are points, and the points
    that are left then. Together they are all points, each once.
    """
    far = far_outliers(coord)
    groups, rest = [np.flatnonzero(~far)], np.flatnonzero(far)
    cube = np.floor(coord[rest].astype(np.float64) / _CUBE)
    _, member, count = np.unique(cube, axis=0, return_inverse=True, return_counts=True)
    fullest = np.argsort(-count, kind="stable")[: _MOST_GROUPS - 1]
    groups += [rest[member.reshape(-1) == one] for one in fullest if count[one] > 1]
    grouped = np.concatenate(groups)
    return groups, np.setdiff1d(rest, grouped)


def middle_of(coord: Float[ndarray, "point 3"]) -> Float64[ndarray, "3"]:
    """Middle of the bounding box in x and y, lowest point in z, of the points without far outliers."""
    near = coord[np.isfinite(coord).all(axis=1)]
    near = near[~far_outliers(near)].astype(np.float64)
    if len(near) == 0:
        return np.zeros(3)
    low, high = near.min(axis=0), near.max(axis=0)
    return np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])


def origin_of(*coords: Float[ndarray, "_point 3"]) -> Float64[ndarray, "3"]:
    """What to subtract from coordinates: zero where their bounding box is near zero, else their middle.

    A scan of a long range has zero, its sensor, in or beside the box and stays, however far its points reach.
    Several arrays (points, positions of cameras) have one origin: that of the first which is not empty.
    """
    for coord in coords:
        near = coord[np.isfinite(coord).all(axis=1)]
        near = near[~far_outliers(near)]
        if len(near):
            to_box = np.maximum(near.min(axis=0), -near.max(axis=0))
            return middle_of(near) if to_box.max() > FAR_FROM_ZERO else np.zeros(3)
    return np.zeros(3)


def compact(coord: Float[ndarray, "point 3"]) -> Float[ndarray, "point 3"]:
    """Single precision where nothing lies far from zero, else the double precision that an origin needs."""
    near = coord.size == 0 or np.abs(coord).max() <= FAR_FROM_ZERO  # not so for numbers that are not finite
    return coord.astype(np.float32 if near else np.float64)


def near_pose(camera_to_world: Float[ndarray, "4 4"], origin: ndarray) -> Float[ndarray, "4 4"]:
    """The pose in the frame of points from which `origin` was subtracted; in double precision."""
    pose = camera_to_world.astype(np.float64)
    pose[:3, 3] -= origin
    return pose


def origin_note(origin: Float64[ndarray, "3"]) -> str:
    """Note on an origin that is not zero."""
    numbers = ", ".join(f"{one:.3f}" for one in origin)
    return f"coordinates are far from zero: ({numbers}) m is subtracted, adding it leads back"


def outlier_note(coord: Float[ndarray, "point 3"], far: Bool[ndarray, " point"]) -> str:
    """Names points that are far from all others; `coord` as in the file, metres."""
    first = int(np.flatnonzero(far)[0])
    place = ", ".join(f"{one:.6g}" for one in coord[first])
    count, verb = ("1 point lies", "counts") if far.sum() == 1 else (f"{int(far.sum())} points lie", "count")
    return f"{count} far from all others (the first: point {first} at {place} m) and {verb} for none of them"


def size_note(coord: Float[ndarray, "point 3"]) -> Sequence[str]:
    """Note on a cloud so large, without far outliers, that its unit may be another."""
    near = coord[np.isfinite(coord).all(axis=1)]
    near = near[~far_outliers(near)]
    extent = float(np.ptp(near, axis=0).max()) if len(near) else 0.0
    return (f"it is {extent:.0f} m large: is its unit the millimetre?",) if extent > LARGE else ()


def coarse_note(coord: ndarray, metres: float = 1.0) -> Sequence[str]:
    """Note on a file that stores coordinates in single or half precision although they are large.

    `metres`: of one unit of the file.
    """
    if coord.dtype.kind != "f" or coord.dtype.itemsize > 4 or coord.size == 0:
        return ()
    largest = np.nanmax(np.where(np.isfinite(coord), np.abs(coord), 0))
    step = float(np.spacing(largest)) * metres
    if step <= COARSE:
        return ()
    kind = "single" if coord.dtype.itemsize == 4 else "half"
    return (
        f"coordinates up to {largest:.6g} are stored in {kind} precision, in steps of {step:.2g} m: "
        "export them in double precision, or with an offset subtracted",
    )
