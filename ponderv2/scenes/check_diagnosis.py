"""Under which other reading of poses, depth and intrinsics do frames agree? It names the mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.scenes.check_agreement import Agreement, Reprojection, Samples
from ponderv2.scenes.check_candidates import leads, mean_closeness
from ponderv2.scenes.check_readings import AS_IT_IS, FOCAL_FACTORS, Reading, focal_reading, of_poses, readings
from ponderv2.scenes.check_scale import NEAR, fit_factor, known_near, median_depth, scale_reading

PAIRS, PIXELS = 40, 150
"""That are compared for each reading."""
FEW_PAIRS, FEW_PIXELS, KEPT = 20, 80, 16
"""The same of the first round, and how many readings come into the second."""
TIE = 0.015
"""Readings that agree as well as the best one within this: the first of them, the simplest, is named."""
EQUAL = 0.003
"""Known factors that agree as well as the best of them within this: the likeliest is named."""
SMALLEST = 0.06
"""Natural logarithm of a factor below which depth scale and focal length are not called wrong."""
COLORS_LEAD, COLORS_LEFT = 0.08, 0.7
"""Where depth cannot tell two readings apart, colours of pixels seen again can: their correlation must rise
by the first number, and what lacks to 1 fall to the second part."""
CONVINCING = 0.5
"""Closeness that a reading must reach to be named. Right ones reach 0.66 to 0.99 on generated rooms and
recordings of a Kinect, wrong ones at most 0.4 where the files are wrong."""
CONVINCING_TOGETHER = 0.75
"""Closeness that two changes at once must reach: one of 250 such pairs reached 0.66 by chance."""
TOGETHER = (0.001, 0.01, 0.0254, 0.125, 0.2, 0.25, 0.3048, 3.2808, 4.0, 5.0, 8.0, 39.37, 100.0, 1000.0)
"""Factors of depth that are tried together with other readings of the poses."""


@dataclass(frozen=True)
class Diagnosis:
    """The agreement of frames as they are and under other readings."""

    closeness: float
    """As the recording is read, 0..1: see Agreement.closeness."""
    cause: str
    """The reading that is clearly better; empty when none is."""
    best: float
    """Closeness under it, or as it is."""
    scores: dict[str, float]
    """Of the five readings that agree best."""
    moves: bool
    """Whether the frames agree clearly better under their poses than under one pose for all."""


def diagnose(samples: list[Samples], pairs: list[tuple[int, int]]) -> Diagnosis:
    """Try the readings one by one, with fitted scale and focal length among them."""
    trial = _Trial(samples, pairs)
    first = samples[0]
    trial.add_best(readings(first.intrinsics, (first.depth.shape[1], first.depth.shape[0])))
    trial.add_scale()
    trial.add_focal()
    return trial.diagnosis()


def diagnose_together(samples: list[Samples], pairs: list[tuple[int, int]]) -> Diagnosis:
    """Readings of the poses together with another scale: where nothing simpler explains."""
    trial = _Trial(samples, pairs)
    scales = [scale_reading(factor, samples) for factor in TOGETHER]
    trial.add_best(
        [
            replace(one, name=f"{one.name}; {scale.name}", depth_factor=scale.depth_factor)
            for one in of_poses()
            for scale in scales
        ]
    )
    found = trial.diagnosis()
    return found if found.best >= CONVINCING_TOGETHER else replace(found, cause="", best=found.closeness)


class _Trial:
    """Readings and the agreement under each of them; many are tried on few pixels, the best of them on
    more."""

    def __init__(self, samples: list[Samples], pairs: list[tuple[int, int]]) -> None:
        self.samples = samples
        self.frames = Reprojection(samples, pairs[:: max(len(pairs) // PAIRS, 1)], PIXELS)
        self.few = Reprojection(samples, pairs[:: max(len(pairs) // FEW_PAIRS, 1)], FEW_PIXELS)
        self.tolerance = NEAR * median_depth(samples)
        self.base, self.base_color = self._compare(AS_IT_IS)
        self.table: dict[str, Float64[ndarray, "pair 2"]] = {}
        self.score: dict[str, float] = {}
        self.color: dict[str, float | None] = {}

    def add(self, reading: Reading) -> float:
        """Compare; returns the closeness."""
        table, self.color[reading.name] = self._compare(reading)
        self.table[reading.name] = table
        self.score[reading.name] = mean_closeness(table)
        return self.score[reading.name]

    def add_best(self, tried: list[Reading]) -> None:
        """Those that agree best on few pixels, in the order given."""
        rough = [self._rough(one) for one in tried]
        least = sorted(rough)[-min(KEPT, len(rough))]
        for reading, value in zip(tried, rough, strict=True):
            if value >= least:
                self.add(reading)

    def add_scale(self) -> None:
        """The scale under which frames agree best, or the known one that is meant."""
        factor = fit_factor(lambda one: self._rough(Reading("", depth_factor=one)))
        for width in (0.04, 0.02, 0.01):
            around = factor * np.exp(width * np.array([0.0, -1.0, 1.0]))
            factor = max(around.tolist(), key=lambda one: self._closeness(Reading("", depth_factor=one)))
        if abs(np.log(factor)) < SMALLEST:
            return
        found = scale_reading(factor, self.samples)
        fitted = self.add(found)
        known = [scale_reading(one, self.samples) for one in known_near(factor)]
        best = max((self.add(one) for one in known), default=0.0)
        names = [one.name for one in known]
        meant = next((name for name in names if self.score[name] >= max(best - EQUAL, fitted - TIE)), None)
        for name in (*names, found.name):
            if meant not in (None, name):  # of a plateau of factors the known one is meant
                self._drop(name)

    def add_focal(self) -> None:
        """The best of the focal lengths, refined."""
        best = max(FOCAL_FACTORS, key=lambda one: self._rough(focal_reading(one)))
        for width in (0.08, 0.04, 0.02, 0.01):
            around = best * np.exp(width * np.array([-1.0, 0.0, 1.0]))
            best = max(around.tolist(), key=lambda one: self._closeness(focal_reading(one)))
        if abs(np.log(best)) < SMALLEST:
            return
        self.add(focal_reading(best))
        for factor in FOCAL_FACTORS:
            if 1e-9 < abs(np.log(factor / best)) < 0.12:  # the same mistake, less exactly
                self._drop(focal_reading(factor).name)

    def diagnosis(self) -> Diagnosis:
        """The simplest of the best readings, where it is clearly better than what is."""
        base = mean_closeness(self.base)
        still = self.frames.under(AS_IT_IS, np.tile(np.eye(4), (len(self.samples), 1, 1)))
        moves = leads(self.base, still.closeness(self.tolerance))
        ranked = sorted(self.score.items(), key=lambda item: -item[1])
        scores = {name: round(value, 3) for name, value in ranked[:5]}
        best = ranked[0][1]
        if best >= CONVINCING and leads(self.table[ranked[0][0]], self.base):
            near = [name for name, value in self.score.items() if value >= best - TIE]
            return Diagnosis(base, self._by_color_among(near), best, scores, moves)
        cause = self._by_color(base)
        return Diagnosis(base, cause, self.score.get(cause, base), scores, moves)

    def _by_color_among(self, near: list[str]) -> str:
        """The first of some readings, unless colours agree clearly better under another one."""
        color = [self.color[name] or 0.0 for name in near]
        best = int(np.argmax(color))
        return near[best] if color[best] > color[0] + COLORS_LEAD / 2 else near[0]

    def _by_color(self, base: float) -> str:
        """A reading of equal agreement in depth under which colours agree clearly better."""
        if self.base_color is None:
            return ""
        equal = {name: self.color[name] for name, value in self.score.items() if value > base - 0.01}
        better = [(color, name) for name, color in equal.items() if color is not None]
        color, name = max(better, default=(0.0, ""))
        lacking = 1.0 - self.base_color
        clear = color > self.base_color + COLORS_LEAD and 1.0 - color < COLORS_LEFT * lacking
        return name if clear else ""

    def _drop(self, name: str) -> None:
        for kept in (self.table, self.score, self.color):
            kept.pop(name, None)

    def _rough(self, reading: Reading) -> float:
        found = self.few.under(reading)
        return mean_closeness(found.closeness(self.tolerance * reading.depth_factor))

    def _closeness(self, reading: Reading) -> float:
        return mean_closeness(self._compare(reading)[0])

    def _compare(self, reading: Reading) -> tuple[Float64[ndarray, "pair 2"], float | None]:
        found: Agreement = self.frames.under(reading)
        # Errors shrink and grow with a factor: the tolerance follows.
        tolerance = self.tolerance * reading.depth_factor
        return found.closeness(tolerance), found.correlation(tolerance)
