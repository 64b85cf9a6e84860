"""Which of several poses and depth scales is right? Those under which depth images agree.

Poses camera-to-world, 4 x 4, OpenCV axes; depth along the optical axis in metres; pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.geometry.reprojection import FEWEST, Hypothesis, Reprojection, frame_pairs, sample_depth

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
    hypothesis = Hypothesis(candidate.name, depth_factor=candidate.depth_factor)
    found = frames.under(hypothesis, usable).closeness(tolerance * candidate.depth_factor)
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
    decisive = np.abs(lead) > 0.02
    return bool(decisive.any()) and float((lead[decisive] > 0).mean()) >= WINS
