"""Do images and poses of a scene belong together? Frame numbers used as list positions mix them up.

Images exported with a frame skip of k, in a list where every k-th frame is left, and poses of all frames:
then the n-th image is that of frame k n. Other slips shift all images by some frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.checks.diagnosis import NEAR, median_depth
from ponderv2.checks.registration import ContrastStack, contrast_of_pairs, local_contrast, mean_contrast
from ponderv2.geometry.pose_candidates import leads, mean_closeness
from ponderv2.geometry.reprojection import (
    AS_STORED,
    Reprojection,
    SampledFrame,
    agreement,
    frame_pairs,
    sample_depth,
)
from ponderv2.scenes.scene import Frame

FACTORS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 50, 100)
SHIFTS = (1, 2, 3, 4, 5, 10, 20)
NEAR_SHIFTS = (1, 2, 3)
N_INSPECTED = 10
"""Frames per hypothesis."""
CACHED_FRAMES, CACHED_WIDTH = 160, 160
"""Frames that are cached, and their width."""
FEWEST_FRAMES = 4
LOWEST = 0.5
"""Closeness that an order must reach. Neighbouring frames that were all moved alike agree well in spite of
it: how much better is enough, `leads` knows."""
CORRELATED, LESS, LEFT = 0.2, 0.08, 0.85
"""The same for the correlation of local contrast: the lowest, the least lead, the part that may remain of
what lacks to 1."""


@dataclass(frozen=True)
class Order:
    """Which frame's pose (or depth and pose) an image belongs to."""

    description: str
    partner: dict[int, int]
    """Position of the image -> position of the pose."""


def orders(ids: list[str], near: bool = False) -> Iterator[Order]:
    """Hypotheses in words, each with the frames it speaks of; `near`: shifts by few frames alone.

    Ids that are numbers count as frame numbers.
    """
    numeric = all(one.isdecimal() for one in ids) and len({int(one) for one in ids if one}) == len(ids)
    number = [int(one) for one in ids] if numeric else list(range(len(ids)))
    place: dict[float, int] = {one: index for index, one in enumerate(number)}
    steps = np.diff(sorted(number))
    spacing = int(np.median(steps)) if len(steps) else 1
    rules: list[tuple[str, Callable[[int], float]]] = []
    for k in () if near else FACTORS:
        description = f"frame numbers were used as list positions: image n is that of frame {k} n"
        rules.append((f"{description} (a frame skip of {k} at the export)", lambda n, k=k: k * n))
        description = f"frame numbers were used as list positions: pose n is that of frame {k} n"
        rules.append((f"{description} (poses were thinned out, images were not)", lambda n, k=k: n / k))
    for k in NEAR_SHIFTS if near else SHIFTS:
        for sign in (1, -1):
            description = f"images and poses are out of step: image n belongs to pose n {sign * k:+d}"
            rules.append((description, lambda n, c=sign * k * max(spacing, 1): n + c))
    last = number[0] + number[-1]
    if not near:
        yield from _sorted_as_text(number)
        rules.append(("images and poses run in opposite directions", lambda n: last - n))
    for description, rule in rules:
        partner = {index: place[target] for index, n in enumerate(number) if (target := rule(n)) in place}
        if len([1 for one, two in partner.items() if one != two]) >= FEWEST_FRAMES:
            yield Order(description, partner)


def _sorted_as_text(number: list[int]) -> Iterator[Order]:
    """1, 10, 100, 2: files were sorted by name, without leading zeros, and counted through."""
    for start in (0, 1):
        counted = [start + index for index in range(len(number))]
        for values in (counted, number) if number != counted else (counted,):
            by_text = sorted(range(len(values)), key=lambda index, all_=values: str(all_[index]))
            if by_text == list(range(len(values))):
                continue
            description = "frames were sorted as text (1, 10, 100, 2): "
            of_poses = dict(enumerate(np.argsort(by_text).tolist()))
            yield Order(description + "the poses are in that order, the images by number", of_poses)
            of_images = dict(enumerate(by_text))
            yield Order(description + "the images are in that order, the poses by number", of_images)


def sample_frame(
    frame: Frame, n_pixels: int, recording_to_scene: Float64[ndarray, "4 4"] | None = None
) -> SampledFrame:
    """Images and camera of a frame, with some of its pixels that have a depth."""
    return sample_depth(
        frame.read_depth().numpy().astype(np.float64),
        frame.camera.intrinsics.numpy().astype(np.float64),
        np.linalg.inv(frame.camera.world_to_camera.numpy().astype(np.float64)),
        n_pixels,
        frame.read_color().numpy() @ np.full(3, 1.0 / 3.0) if frame.has_color else None,
        recording_to_scene,
    )


class OrderCheck:
    """Tries the hypotheses on a few frames of each; images are read when they are needed."""

    def __init__(self, frames: tuple[Frame, ...], n_pixels: int, tolerance: float) -> None:
        self.frames = frames
        self.n_pixels = n_pixels
        self.tolerance = tolerance
        self.recent: dict[int, tuple[SampledFrame, ndarray | None]] = {}
        poses = np.stack([self._pose(index) for index in range(len(frames))])
        turned = np.abs(np.diff(poses[:, :3, :3], axis=0)).sum(axis=(1, 2))
        moved = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        self.speed = np.concatenate([turned + moved / max(float(moved.mean()), 1e-9) * turned.mean(), [0.0]])

    def of_poses(self, near: bool = False) -> tuple[str, float]:
        """The order of images under which frames agree that do not as they are stored, and its closeness."""
        best = ("", 0.0)
        for order in orders([frame.id for frame in self.frames], near):
            chosen = self._chosen(order)
            own = [self._sample(index)[0] for index in chosen]
            frames = Reprojection(own, frame_pairs(len(chosen)))
            tolerance = NEAR * median_depth(own)
            moved = np.stack([self._pose(order.partner[index]) for index in chosen])
            found = frames.under(AS_STORED, moved).closeness(tolerance)
            value = mean_closeness(found)
            if value > max(LOWEST, best[1]) and leads(found, frames.under(AS_STORED).closeness(tolerance)):
                best = (order.description, value)
        return best

    def of_colors(self, near: bool = False) -> tuple[str, float]:
        """The order under which colours fit to depths and poses, and the correlation of local contrast."""
        best = ("", 0.0)
        for order in orders([frame.id for frame in self.frames], near):
            chosen = self._chosen(order)
            own = [self._sample(index) for index in chosen]
            # The colour image stored with frame i shows what frame partner[i] sees.
            seen = [self._sample(order.partner[index])[0] for index in chosen]
            if any(one.depth.shape != own[0][0].depth.shape for one in (*(two for two, _ in own), *seen)):
                continue
            stack = ContrastStack([image for _, image in own], [one.depth.shape for one, _ in own])
            found = self._correlation(stack, seen)
            if found > max(CORRELATED, best[1]):
                before = self._correlation(stack, [one for one, _ in own])
                if found > before + LESS and 1.0 - found < LEFT * (1.0 - before):
                    best = (f"colour is not that of depth and pose; {order.description}", found)
        return best

    def _correlation(self, stack: ContrastStack, samples: list[SampledFrame]) -> float:
        pairs = frame_pairs(len(samples))
        found = agreement(samples, pairs).only_agreeing(self.tolerance)
        return (
            mean_contrast(contrast_of_pairs(stack, found, np.array(pairs).reshape(-1, 2), np.eye(3))) or 0.0
        )

    def _chosen(self, order: Order) -> list[int]:
        """A run of neighbours that the hypothesis moves, where the camera moves faster than in most."""
        moved = [one for one, two in sorted(order.partner.items()) if one != two]
        n_runs = len(moved) - N_INSPECTED + 1
        if n_runs <= 1:
            return moved[:N_INSPECTED]
        speed = self.speed[moved]
        total = np.convolve(speed, np.ones(N_INSPECTED), mode="valid")
        start = int(np.argsort(total)[int(0.8 * (n_runs - 1))])
        return moved[start : start + N_INSPECTED]

    def _sample(self, index: int) -> tuple[SampledFrame, ndarray | None]:
        """A frame, and its local contrast in place of its brightness."""
        if index not in self.recent:
            while len(self.recent) >= CACHED_FRAMES:
                del self.recent[next(iter(self.recent))]
            found = sample_frame(self.frames[index], self.n_pixels)
            contrast = local_contrast(found.grey)
            step = max(found.depth.shape[1] // CACHED_WIDTH, 1)
            small, intrinsics = (
                found.depth[::step, ::step],
                np.diag([1 / step, 1 / step, 1.0]) @ found.intrinsics,
            )
            reduced = sample_depth(small, intrinsics, found.camera_to_world, self.n_pixels)
            self.recent[index] = reduced, contrast
        return self.recent[index]

    def _pose(self, index: int) -> np.ndarray:
        return np.linalg.inv(self.frames[index].camera.world_to_camera.numpy().astype(np.float64))
