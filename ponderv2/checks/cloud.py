"""Do frames and points agree? If not: were points shifted, turned or mirrored without the cameras? Metres.

A shift is found as the peak of the correlation of two occupancy grids (fast Fourier transform), for each of
a list of turns and exchanges of axes, and refined by iterated closest points.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from ponderv2.geometry.reprojection import AS_STORED, Hypothesis, SampledFrame

if TYPE_CHECKING:
    from scipy.spatial import KDTree

CELLS = 60
"""Along the longest side of the grids."""
TURN_STEP = 5
"""Degrees between the turns about z that are tried."""
CLEAR = 0.6
"""Share of points that must lie on the cloud under an explanation."""
SIMPLER = 0.04
"""A simpler explanation wins when it explains nearly as much."""
REFINED = 3
"""Candidates of each kind that are refined."""
AXES = "xyz"


@dataclass(frozen=True)
class CloudFit:
    """How the points lie with respect to what the frames see."""

    turn: Float64[ndarray, "3 3"]
    """Cameras' world -> points' world, before the shift; determinant +1 or -1."""
    shift: Float64[ndarray, "3"]
    share: float
    """Of the frames' pixels that are near a point after the motion."""


class CloudMap:
    """The points of a scene, ready for the question which one is nearest."""

    def __init__(self, coord: Float[ndarray, "point 3"], tolerance: float) -> None:
        from scipy.spatial import KDTree

        self.coord = coord[:: max(len(coord) // 400_000, 1)].astype(np.float64)
        self.tree: KDTree = KDTree(self.coord)
        self.tolerance = tolerance

    def distance(self, points: Float[ndarray, "point 3"]) -> Float64[ndarray, " point"]:
        """To the nearest point of the cloud."""
        return np.asarray(self.tree.query(points)[0], np.float64)

    def share(self, points: Float[ndarray, "point 3"], scale: float = 1.0) -> float:
        """Of the points that are near the cloud; `scale` shrinks what counts as near."""
        return float((self.distance(points) < scale * self.tolerance).mean()) if len(points) else 0.0


def visible_points(
    samples: list[SampledFrame], hypothesis: Hypothesis, at_most: int = 2400
) -> Float64[ndarray, "point 3"]:
    """What the frames see, in the world of their poses."""
    each = max(at_most // max(len(samples), 1), 50)
    return np.concatenate([np.zeros((0, 3)), *(one.world_points(hypothesis, each) for one in samples)])


def hypothesis_of_cloud(
    samples: list[SampledFrame], cloud: CloudMap, hypotheses: list[Hypothesis], share: float
) -> tuple[str, float]:
    """The hypothesis about poses and depths under which the frames lie on the points, if one clearly does."""
    scores = []
    for hypothesis in hypotheses:
        # Errors shrink with a scale below one: the tolerance has to shrink with it.
        scale = min(max(hypothesis.depth_factor, 0.02), 1.0)
        scores.append((cloud.share(visible_points(samples, hypothesis, 600), scale), hypothesis.name))
    best, name = max(scores)
    clearly = best > CLEAR and 1.0 - best < 0.6 * (1.0 - share)
    return (name, best) if clearly else ("", best)


def motion_of_cloud(samples: list[SampledFrame], cloud: CloudMap, share: float) -> tuple[str, float]:
    """What was done to the points and not to the cameras, in words; empty when nothing usual was.

    The simplest explanation wins, except with cameras of determinant -1: there a mirror is as likely.
    """
    mirrored = any(np.linalg.det(one.camera_to_world[:3, :3]) < 0 for one in samples)
    visible = visible_points(samples, AS_STORED)
    fits = [fit for fit in _fits(visible, cloud) if fit[1].share > CLEAR]
    if not fits:
        return "", 0.0
    best = max(fit.share for _, fit in fits)
    kind, fit = next((kind, fit) for kind, fit in fits if fit.share >= best - (0.0 if mirrored else SIMPLER))
    if 1.0 - fit.share > 0.6 * (1.0 - share):
        return "", fit.share
    return describe(kind, fit, visible.mean(axis=0)), fit.share


def describe(kind: str, fit: CloudFit, middle: Float64[ndarray, "3"]) -> str:
    """What is wrong, and where it is known from; empty for a motion too small to be one."""
    moved = fit.turn @ middle + fit.shift - middle
    if kind == "shift":
        if np.linalg.norm(moved) < 0.075:
            return ""
        return (
            f"the cameras were not moved along with the points, which are shifted by {_metres(moved)}: "
            "the points were centred, the cameras were not"
        )
    if kind == "turn":
        angle = np.degrees(np.arctan2(fit.turn[1, 0], fit.turn[0, 0]))
        return (
            f"the cameras were not moved along with the points, which are turned by {angle:.0f} degrees "
            f"about z and shifted by {_metres(moved)}: the points were aligned, the cameras were not"
        )
    if kind == "mirror":
        return (
            f"poses are mirrored: the points are a mirror image of what the cameras see, {_axes(fit.turn)} "
            "(Structured3D from before its extrinsics were corrected is like that)"
        )
    return (
        f"the cameras have other axes than the points, which are {_axes(fit.turn)} of the cameras' "
        "(Structured3D from before its extrinsics were corrected is like that)"
    )


def _metres(vector: Float64[ndarray, "3"]) -> str:
    return "(" + ", ".join(f"{one:+.2f}" for one in vector) + ") m"


def _axes(turn: Float64[ndarray, "3 3"]) -> str:
    """(y, x, z) for the exchange of x and y."""
    column = np.abs(turn).argmax(axis=1)
    signs = ["-" if turn[row, one] < 0 else "" for row, one in enumerate(column)]
    return "(" + ", ".join(sign + AXES[one] for sign, one in zip(signs, column, strict=True)) + ")"


def _fits(visible: Float64[ndarray, "point 3"], cloud: CloudMap) -> list[tuple[str, CloudFit]]:
    """The best of each kind of motion, from the simplest to the strangest."""
    grids = _Grids(visible, cloud.coord)
    exchanges = _exchanges()
    upright = [turn for turn in exchanges if np.allclose(turn[2], (0, 0, 1)) and np.linalg.det(turn) > 0]
    kinds = (
        ("shift", [np.eye(3)]),
        ("turn", [_about_z(float(angle)) for angle in range(TURN_STEP, 360, TURN_STEP)]),
        ("axes", [turn for turn in exchanges if np.linalg.det(turn) > 0 and not _among(turn, upright)]),
        ("mirror", [turn for turn in exchanges if np.linalg.det(turn) < 0]),
    )
    found: list[tuple[str, CloudFit]] = []
    for kind, turns in kinds:
        scored = sorted(((*grids.best_shift(turn), turn) for turn in turns), key=lambda one: -one[0])
        fits = [_refined(visible, cloud, turn, shift, kind) for _, shift, turn in scored[:REFINED]]
        found.append((kind, max(fits, key=lambda fit: fit.share)))
        if found[-1][1].share > 0.97:
            break  # nothing stranger can be so much better as to be preferred
    return found


def _among(turn: ndarray, others: list[ndarray]) -> bool:
    return any(np.allclose(turn, one) for one in others)


def _exchanges() -> list[Float64[ndarray, "3 3"]]:
    """The 48 ways to exchange and negate axes."""
    signs = list(product((1.0, -1.0), repeat=3))
    return [np.diag(sign) @ np.eye(3)[list(order)] for order in permutations(range(3)) for sign in signs]


def _about_z(degrees: float) -> Float64[ndarray, "3 3"]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


class _Grids:
    """Occupancy of what the frames measure and of the cloud, in cells small enough to tell walls apart."""

    def __init__(self, visible: Float64[ndarray, "point 3"], cloud: Float64[ndarray, "place 3"]) -> None:
        from scipy.fft import next_fast_len

        self.visible = visible
        cloud = cloud[:: max(len(cloud) // 40_000, 1)]
        reach = np.linalg.norm(np.ptp(visible, axis=0))
        self.size = float(max((np.ptp(cloud, axis=0).max() + reach) / CELLS, 0.08))
        self.lower = cloud.min(axis=0)
        count = np.ceil((np.ptp(cloud, axis=0) + reach) / self.size).astype(int) + 3
        self.shape: tuple[int, ...] = tuple(int(next_fast_len(int(one), real=True) or one) for one in count)
        self.farthest = np.ceil(np.ptp(cloud, axis=0) / self.size) + 1
        grid = self._occupied(cloud - self.lower)
        near = sum(np.roll(grid, step, axis) for axis in range(3) for step in (-1, 1))
        self.spectrum = np.fft.rfftn(grid + 0.5 * (near > 0) * (grid == 0))

    def best_shift(self, turn: Float64[ndarray, "3 3"]) -> tuple[float, Float64[ndarray, "3"]]:
        """Correlation and shift: turn @ visible + shift lies on the cloud."""
        turned = self.visible @ turn.T
        low = turned.min(axis=0)
        spectrum = np.fft.rfftn(self._occupied(turned - low))
        scores = np.fft.irfftn(self.spectrum * np.conj(spectrum), s=self.shape, axes=(0, 1, 2))
        place = np.array(np.unravel_index(int(scores.argmax()), self.shape))
        # A shift to the negative side comes in at the other end; the grid is long enough for both.
        steps = np.where(place > self.farthest, place - np.array(self.shape), place)
        return float(scores.max()), steps * self.size + self.lower - low

    def _occupied(self, offset: Float64[ndarray, "point 3"]) -> Float64[ndarray, "x y z"]:
        grid = np.zeros(self.shape)
        cell = np.minimum((offset / self.size).astype(np.int64), np.array(self.shape) - 1)
        grid[cell[:, 0], cell[:, 1], cell[:, 2]] = 1.0
        return grid


def _refined(
    visible: Float64[ndarray, "point 3"],
    cloud: CloudMap,
    turn: Float64[ndarray, "3 3"],
    shift: Float64[ndarray, "3"],
    kind: str,
) -> CloudFit:
    """Iterated closest points: a shift alone, or a small turn as well where turns are asked for."""
    some = visible[:: max(len(visible) // 800, 1)]
    for _ in range(12):
        moved = some @ turn.T + shift
        distance, index = cloud.tree.query(moved)
        near = distance <= max(float(np.quantile(distance, 0.7)), 1e-9)
        start, goal = moved[near], cloud.coord[np.asarray(index)[near]]
        step = _small_turn(start, goal) if kind == "turn" else np.eye(3)
        turn = step @ turn
        shift = goal.mean(axis=0) - (some[near] @ turn.T).mean(axis=0)
    return CloudFit(turn, shift, cloud.share(visible @ turn.T + shift))


def _small_turn(
    start: Shaped[ndarray, "point 3"], goal: Shaped[ndarray, "point 3"]
) -> Float64[ndarray, "3 3"]:
    """The turn about z that takes the one best onto the other, both about their middles."""
    one, two = start - start.mean(axis=0), goal - goal.mean(axis=0)
    sine = float((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum())
    cosine = float((one[:, 0] * two[:, 0] + one[:, 1] * two[:, 1]).sum())
    return _about_z(float(np.degrees(np.arctan2(sine, cosine))))
