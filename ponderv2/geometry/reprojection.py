"""Do posed depth images agree? Pixels of one frame, put into another, must meet its depth. Metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

Poses = Float64[ndarray, "frame 4 4"]
Intrinsics = Float64[ndarray, "frame 3 3"]


GAPS = (1, 2, 3, 5, 8)
"""Steps between the frames of a pair, in the chosen frames."""
RELATIVE = 0.02
"""Part of the depth that is tolerated on top of the fixed tolerance."""
FEWEST = 20
"""Pixels with a depth that a frame must have to be looked at."""
LEAST_OVERLAP = 0.15
"""Part of the pixels that a pair must see again to count fully: fewer, and those that are missing count as
wrong."""
FRACTIONS = (0.25, 0.5, 1.0, 2.0)
"""Of the tolerance: hypotheses that differ by little differ in how many pixels agree closely."""


def _identity() -> Float64[ndarray, "4 4"]:
    return np.eye(4)


@dataclass(frozen=True)
class Hypothesis:
    """What is changed before the frames are compared."""

    name: str
    """Names what is wrong with the files if this hypothesis is right."""
    change: Callable[[Poses], Poses] | None = None
    """Of the poses as the recording has them."""
    before: Float64[ndarray, "4 4"] | None = None
    """Applied to camera coordinates before the pose."""
    depth_factor: float = 1.0
    ray_power: int = 0
    """Depth is multiplied by this power of the length of the ray with z = 1: -1 where files hold
    distances."""
    intrinsics: Callable[[Intrinsics, Float64[ndarray, "frame 2"]], Intrinsics] | None = None
    """Of the intrinsics, given width and height of the images."""

    def poses(self, camera_to_world: Poses) -> Poses:
        """Those under this hypothesis."""
        changed = camera_to_world if self.change is None else self.change(camera_to_world)
        return changed if self.before is None else changed @ self.before

    def changed_intrinsics(self, known: Intrinsics, size: Float64[ndarray, "frame 2"]) -> Intrinsics:
        """The cameras under this hypothesis."""
        return known if self.intrinsics is None else self.intrinsics(known.copy(), size)


AS_STORED = Hypothesis("as it is")


@dataclass(frozen=True)
class SampledFrame:
    """One frame as the check sees it."""

    depth: Float64[ndarray, "row column"]
    grey: Float64[ndarray, "row column"] | None
    """Brightness 0..255; None for a frame without colour."""
    pixel: Float64[ndarray, "point 2"]
    """Pixels with a measurement."""
    intrinsics: Float64[ndarray, "3 3"]
    camera_to_world: Float64[ndarray, "4 4"]
    recording_to_scene: Float64[ndarray, "4 4"] = field(default_factory=_identity)
    """What was done to the world when the recording was prepared: hypotheses concern the poses before it."""

    @cached_property
    def coverage(self) -> float:
        """Share of pixels with a measurement."""
        return float(np.count_nonzero(self.depth) / max(self.depth.size, 1))

    @property
    def size(self) -> Float64[ndarray, "2"]:
        """Width and height."""
        return np.array(self.depth.shape[::-1], np.float64)

    def world_points(self, hypothesis: Hypothesis, at_most: int) -> Float64[ndarray, "point 3"]:
        """Where the pixels are under a hypothesis, in the frame of the scene."""
        pixel = self.pixel[:: max(len(self.pixel) // at_most, 1)]
        intrinsics = hypothesis.changed_intrinsics(self.intrinsics[None], self.size[None])[0]
        ray = _rays(pixel, intrinsics)
        depth = self.depth[pixel[:, 1].astype(np.int64), pixel[:, 0].astype(np.int64)]
        pose = posed([self], hypothesis)[0]
        return (ray * _read(depth, ray, hypothesis)[:, None]) @ pose[:3, :3].T + pose[:3, 3]


@dataclass(frozen=True)
class Agreement:
    """Residuals of all pairs under one hypothesis."""

    error: Float64[ndarray, " point"]
    """Difference of depths where a pixel was seen again, metres."""
    depth: Float64[ndarray, " point"]
    first: Float64[ndarray, " point"]
    """Brightness in the one frame; NaN where there is no colour."""
    second: Float64[ndarray, " point"]
    """Brightness in the other."""
    start: Float64[ndarray, "point 2"]
    """Pixel in the one frame."""
    end: Float64[ndarray, "point 2"]
    """Where it is seen in the other."""
    pair: Int64[ndarray, " point"]
    tried: Float64[ndarray, " pair"]
    """Pixels that would be seen again if all of the first frame were in view of the second."""

    def share(self, tolerance: float) -> float:
        """Agreeing part of the pixels that were seen again; few pixels seen again lower it."""
        seen = max(len(self.error), LEAST_OVERLAP * self.n_tried, 1.0)
        return float(self._agreeing(tolerance).sum() / seen)

    def share_of_seen(self, tolerance: float) -> float | None:
        """The same where it is known that frames look at different things; None when hardly any is seen."""
        return None if len(self.error) < FEWEST else float(self._agreeing(tolerance).mean())

    def closeness(self, tolerance: float) -> Float64[ndarray, "pair 2"]:
        """Agreeing pixels, averaged over FRACTIONS of the tolerance, and pixels that count, of each pair."""
        n_pairs = len(self.tried)
        seen = np.bincount(self.pair, minlength=n_pairs).astype(np.float64)
        level = np.abs(self.error) / (tolerance + RELATIVE * np.abs(self.depth))
        weight = np.mean([level < fraction for fraction in FRACTIONS], axis=0) if len(level) else level
        agreeing = np.bincount(self.pair, weights=weight, minlength=n_pairs)
        return np.stack([agreeing, np.maximum(seen, np.maximum(LEAST_OVERLAP * self.tried, 1.0))], axis=1)

    @property
    def n_tried(self) -> float:
        """Of all pairs."""
        return float(self.tried.sum())

    @property
    def overlap(self) -> float:
        """Part of the pixels that were seen again."""
        return len(self.error) / max(self.n_tried, 1.0)

    def correlation(self, tolerance: float) -> float | None:
        """Of the brightness of agreeing pixels; None where there are few with a colour or no contrast."""
        agreeing = (np.abs(self.error) < tolerance) & np.isfinite(self.first) & np.isfinite(self.second)
        first, second = self.first[agreeing], self.second[agreeing]
        if len(first) < 50 or first.std() < 1e-6 or second.std() < 1e-6:
            return None
        return float(np.corrcoef(first, second)[0, 1])

    def _agreeing(self, tolerance: float) -> ndarray:
        return np.abs(self.error) < tolerance + RELATIVE * self.depth

    def only_agreeing(self, tolerance: float) -> Agreement:
        """Without the pixels that the second frame sees at another depth."""
        fits = self._agreeing(tolerance)
        return Agreement(
            self.error[fits],
            self.depth[fits],
            self.first[fits],
            self.second[fits],
            self.start[fits],
            self.end[fits],
            self.pair[fits],
            self.tried,
        )


class Reprojection:
    """Pixels of the first frame of each pair, ready to be put into the second under any hypothesis."""

    def __init__(
        self, samples: list[SampledFrame], pairs: list[tuple[int, int]], n_pixels: int | None = None
    ) -> None:
        self.samples = samples
        self.size = np.stack([one.size for one in samples]) if samples else np.zeros((0, 2))
        self.intrinsics = np.stack([one.intrinsics for one in samples]) if samples else np.zeros((0, 3, 3))
        pixel, depth, grey, pair = [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0)], [np.zeros(0, np.int64)]
        tried = []
        for index, (first, second) in enumerate(pairs):
            one = samples[first]
            some = one.pixel if n_pixels is None else one.pixel[:: max(len(one.pixel) // n_pixels, 1)]
            column, row = some[:, 0].astype(np.int64), some[:, 1].astype(np.int64)
            pixel.append(some)
            depth.append(one.depth[row, column])
            grey.append(np.full(len(some), np.nan) if one.grey is None else one.grey[row, column])
            pair.append(np.full(len(some), index))
            tried.append(len(some) * samples[second].coverage)
        self.pixel, self.depth = np.concatenate(pixel), np.concatenate(depth)
        self.grey, self.pair = np.concatenate(grey), np.concatenate(pair)
        self.tried = np.array(tried, np.float64)
        frames = np.array(pairs, np.int64).reshape(-1, 2)
        self.pairs = frames
        self.first, self.second = frames[self.pair, 0], frames[self.pair, 1]

    def under(self, hypothesis: Hypothesis, poses: Float64[ndarray, "frame 4 4"] | None = None) -> Agreement:
        """Residuals under a hypothesis; `poses` in place of the samples' own."""
        if not len(self.pairs):
            none, nowhere = np.zeros(0), np.zeros((0, 2))
            return Agreement(none, none, none, none, nowhere, nowhere, np.zeros(0, np.int64), none)
        to_world = posed(self.samples, hypothesis) if poses is None else hypothesis.poses(poses)
        intrinsics = hypothesis.changed_intrinsics(self.intrinsics, self.size)
        matrix = np.linalg.inv(to_world)[self.pairs[:, 1]] @ to_world[self.pairs[:, 0]]
        ray = _rays(self.pixel, intrinsics[self.first])
        points = ray * _read(self.depth, ray, hypothesis)[:, None]
        matrix = matrix[self.pair]
        moved = np.einsum("nij,nj->ni", matrix[:, :3, :3], points) + matrix[:, :3, 3]
        target = intrinsics[self.second]
        z = moved[:, 2]
        front = z > 1e-6
        safe = np.where(front, z, 1.0)
        seen = moved[:, :2] / safe[:, None] * target[:, [0, 1], [0, 1]] + target[:, :2, 2]
        pixel = np.rint(np.clip(seen, -1e6, 1e6)).astype(np.int64)
        limit = self.size[self.second]
        inside = np.nonzero(front & (pixel >= 0).all(axis=1) & (pixel < limit).all(axis=1))[0]
        return self._compared(inside, seen[inside], z[inside], target[inside], hypothesis)

    def _compared(
        self, index: ndarray, seen: ndarray, z: ndarray, target: ndarray, hypothesis: Hypothesis
    ) -> Agreement:
        pixel = np.rint(seen).astype(np.int64)
        raw = np.zeros(len(index))
        grey = np.full(len(index), np.nan)
        second = self.second[index]
        for frame in np.unique(second):
            here = np.nonzero(second == frame)[0]
            column, row = pixel[here, 0], pixel[here, 1]
            raw[here] = self.samples[frame].depth[row, column]
            image = self.samples[frame].grey
            if image is not None:
                grey[here] = image[row, column]
        measured = _read(raw, _rays(pixel.astype(np.float64), target), hypothesis)
        # What lies far behind the second frame's surface is hidden from it, which is no disagreement.
        known = (raw > 0) & (z < measured * 1.25 + 0.1)
        index = index[known]
        start = np.where(np.isfinite(grey[known]), self.grey[index], np.nan)
        end = np.where(np.isfinite(start), grey[known], np.nan)
        error = (z - measured)[known]
        return Agreement(
            error, z[known], start, end, self.pixel[index], seen[known], self.pair[index], self.tried
        )


def posed(samples: list[SampledFrame], hypothesis: Hypothesis) -> Float64[ndarray, "frame 4 4"]:
    """Poses under a hypothesis, which concerns those that the recording had, in the frame of the scene."""
    poses = np.stack([one.camera_to_world for one in samples])
    if hypothesis.change is None:
        return hypothesis.poses(poses)
    world = np.stack([one.recording_to_scene for one in samples])
    return world @ hypothesis.poses(np.linalg.inv(world) @ poses)


def agreement(
    samples: list[SampledFrame], pairs: list[tuple[int, int]], hypothesis: Hypothesis = AS_STORED
) -> Agreement:
    """Reproject the pixels of each pair's first frame into the second."""
    return Reprojection(samples, pairs).under(hypothesis)


def sample_depth(
    depth: Float64[ndarray, "row column"],
    intrinsics: Float64[ndarray, "3 3"],
    camera_to_world: Float64[ndarray, "4 4"],
    n_pixels: int,
    grey: Float64[ndarray, "row column"] | None = None,
    recording_to_scene: Float64[ndarray, "4 4"] | None = None,
) -> SampledFrame:
    """The same of arrays: depth in metres, 0 = no measurement."""
    row, column = np.nonzero(depth > 0)
    keep = np.linspace(0, max(len(row) - 1, 0), min(n_pixels, len(row))).astype(np.int64)
    # Evenly spaced in reading order would give stripes where the row length divides the step: jitter by hash.
    keep = np.clip(keep + (np.arange(len(keep)) * 7919) % 53, 0, max(len(row) - 1, 0))
    pixel = np.stack([column[keep], row[keep]], axis=1).astype(np.float64)
    world = np.eye(4) if recording_to_scene is None else recording_to_scene
    return SampledFrame(depth, grey, pixel, intrinsics, camera_to_world, world)


def frame_pairs(n_frames: int) -> list[tuple[int, int]]:
    """Both directions of frames a few steps apart, at most 120 pairs."""
    pairs = [(one, one + gap) for gap in GAPS for one in range(n_frames - gap)]
    pairs = pairs[:: max(len(pairs) // 60, 1)]
    return pairs + [(second, first) for first, second in pairs]


def _rays(pixel: Float64[ndarray, "point 2"], intrinsics: ndarray) -> Float64[ndarray, "point 3"]:
    """With z = 1, for one camera or one of each pixel."""
    across, along = intrinsics[..., 0, 0], intrinsics[..., 1, 1]
    x = (pixel[:, 0] - intrinsics[..., 0, 2]) / across
    y = (pixel[:, 1] - intrinsics[..., 1, 2]) / along
    return np.stack([x, y, np.ones(len(pixel))], axis=1)


def _read(
    depth: Float64[ndarray, " point"], ray: ndarray, hypothesis: Hypothesis
) -> Float64[ndarray, " point"]:
    """Depth along the optical axis, metres, under a hypothesis."""
    depth = depth * hypothesis.depth_factor
    return depth * np.linalg.norm(ray, axis=1) ** hypothesis.ray_power if hypothesis.ray_power else depth
