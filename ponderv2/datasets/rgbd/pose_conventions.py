"""How a list of poses is read: quaternion, direction, axes, units. Given, or decided by depth images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.datasets.recordings import ImageFile
from ponderv2.datasets.rgbd.config import Axes, GenericConfig, PoseDirection, QuaternionOrder
from ponderv2.datasets.rgbd.depth_units import plausible_units
from ponderv2.datasets.rgbd.pairing import Decide, Pairing
from ponderv2.datasets.rgbd.pose_lists import PoseList
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.geometry.pose_candidates import MARGIN, Candidate, Decision, DepthImage, decide, spread_frames
from ponderv2.geometry.poses import clean_poses

FILE_FROM_OPENCV: dict[Axes, ndarray] = {
    "opencv": np.eye(4),
    "opengl": np.diag([1.0, -1.0, -1.0, 1.0]),
    "ros": np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
}
"""Coordinates in a camera with these axes from those in OpenCV's: x right, y down, z forward.

OpenGL: x right, y up, z backward. ROS: x forward, y left, z up, as of a robot's body."""
AXES_WORDS: dict[Axes, str] = {"opencv": "OpenCV axes", "opengl": "OpenGL axes", "ros": "ROS body axes"}
USUAL_DEPTH = 2.0
"""Metres: of several units, the one that brings the median depth near it is compared with the others."""
LONGEST_PATH = 50.0
"""Metres. A camera that moves farther may be in millimetres."""
N_SAMPLED = 16
"""Frames."""
INVALID = 65535
"""In a depth image: no measurement, like 0."""


@dataclass(frozen=True)
class PoseReading:
    """One way to read a list of poses, with the depth images that belong to it."""

    order: QuaternionOrder
    direction: PoseDirection
    axes: Axes
    pose_unit: float
    """Metres per unit of the translations."""
    depth_unit: float
    """Metres per unit of the depth images."""
    by_columns: bool = False
    """Rotations are column-major."""

    def camera_to_world(self, listed: PoseList) -> Float[ndarray, "pose 4 4"]:
        """OpenCV axes, metres; not-a-number where a pose is damaged."""
        clean = clean_poses(listed.matrices(self.order, self.by_columns), similarities=True)
        poses = clean.camera_to_world
        poses[~clean.valid] = np.nan
        poses[:, :3, 3] *= self.pose_unit
        if self.direction == "world_to_camera":
            poses[clean.valid] = np.linalg.inv(poses[clean.valid])
        return poses @ FILE_FROM_OPENCV[self.axes]

    def words(self, quaternion: bool) -> str:
        """For the report."""
        parts = [self.direction.replace("_", "-"), AXES_WORDS[self.axes]]
        parts += [f"quaternion {' '.join(self.order)}"] if quaternion else []
        parts += ["rotations by columns"] if self.by_columns else []
        parts += [f"poses in {self.pose_unit:g} m"] if self.pose_unit != 1 else []
        return ", ".join([*parts, f"depth in {self.depth_unit:.4g} m"])


@dataclass(frozen=True)
class ChosenReading:
    """The reading, and how it was found."""

    reading: PoseReading
    note: str


def choose_reading(
    listed: PoseList,
    given: GenericConfig,
    depth_unit: float | None,
    images: Sequence[tuple[Float64[ndarray, "row column"], Float64[ndarray, "3 3"]]],
    poses_of_images: Callable[[Float[ndarray, "pose 4 4"]], Float[ndarray, "image 4 4"]],
) -> ChosenReading:
    """The reading that was given, or the one under which the depth images agree clearly.

    Args:
        listed: The poses of the file.
        given: What is not `auto` there is not questioned.
        depth_unit: Metres per unit of the depth images, where it is known.
        images: Raw depth and intrinsics of some frames.
        poses_of_images: The pose of each of these images, from all poses of the list.

    Raises:
        SceneError: the images cannot decide; the fix names the options to give.
    """
    quaternion = listed.quaternion is not None
    median = _median_depth([depth for depth, _ in images])
    candidates = _candidates(listed, given, plausible_units(median) if depth_unit is None else (depth_unit,))
    if len(candidates) == 1:
        return ChosenReading(
            candidates[0], f"poses: {listed.form}; {candidates[0].words(quaternion)}, as given"
        )
    base = min(
        (one.depth_unit for one in candidates), key=lambda unit: abs(np.log(unit * median / USUAL_DEPTH))
    )
    decision = decide(
        [DepthImage(depth * base, intrinsics) for depth, intrinsics in images],
        [
            Candidate(
                one.words(quaternion), poses_of_images(one.camera_to_world(listed)), one.depth_unit / base
            )
            for one in candidates
        ],
    )
    by_words = {one.words(quaternion): one for one in candidates}
    if not decision.clear:
        raise _unclear(decision, by_words)
    best, next_best = decision.scores[0], decision.scores[1]
    return ChosenReading(
        by_words[best[0]],
        f"poses: {listed.form}; read as {best[0]}: {best[1]:.0%} of the depths agree"
        f" (next: {next_best[0]}, {next_best[1]:.0%})",
    )


def _candidates(listed: PoseList, given: GenericConfig, depth_units: Sequence[float]) -> list[PoseReading]:
    orders: tuple[QuaternionOrder, ...] = get_args(QuaternionOrder)
    if listed.quaternion is None:
        orders = orders[:1]
    elif listed.order is not None and given.quaternion == "auto":
        orders = (listed.order,)
    elif given.quaternion != "auto":
        orders = (given.quaternion,)
    directions: tuple[PoseDirection, ...] = get_args(PoseDirection)
    directions = directions if given.direction == "auto" else (given.direction,)
    axes: tuple[Axes, ...] = get_args(Axes) if given.axes == "auto" else (given.axes,)
    units = _pose_units(listed) if given.pose_unit is None else (given.pose_unit,)
    columns = (False, True) if listed.by_rows_or_columns else (False,)
    return [PoseReading(*one) for one in product(orders, directions, axes, units, depth_units, columns)]


def _pose_units(listed: PoseList) -> tuple[float, ...]:
    """Metres per unit of the translations, by how far the camera moves."""
    places = listed.translation[np.isfinite(listed.translation).all(axis=1)]
    extent = float(np.ptp(places, axis=0).max()) if len(places) else 0.0
    if extent <= LONGEST_PATH:
        return (1.0,)
    return (1.0, 0.001, 0.01) if extent <= 20 * LONGEST_PATH else (0.001, 0.01)


def _median_depth(images: Sequence[ndarray]) -> float:
    """In raw units; 1 where nothing is measured."""
    measured = [depth[depth > 0] for depth in images]
    return float(np.median(np.concatenate(measured))) if any(map(len, measured)) else 1.0


def _unclear(decision: Decision, by_words: dict[str, PoseReading]) -> SceneError:
    """What to give: the options in which the readings that agree about as well differ."""
    best = decision.scores[0][1]
    tied = [by_words[name] for name, score in decision.scores if score >= best - MARGIN] if best > 0 else []
    tied = tied if len(tied) > 1 else list(by_words.values())
    options = [
        ("--quaternion", {one.order for one in tied}),
        ("--direction", {one.direction for one in tied}),
        ("--axes", {one.axes for one in tied}),
        ("--set source.generic.pose_unit=", {f"{one.pose_unit:g}" for one in tied}),
        ("--depth-scale", {f"{one.depth_unit:.5g}" for one in tied}),
    ]
    give = [
        f"{name}{'' if name.endswith('=') else ' '}{' or '.join(sorted(values))}"
        for name, values in options
        if len(values) > 1
    ]
    if len({one.by_columns for one in tied}) > 1:
        give.append("poses of 3x4 numbers row by row")
    return SceneError(
        f"the depth images cannot decide how the poses are to be read: {decision.reason}",
        fix=f"give {', '.join(give)}; or check --intrinsics and which image belongs to which pose",
    )


def first_pose_by_depth(depths: tuple[Path, ...], camera: Intrinsics, depth_scale: float) -> Decide:
    """Chooses the pairing under which depth images agree with each other."""

    def chosen(options: Mapping[int, Pairing]) -> tuple[int | None, str]:
        poses = {
            first: {
                one.depth: one.camera_to_world
                for one in pairing.frames
                if np.isfinite(one.camera_to_world).all()
            }
            for first, pairing in options.items()
        }
        common = sorted(set.intersection(*(set(one) for one in poses.values())))
        places = [common[index] for index in spread_frames(len(common), N_SAMPLED)]
        if len(places) < 2 or camera.matrix[1, 1] < 0:
            return None, ""
        try:
            images = [_depth(depths[place or 0], camera, depth_scale) for place in places]
        except SceneError:  # reported when the frame is read
            return None, ""
        candidates = [
            Candidate(str(first), np.stack([found[place] for place in places]))
            for first, found in poses.items()
        ]
        decision = decide(images, candidates)
        if not decision.clear:
            return None, ""
        shares = " against ".join(f"{100 * share:.0f} %" for _, share in decision.scores)
        return int(decision.best), f"so depth images agree with each other ({shares})"

    return chosen


def _depth(path: Path, camera: Intrinsics, depth_scale: float) -> DepthImage:
    values = ImageFile(path).depth().astype(np.float64)
    height, width = values.shape
    return DepthImage(np.where(values < INVALID, values, 0) * depth_scale, camera.at_size(width, height))
