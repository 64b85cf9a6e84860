"""Do frames agree with each other, and under which of several readings of poses and depth? Metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ponderv2.checks.readings import AS_IT_IS, Reading
from ponderv2.scenes.scene import Frame

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
"""Of the tolerance: readings that differ by little differ in how many pixels agree closely."""


def _identity() -> Float64[ndarray, "4 4"]:
    return np.eye(4)


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
    recording_to_scene: Float64[ndarray, "4 4"] = field(default_factory=_identity)
    """What was done to the world when the recording was prepared: readings concern the poses before it."""

    @cached_property
    def coverage(self) -> float:
        """Share of pixels with a measurement."""
        return float(np.count_nonzero(self.depth) / max(self.depth.size, 1))

    @property
    def size(self) -> Float64[ndarray, "2"]:
        """Width and height."""
        return np.array(self.depth.shape[::-1], np.float64)

    def world_points(self, reading: Reading, at_most: int) -> Float64[ndarray, "point 3"]:
        """Where the pixels are under a reading, in the frame of the scene."""
        pixel = self.pixel[:: max(len(self.pixel) // at_most, 1)]
        lens = reading.lenses(self.intrinsics[None], self.size[None])[0]
        ray = _rays(pixel, lens)
        depth = self.depth[pixel[:, 1].astype(np.int64), pixel[:, 0].astype(np.int64)]
        pose = posed([self], reading)[0]
        return (ray * _read(depth, ray, reading)[:, None]) @ pose[:3, :3].T + pose[:3, 3]


@dataclass(frozen=True)
class Agreement:
    """Residuals of all pairs under one reading."""

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
    """Pixels of the first frame of each pair, ready to be put into the second under any reading."""

    def __init__(
        self, samples: list[Samples], pairs: list[tuple[int, int]], n_pixels: int | None = None
    ) -> None:
        self.samples = samples
        self.size = np.stack([one.size for one in samples]) if samples else np.zeros((0, 2))
        self.lens = np.stack([one.intrinsics for one in samples]) if samples else np.zeros((0, 3, 3))
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

    def under(self, reading: Reading, poses: Float64[ndarray, "frame 4 4"] | None = None) -> Agreement:
        """Residuals under a reading; `poses` in place of the samples' own."""
        if not len(self.pairs):
            none, nowhere = np.zeros(0), np.zeros((0, 2))
            return Agreement(none, none, none, none, nowhere, nowhere, np.zeros(0, np.int64), none)
        to_world = posed(self.samples, reading) if poses is None else reading.poses(poses)
        lens = reading.lenses(self.lens, self.size)
        matrix = np.linalg.inv(to_world)[self.pairs[:, 1]] @ to_world[self.pairs[:, 0]]
        ray = _rays(self.pixel, lens[self.first])
        points = ray * _read(self.depth, ray, reading)[:, None]
        matrix = matrix[self.pair]
        moved = np.einsum("nij,nj->ni", matrix[:, :3, :3], points) + matrix[:, :3, 3]
        target = lens[self.second]
        z = moved[:, 2]
        front = z > 1e-6
        safe = np.where(front, z, 1.0)
        seen = moved[:, :2] / safe[:, None] * target[:, [0, 1], [0, 1]] + target[:, :2, 2]
        pixel = np.rint(np.clip(seen, -1e6, 1e6)).astype(np.int64)
        limit = self.size[self.second]
        inside = np.nonzero(front & (pixel >= 0).all(axis=1) & (pixel < limit).all(axis=1))[0]
        return self._compared(inside, seen[inside], z[inside], target[inside], reading)

    def _compared(
        self, index: ndarray, seen: ndarray, z: ndarray, target: ndarray, reading: Reading
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
        measured = _read(raw, _rays(pixel.astype(np.float64), target), reading)
        # What lies far behind the second frame's surface is hidden from it, which is no disagreement.
        known = (raw > 0) & (z < measured * 1.25 + 0.1)
        index = index[known]
        start = np.where(np.isfinite(grey[known]), self.grey[index], np.nan)
        end = np.where(np.isfinite(start), grey[known], np.nan)
        error = (z - measured)[known]
        return Agreement(
            error, z[known], start, end, self.pixel[index], seen[known], self.pair[index], self.tried
        )


def posed(samples: list[Samples], reading: Reading) -> Float64[ndarray, "frame 4 4"]:
    """Poses under a reading, which concerns those that the recording had, in the frame of the scene."""
    poses = np.stack([one.camera_to_world for one in samples])
    if reading.change is None:
        return reading.poses(poses)
    world = np.stack([one.recording_to_scene for one in samples])
    return world @ reading.poses(np.linalg.inv(world) @ poses)


def agreement(samples: list[Samples], pairs: list[tuple[int, int]], reading: Reading = AS_IT_IS) -> Agreement:
    """Reproject the pixels of each pair's first frame into the second."""
    return Reprojection(samples, pairs).under(reading)


def sample_frame(
    frame: Frame, n_pixels: int, recording_to_scene: Float64[ndarray, "4 4"] | None = None
) -> Samples:
    """Images and camera of a frame, with some of its pixels that have a depth."""
    return sample_depth(
        frame.read_depth().numpy().astype(np.float64),
        frame.camera.intrinsics.numpy().astype(np.float64),
        np.linalg.inv(frame.camera.world_to_camera.numpy().astype(np.float64)),
        n_pixels,
        frame.read_color().numpy() @ np.full(3, 1.0 / 3.0) if frame.has_color else None,
        recording_to_scene,
    )


def sample_depth(
    depth: Float64[ndarray, "row column"],
    intrinsics: Float64[ndarray, "3 3"],
    camera_to_world: Float64[ndarray, "4 4"],
    n_pixels: int,
    grey: Float64[ndarray, "row column"] | None = None,
    recording_to_scene: Float64[ndarray, "4 4"] | None = None,
) -> Samples:
    """The same of arrays: depth in metres, 0 = no measurement."""
    row, column = np.nonzero(depth > 0)
    keep = np.linspace(0, max(len(row) - 1, 0), min(n_pixels, len(row))).astype(np.int64)
    # Evenly spaced in reading order would give stripes where the row length divides the step: jitter by hash.
    keep = np.clip(keep + (np.arange(len(keep)) * 7919) % 53, 0, max(len(row) - 1, 0))
    pixel = np.stack([column[keep], row[keep]], axis=1).astype(np.float64)
    world = np.eye(4) if recording_to_scene is None else recording_to_scene
    return Samples(depth, grey, pixel, intrinsics, camera_to_world, world)


def frame_pairs(n_frames: int) -> list[tuple[int, int]]:
    """Both directions of frames a few steps apart, at most 120 pairs."""
    pairs = [(one, one + gap) for gap in GAPS for one in range(n_frames - gap)]
    pairs = pairs[:: max(len(pairs) // 60, 1)]
    return pairs + [(second, first) for first, second in pairs]


def _rays(pixel: Float64[ndarray, "point 2"], lens: ndarray) -> Float64[ndarray, "point 3"]:
    """With z = 1, for one camera or one of each pixel."""
    across, along = lens[..., 0, 0], lens[..., 1, 1]
    x = (pixel[:, 0] - lens[..., 0, 2]) / across
    y = (pixel[:, 1] - lens[..., 1, 2]) / along
    return np.stack([x, y, np.ones(len(pixel))], axis=1)


def _read(depth: Float64[ndarray, " point"], ray: ndarray, reading: Reading) -> Float64[ndarray, " point"]:
    """Depth along the optical axis, metres, under a reading."""
    depth = depth * reading.depth_factor
    return depth * np.linalg.norm(ray, axis=1) ** reading.ray_power if reading.ray_power else depth


CONVINCING_CANDIDATE = 0.6
"""Mean agreement over these tolerances that the best must reach. Right poses of a Kinect reach 0.85 to 0.98,
of depth with 2 cm of noise 0.80; wrong ones 0.2 to 0.5 where the camera moves more than a few centimetres."""
MARGIN = 0.05
"""By which the best must lead; and it must leave less than REMAINING of the disagreement of the next."""
REMAINING = 0.85
WINS = 0.7
"""Part of the pairs of frames that tell the two apart in which the best must be the better one."""
STILL = "a camera that does not move"


@dataclass(frozen=True)
class DepthImage:
    """What a frame measured."""

    depth: Float64[ndarray, "row column"]
    """Metres; 0 = no measurement."""
    intrinsics: Float64[ndarray, "3 3"]


@dataclass(frozen=True)
class Candidate:
    """One way to read all poses of a recording."""

    name: str
    camera_to_world: Float64[ndarray, "frame 4 4"]
    """A pose for each depth image, in their order. Translations in metres."""
    depth_factor: float = 1.0
    """The depth images are multiplied by this."""


@dataclass(frozen=True)
class Decision:
    """Agreement of each candidate, and whether one is clearly right."""

    scores: tuple[tuple[str, float], ...]
    """Name and agreement (0..1), the best first."""
    clear: bool
    reason: str
    """Why it is not clear, as a clause for a message; empty when it is."""

    @property
    def best(self) -> str:
        """Name of the candidate with the highest agreement, clear or not."""
        return self.scores[0][0]


def decide(
    images: Sequence[DepthImage],
    candidates: Sequence[Candidate],
    tolerance: float = 0.05,
    n_pixels: int = 400,
) -> Decision:
    """Reproject depth between frames under each candidate.

    Give some 8 to 24 frames in the order of the recording, a few steps apart (`spread_frames`): frames that
    see the same surfaces from different places. Candidates of which the relative poses are the same cannot be
    told apart, nor can any where the camera hardly moves: then nothing is clear. The best must also be better
    than no motion at all. `tolerance` in metres. Raises ValueError where a candidate has another number of
    poses than there are images.
    """
    if not candidates:
        raise ValueError("expected at least one candidate, received none")
    for one in candidates:
        if one.camera_to_world.shape != (len(images), 4, 4):
            shape = one.camera_to_world.shape
            raise ValueError(
                f"candidate '{one.name}': expected poses ({len(images)}, 4, 4), received {shape}"
            )
    usable = [index for index, image in enumerate(images) if np.count_nonzero(image.depth) >= FEWEST]
    frames = [sample_depth(images[i].depth, images[i].intrinsics, np.eye(4), n_pixels) for i in usable]
    if len(frames) < 2:
        names = tuple((one.name, 0.0) for one in candidates)
        return Decision(names, False, "fewer than two frames have depth")
    reprojection = Reprojection(frames, frame_pairs(len(frames)))
    still = Candidate(STILL, np.tile(np.eye(4), (len(images), 1, 1)))
    tried = (*candidates, still)
    table = np.stack([_of_pairs(reprojection, one.camera_to_world[usable], one, tolerance) for one in tried])
    return _decision([one.name for one in tried], table)


def spread_frames(n_frames: int, most: int = 24) -> list[int]:
    """Positions of a few runs of neighbouring frames: frames far apart would see different things."""
    if n_frames <= most:
        return list(range(n_frames))
    n_runs = max(most // 8, 1)
    length, span = most // n_runs, n_frames // n_runs
    step = max(min(span // length, 3), 1)
    picked = {run * span + index * step for run in range(n_runs) for index in range(length)}
    return sorted(index for index in picked if index < n_frames)


def _of_pairs(
    frames: Reprojection, poses: Float64[ndarray, "frame 4 4"], candidate: Candidate, tolerance: float
) -> Float64[ndarray, "pair 2"]:
    """Agreeing pixels and pixels that count of each pair; none where a pose is not finite."""
    valid: ndarray = np.array([bool(np.isfinite(pose).all()) for pose in poses])
    usable = np.where(valid[:, None, None], poses, np.eye(4))
    # Errors shrink and grow with the factor: the tolerance has to follow.
    reading = Reading(candidate.name, depth_factor=candidate.depth_factor)
    found = frames.under(reading, usable).closeness(tolerance * candidate.depth_factor)
    both = valid[frames.pairs[:, 0]] & valid[frames.pairs[:, 1]]
    return found * both[:, None]


def _decision(names: list[str], table: Float64[ndarray, "candidate pair 2"]) -> Decision:
    """The last candidate is a camera that stands still."""
    total = np.array([mean_closeness(one) for one in table])
    order = np.argsort(-total[:-1], kind="stable")
    scores = tuple((names[index], round(float(total[index]), 3)) for index in order)
    best = int(order[0])
    if total[best] < CONVINCING_CANDIDATE:
        return Decision(scores, False, f"frames agree under none of them ({total[best]:.0%} at best)")
    for rival in (len(names) - 1, *order[1:2]):
        if not leads(table[best], table[rival]):
            rivals = f"'{names[best]}' ({total[best]:.0%}) and '{names[rival]}' ({total[rival]:.0%})"
            return Decision(scores, False, f"frames agree about as well under {rivals}")
    return Decision(scores, True, "")


def mean_closeness(table: Float64[ndarray, "pair 2"]) -> float:
    """Of all pairs: agreeing pixels over pixels that count."""
    return float(table[:, 0].sum() / max(table[:, 1].sum(), 1.0))


def leads(one: Float64[ndarray, "pair 2"], other: Float64[ndarray, "pair 2"]) -> bool:
    """Whether a candidate is better by enough, and in most pairs of frames that tell the two apart."""
    best, second = mean_closeness(one), mean_closeness(other)
    if best - second < MARGIN or 1.0 - best > REMAINING * (1.0 - second):
        return False
    lead = one[:, 0] / np.maximum(one[:, 1], 1.0) - other[:, 0] / np.maximum(other[:, 1], 1.0)
    told = np.abs(lead) > 0.02
    return bool(told.any()) and float((lead[told] > 0).mean()) >= WINS
