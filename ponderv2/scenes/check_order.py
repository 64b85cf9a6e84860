"""Do pictures and poses of a scene belong together? Frame numbers used as list positions mix them up.

Pictures exported with a frame skip of k, in a list where every k-th frame is left, and poses of all frames:
then the n-th picture is that of frame k n. Other slips shift all pictures by some frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ponderv2.scenes.check_agreement import Agreement, Samples, agreement, frame_pairs, sample_frame
from ponderv2.scenes.check_readings import Reading
from ponderv2.scenes.scene import Frame

FACTORS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 50, 100)
SHIFTS = (1, 2, 3, 4, 5, 10, 20)
LOOKED_AT = 10
"""Frames per hypothesis."""
FEWEST_FRAMES = 4
LOWEST, BETTER = 0.6, 0.2
"""Share of agreeing pixels that an explanation must reach, and by how much it must win."""
CONVINCING, HALVED = 0.85, 0.5
"""Neighbouring frames that were all moved alike agree well in spite of it: there an explanation that is right
for nearly all pixels must leave less than this part of the disagreement."""
CORRELATED, LESS = 0.6, 0.3
"""The same for the correlation of colours."""


@dataclass(frozen=True)
class Order:
    """Which frame's pose (or depth and pose) a picture belongs to."""

    words: str
    partner: dict[int, int]
    """Position of the picture -> position of the pose."""


def orders(ids: list[str]) -> Iterator[Order]:
    """Hypotheses in words, each with the frames it speaks of. Ids that are numbers count as frame numbers."""
    numeric = all(one.isdecimal() for one in ids) and len({int(one) for one in ids if one}) == len(ids)
    number = [int(one) for one in ids] if numeric else list(range(len(ids)))
    place: dict[float, int] = {one: index for index, one in enumerate(number)}
    steps = np.diff(sorted(number))
    spacing = int(np.median(steps)) if len(steps) else 1
    rules: list[tuple[str, Callable[[int], float]]] = []
    for k in FACTORS:
        words = f"frame numbers were used as list positions: picture n is that of frame {k} n"
        rules.append((f"{words} (a frame skip of {k} at the export)", lambda n, k=k: k * n))
        words = f"frame numbers were used as list positions: pose n is that of frame {k} n"
        rules.append((f"{words} (poses were thinned out, pictures were not)", lambda n, k=k: n / k))
    for k in SHIFTS:
        for sign in (1, -1):
            words = f"pictures and poses are out of step: picture n belongs to pose n {sign * k:+d}"
            rules.append((words, lambda n, c=sign * k * max(spacing, 1): n + c))
    last = number[0] + number[-1]
    rules.append(("pictures and poses run in opposite directions", lambda n: last - n))
    for words, rule in rules:
        partner = {index: place[target] for index, n in enumerate(number) if (target := rule(n)) in place}
        if len([1 for one, two in partner.items() if one != two]) >= FEWEST_FRAMES:
            yield Order(words, partner)


class OrderCheck:
    """Tries the hypotheses on a few frames of each; pictures are read when they are needed."""

    def __init__(self, frames: tuple[Frame, ...], n_pixels: int, tolerance: float) -> None:
        self.frames = frames
        self.n_pixels = n_pixels
        self.tolerance = tolerance
        self.recent: dict[int, Samples] = {}

    def of_poses(self) -> tuple[str, float]:
        """The order of pictures under which frames agree that do not as they are stored, and its share."""
        best = ("", 0.0)
        for order in orders([frame.id for frame in self.frames]):
            chosen = self._chosen(order)
            own = [self._sample(index) for index in chosen]
            pairs = frame_pairs(len(chosen))
            moved = [
                replace(one, camera_to_world=self._pose(order.partner[index]))
                for one, index in zip(own, chosen, strict=True)
            ]
            share = agreement(moved, pairs, Reading("")).share(self.tolerance)
            if share > max(LOWEST, best[1]):
                before = agreement(own, pairs, Reading("")).share(self.tolerance)
                if share > before + BETTER or (share > CONVINCING and 1 - share < HALVED * (1 - before)):
                    best = (order.words, share)
        return best

    def of_colors(self) -> str:
        """The order under which the colours fit to depths and poses; empty when none clearly does."""
        best = ("", 0.0)
        for order in orders([frame.id for frame in self.frames]):
            chosen = self._chosen(order)
            own = [self._sample(index) for index in chosen]
            # The colour picture stored with frame i shows what frame partner[i] sees.
            seen = [self._sample(order.partner[index]) for index in chosen]
            if any(
                one.grey is None or one.grey.shape != two.depth.shape
                for one, two in zip(own, seen, strict=True)
            ):
                continue
            moved = [replace(two, grey=one.grey) for one, two in zip(own, seen, strict=True)]
            pairs = frame_pairs(len(chosen))
            found = self._correlation(agreement(moved, pairs, Reading("")))
            if found > max(CORRELATED, best[1]):
                before = self._correlation(agreement(own, pairs, Reading("")))
                if found > before + LESS:
                    best = (f"colour is not that of depth and pose; {order.words}", found)
        return best[0]

    def _correlation(self, found: Agreement) -> float:
        return found.correlation(self.tolerance) or 0.0

    def _chosen(self, order: Order) -> list[int]:
        """A run of neighbours that the hypothesis moves."""
        moved = [one for one, two in sorted(order.partner.items()) if one != two]
        start = (len(moved) - LOOKED_AT) // 2 if len(moved) > LOOKED_AT else 0
        return moved[start : start + LOOKED_AT]

    def _sample(self, index: int) -> Samples:
        if index not in self.recent:
            while len(self.recent) >= 4 * LOOKED_AT:
                del self.recent[next(iter(self.recent))]
            self.recent[index] = sample_frame(self.frames[index], self.n_pixels)
        return self.recent[index]

    def _pose(self, index: int) -> np.ndarray:
        return np.linalg.inv(self.frames[index].camera.world_to_camera.numpy().astype(np.float64))
