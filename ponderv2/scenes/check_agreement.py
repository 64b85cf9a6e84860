"""Do frames agree with each other? Pixels of one frame, put into another, must meet its depth. Metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.scenes.check_readings import Reading
from ponderv2.scenes.scene import Frame

GAPS = (1, 2, 3, 5, 8)
"""Steps between the frames of a pair, in the chosen frames."""
RELATIVE = 0.02
"""Part of the depth that is tolerated on top of the fixed tolerance."""
FEWEST = 20
"""Pixels with a depth that a frame must have to be looked at."""


@dataclass(frozen=True)
class Samples:
    """One frame as the check sees it."""

    depth: Float64[ndarray, "row column"]
    grey: Float64[ndarray, "row column"] | None
    """Brightness 0..255; None for a frame without colour."""
    pixel: Float64[ndarray, "point 2"]
    """Pixels with a measurement."""
    intrinsics: Float64[ndarray, "3 3"]
    camera_to_world: Float64[ndarray, "4 4"]

    @property
    def coverage(self) -> float:
        """Share of pixels with a measurement."""
        return float(np.count_nonzero(self.depth) / max(self.depth.size, 1))

    def world_points(self, reading: Reading, at_most: int) -> Float64[ndarray, "point 3"]:
        """Where the pixels are under a reading."""
        pixel = self.pixel[:: max(len(self.pixel) // at_most, 1)]
        points = _points(self, pixel, reading)
        pose = reading.pose(self.camera_to_world)
        return points @ pose[:3, :3].T + pose[:3, 3]


@dataclass(frozen=True)
class Agreement:
    """Residuals of all pairs under one reading."""

    error: Float64[ndarray, " point"]
    """Difference of depths where a pixel was seen again, metres."""
    depth: Float64[ndarray, " point"]
    first: Float64[ndarray, " point"]
    """Brightness in the one frame."""
    second: Float64[ndarray, " point"]
    """Brightness in the other."""
    n_tried: float | int
    """Pixels that would be seen again if all of the first frame were in view of the second."""

    def share(self, tolerance: float, relative: float = RELATIVE) -> float:
        """Agreeing part of the pixels that were seen again; few pixels seen again lower it."""
        seen = max(len(self.error), 0.15 * self.n_tried, 1.0)
        return float(self._agreeing(tolerance, relative).sum() / seen)

    def share_of_seen(self, tolerance: float) -> float | None:
        """The same where it is known that frames look at different things; None when hardly any is seen."""
        return None if len(self.error) < FEWEST else float(self._agreeing(tolerance).mean())

    @property
    def overlap(self) -> float:
        """Part of the pixels that were seen again."""
        return len(self.error) / max(self.n_tried, 1)

    def correlation(self, tolerance: float) -> float | None:
        """Of the brightness of agreeing pixels; None where there are few with a colour or no contrast."""
        agreeing = (np.abs(self.error) < tolerance) & np.isfinite(self.first) & np.isfinite(self.second)
        first, second = self.first[agreeing], self.second[agreeing]
        if len(first) < 50 or first.std() < 1e-6 or second.std() < 1e-6:
            return None
        return float(np.corrcoef(first, second)[0, 1])

    def _agreeing(self, tolerance: float, relative: float = RELATIVE) -> ndarray:
        return np.abs(self.error) < tolerance + relative * self.depth


def agreement(samples: list[Samples], pairs: list[tuple[int, int]], reading: Reading) -> Agreement:
    """Reproject the pixels of each pair's first frame into the second."""
    none = np.zeros(0)
    parts: list[tuple[ndarray, ndarray, ndarray, ndarray]] = [(none, none, none, none)]
    n_tried = 0.0
    for first, second in pairs:
        parts.append(_reproject(samples[first], samples[second], reading))
        n_tried += len(samples[first].pixel) * samples[second].coverage
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Agreement(columns[0], columns[1], columns[2], columns[3], n_tried)


def sample_frame(frame: Frame, n_pixels: int) -> Samples:
    """Images and camera of a frame, with some of its pixels that have a depth."""
    return sample_depth(
        frame.read_depth().numpy().astype(np.float64),
        frame.camera.intrinsics.numpy().astype(np.float64),
        np.linalg.inv(frame.camera.world_to_camera.numpy().astype(np.float64)),
        n_pixels,
        frame.read_color().numpy().astype(np.float64).mean(axis=2) if frame.has_color else None,
    )


def sample_depth(
    depth: Float64[ndarray, "row column"],
    intrinsics: Float64[ndarray, "3 3"],
    camera_to_world: Float64[ndarray, "4 4"],
    n_pixels: int,
    grey: Float64[ndarray, "row column"] | None = None,
) -> Samples:
    """The same of arrays: depth in metres, 0 = no measurement."""
    row, column = np.nonzero(depth > 0)
    keep = np.linspace(0, max(len(row) - 1, 0), min(n_pixels, len(row))).astype(np.int64)
    # Evenly spaced in reading order would give stripes where the row length divides the step: jitter by hash.
    keep = np.clip(keep + (np.arange(len(keep)) * 7919) % 53, 0, max(len(row) - 1, 0))
    pixel = np.stack([column[keep], row[keep]], axis=1).astype(np.float64)
    return Samples(depth, grey, pixel, intrinsics, camera_to_world)


def frame_pairs(n_frames: int) -> list[tuple[int, int]]:
    """Both directions of frames a few steps apart, at most 120 pairs."""
    pairs = [(one, one + gap) for gap in GAPS for one in range(n_frames - gap)]
    pairs = pairs[:: max(len(pairs) // 60, 1)]
    return pairs + [(second, first) for first, second in pairs]


def _points(one: Samples, pixel: Float64[ndarray, "point 2"], reading: Reading) -> ndarray:
    """Of pixels in camera coordinates."""
    lens = reading.intrinsics(one.intrinsics)
    depth = one.depth[pixel[:, 1].astype(np.int64), pixel[:, 0].astype(np.int64)] * reading.depth_factor
    ray = (pixel - lens[:2, 2]) / np.array([lens[0, 0], lens[1, 1]])
    return np.concatenate([ray, np.ones((len(ray), 1))], axis=1) * depth[:, None]


def _reproject(
    first: Samples, second: Samples, reading: Reading
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Depth difference, depth, and the brightness in both frames, of the pixels that are seen again."""
    target = reading.intrinsics(second.intrinsics)
    column, row = first.pixel[:, 0].astype(np.int64), first.pixel[:, 1].astype(np.int64)
    points = _points(first, first.pixel, reading)
    pose = np.linalg.inv(reading.pose(second.camera_to_world)) @ reading.pose(first.camera_to_world)
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    front = moved[:, 2] > 0.05
    pixel = moved[front, :2] / moved[front, 2:] * (target[0, 0], target[1, 1]) + target[:2, 2]
    x, y = np.rint(pixel[:, 0]), np.rint(pixel[:, 1])
    height, width = second.depth.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x[inside].astype(np.int64), y[inside].astype(np.int64)
    measured = second.depth[y, x] * reading.depth_factor
    z = moved[front, 2][inside]
    known = measured > 0
    # What lies far behind the second frame's surface is hidden from it, which is no disagreement.
    known &= z < measured * 1.25 + 0.1
    if first.grey is None or second.grey is None:
        unknown = np.full(int(known.sum()), np.nan)
        return (z - measured)[known], z[known], unknown, unknown
    start = first.grey[row, column][front][inside]
    return (z - measured)[known], z[known], start[known], second.grey[y, x][known]
