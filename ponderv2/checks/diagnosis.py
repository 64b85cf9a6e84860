"""Under which other hypothesis about poses, depth and intrinsics do frames agree? It names the mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.checks.hypotheses import FOCAL_FACTORS, focal_hypothesis, hypotheses, of_poses
from ponderv2.geometry.pose_candidates import leads, mean_closeness
from ponderv2.geometry.reprojection import AS_STORED, Agreement, Hypothesis, Reprojection, SampledFrame

NEAR = 0.025
"""Of the median depth: what counts as agreement, 5 cm at 2 m. A length of the recording itself, as its unit
is in doubt."""
LARGEST = 8000.0
"""Factor that is tried, and its inverse."""
STEP = 1.12
"""Between two factors of the search. A factor that is 6 % off raises the agreement already."""
SNAP = 0.1
"""Natural logarithm between a fitted factor and known ones that are tried in its place."""
UNITS = {
    0.001: "millimetres", 0.01: "centimetres", 0.1: "decimetres", 0.3048: "feet", 0.0254: "inches",
    0.0001: "0.1 mm",
}  # fmt: skip
"""Metres per unit."""
DEPTH_RANGE = (0.15, 15.0)
"""Metres: where the median of the depth of a room or a table top lies."""
EXTENT_RANGE = (0.003, 60.0)
"""Metres between the outermost cameras of a recording."""
PGM_LARGEST = (1023, 2047, 4095, 5000, 8000, 10000, 12000, 16383, 20000, 40000)
"""Largest values that headers of 16-bit PGM files give; readers that stretch them to 65535 multiply the
depth."""


def known_factors() -> dict[float, str]:
    """What multiplying depth by a factor puts right: why it was wrong. The first of equal ones is the
    likeliest."""
    found = {
        0.125: "the bits of the depth are rotated by 3 places, as in files of SUN3D and SUN RGB-D, or "
        "a PGM file whose header gives 8191 was stretched to 65535",
        8.0: "the bits of the depth were rotated back by 3 places, though they were not rotated",
        0.2: "the unit is 1/5000 m, as in TUM files, not a millimetre",
        5.0: "the unit is a millimetre, not 1/5000 m",
        0.25: "the unit is 1/4000 m, not a millimetre",
        4.0: "the unit is a millimetre, not 1/4000 m",
        2.0: "the unit is twice as large",
        0.5: "the unit is half as large",
        1000 / 6553.5: "the unit is 1/6553.5 m, as in Replica files, not a millimetre",
        6.5535: "the unit is a millimetre, not 1/6553.5 m",
        1 / 256: "the unit is 1/256 m, bits are shifted by 8 places, or 8 bits were stretched to 16",
        256.0: "bits were shifted by 8 places, or the unit is not 1/256 m",
        1000 / 256: "the unit is 1/256 m, not a millimetre",
        0.256: "the unit is a millimetre, not 1/256 m",
    }
    for metres, unit in UNITS.items():
        found.setdefault(metres, f"the unit is {unit}, not metres")
        found.setdefault(1 / metres, f"the unit is metres, not {unit}")
    found.setdefault(0.0002, "the unit is 1/5000 m, not metres")
    found.setdefault(5000.0, "the unit is metres, not 1/5000 m")
    found[10.0] = "the unit is a millimetre, not 0.1 mm, or a decimetre"
    found[0.1] = "the unit is 0.1 mm, not a millimetre, or a decimetre"
    for largest in PGM_LARGEST:
        description = f"a PGM file whose header gives {largest} as the largest value was stretched to 65535"
        found.setdefault(largest / 65535, description)
    return found


def fit_factor(closeness: Callable[[float], float]) -> float:
    """The factor of the depth under which frames agree best: `closeness` is the agreement, 0 to 1."""
    n_steps = int(np.log(LARGEST) / np.log(STEP))
    factors = STEP ** np.arange(-n_steps, n_steps + 1, dtype=np.float64)
    best = float(factors[int(np.argmax([closeness(float(one)) for one in factors]))])
    width = STEP
    for _ in range(4):
        width = width**0.45
        around = best * width ** np.linspace(-2.0, 2.0, 5)
        best = float(around[int(np.argmax([closeness(float(one)) for one in around]))])
    return best


def known_near(factor: float) -> list[float]:
    """Known factors that a fitted one may be, the likeliest first."""
    return [one for one in known_factors() if abs(np.log(one / factor)) < SNAP]


def scale_hypothesis(factor: float, samples: list[SampledFrame]) -> Hypothesis:
    """A hypothesis whose name says whether depth or translations are likely to be in another unit."""
    depth = f"depth scale is wrong: multiply it by about {factor:.4g}"
    if factor in known_factors():
        depth += f" ({known_factors()[factor]})"
    poses = f"multiply translations by about {1 / factor:.4g}"
    unit = next((unit for metres, unit in UNITS.items() if abs(np.log(metres * factor)) < 1e-3), "")
    if unit:
        poses += f" (they are in {unit})"
    median, extent = median_depth(samples), _extent(samples)
    now = _within(median, DEPTH_RANGE) and not _within(extent, EXTENT_RANGE)
    after = _within(median * factor, DEPTH_RANGE)
    if now or (_within(median, DEPTH_RANGE) and not after):
        return Hypothesis(f"translations of the poses have a wrong scale: {poses}", depth_factor=factor)
    if not _within(median, DEPTH_RANGE) or not _within(extent / factor, EXTENT_RANGE):
        return Hypothesis(depth, depth_factor=factor)
    return Hypothesis(f"{depth}; or the poses are at fault: {poses}", depth_factor=factor)


def median_depth(samples: list[SampledFrame]) -> float:
    """Of the sampled pixels, metres."""
    parts = [one.depth[one.pixel[:, 1].astype(np.int64), one.pixel[:, 0].astype(np.int64)] for one in samples]
    return float(np.median(np.concatenate(parts))) if parts else 0.0


def _extent(samples: list[SampledFrame]) -> float:
    centre = np.stack([one.camera_to_world[:3, 3] for one in samples])
    return float(np.linalg.norm(np.ptp(centre, axis=0)))


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


FEWEST_STEPS = 6
BELONG_TOGETHER, APART = 0.5, 0.2
"""Rank correlation of the two changes from which on poses and images belong together, and below which they do
not. Every recording at hand reaches 0.6 or more; its images in another order stay below 0.2."""
SAME_POSE, SAME_IMAGE = 1e-6, 1e-4
"""Changes below these are none. Sensors have noise: the depth of a camera at rest changes by more than the
second."""


def motion_correlation(samples: list[SampledFrame]) -> float | None:
    """Spearman's, of the sizes of pose and image changes of neighbours; None for fewer than 7 frames."""
    pose, image = changes(samples)
    if len(pose) < FEWEST_STEPS or np.ptp(pose) == 0 or np.ptp(image) == 0:
        return None
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (pose, image)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def describe_motion(samples: list[SampledFrame]) -> str:
    """What pose and image changes say where frames disagree and no hypothesis explains it; may be empty."""
    pose, image = changes(samples)
    if len(pose) and pose.max() < SAME_POSE < SAME_IMAGE < image.max():
        return "all poses are the same, though the images differ"
    if len(pose) and image.max() < SAME_IMAGE and pose.max() > SAME_POSE:
        return "all depth images are the same, though the poses differ"
    found = motion_correlation(samples)
    if found is not None and found > BELONG_TOGETHER:
        return "poses change when images change: conventions or intrinsics are wrong, not the order"
    if found is not None and found < APART:
        return "poses do not change when images change: they are out of step or of another recording"
    return ""


def changes(samples: list[SampledFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Of neighbours: radians plus translation over median depth, and mean relative change of depth, at most
    1."""
    unit = max(median_depth(samples), 1e-9)
    pose, image = [], []
    for one, two in pairwise(samples):
        if one.depth.shape != two.depth.shape:
            continue
        relative = np.linalg.inv(one.camera_to_world) @ two.camera_to_world
        cosine = np.clip((np.trace(relative[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
        pose.append(float(np.arccos(cosine) + np.linalg.norm(relative[:3, 3]) / unit))
        row, column = one.pixel[:, 1].astype(np.int64), one.pixel[:, 0].astype(np.int64)
        before, after = one.depth[row, column], two.depth[row, column]
        change = np.where(after > 0, np.abs(after - before) / before, 1.0)
        image.append(float(np.minimum(change, 1.0).mean()))
    return np.array(pose), np.array(image)


PAIRS, PIXELS = 40, 150
"""That are compared for each hypothesis."""
FEW_PAIRS, FEW_PIXELS, SHORTLIST = 20, 80, 16
"""The same of the first round, and how many hypotheses come into the second."""
TIE = 0.015
"""Readings that agree as well as the best one within this: the first of them, the simplest, is named."""
EQUAL = 0.003
"""Known factors that agree as well as the best of them within this: the likeliest is named."""
SMALLEST = 0.06
"""Natural logarithm of a factor below which depth scale and focal length are not called wrong."""
COLORS_LEAD, COLORS_LEFT = 0.08, 0.7
"""Where depth cannot tell two hypotheses apart, colours of pixels seen again can: their correlation must rise
by the first number, and what lacks to 1 fall to the second part."""
CONVINCING = 0.5
"""Closeness that a hypothesis must reach to be named. Right ones reach 0.66 to 0.99 on generated rooms and
recordings of a Kinect, wrong ones at most 0.4 where the files are wrong."""
CONVINCING_TOGETHER = 0.75
"""Closeness that two changes at once must reach: one of 250 such pairs reached 0.66 by chance."""
TOGETHER = (0.001, 0.01, 0.0254, 0.125, 0.2, 0.25, 0.3048, 3.2808, 4.0, 5.0, 8.0, 39.37, 100.0, 1000.0)
"""Factors of depth that are tried together with other hypotheses about the poses."""


@dataclass(frozen=True)
class Diagnosis:
    """The agreement of frames as they are and under other hypotheses."""

    closeness: float
    """As the recording is read, 0..1: see Agreement.closeness."""
    cause: str
    """The hypothesis that is clearly better; empty when none is."""
    best: float
    """Closeness under it, or as it is."""
    scores: dict[str, float]
    """Of the five hypotheses that agree best."""
    moves: bool
    """Whether the frames agree clearly better under their poses than under one pose for all."""


def diagnose(samples: list[SampledFrame], pairs: list[tuple[int, int]]) -> Diagnosis:
    """Try the hypotheses one by one, with fitted scale and focal length among them."""
    trial = _Trial(samples, pairs)
    first = samples[0]
    trial.add_best(hypotheses(first.intrinsics, (first.depth.shape[1], first.depth.shape[0])))
    trial.add_scale()
    trial.add_focal()
    return trial.diagnosis()


def diagnose_together(samples: list[SampledFrame], pairs: list[tuple[int, int]]) -> Diagnosis:
    """Readings of the poses together with another scale: where nothing simpler explains."""
    trial = _Trial(samples, pairs)
    scales = [scale_hypothesis(factor, samples) for factor in TOGETHER]
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

    def __init__(self, samples: list[SampledFrame], pairs: list[tuple[int, int]]) -> None:
        self.samples = samples
        self.frames = Reprojection(samples, pairs[:: max(len(pairs) // PAIRS, 1)], PIXELS)
        self.few = Reprojection(samples, pairs[:: max(len(pairs) // FEW_PAIRS, 1)], FEW_PIXELS)
        self.tolerance = NEAR * median_depth(samples)
        self.base, self.base_color = self._compare(AS_STORED)
        self.table: dict[str, Float64[ndarray, "pair 2"]] = {}
        self.score: dict[str, float] = {}
        self.color: dict[str, float | None] = {}

    def add(self, hypothesis: Hypothesis) -> float:
        """Compare; returns the closeness."""
        table, self.color[hypothesis.name] = self._compare(hypothesis)
        self.table[hypothesis.name] = table
        self.score[hypothesis.name] = mean_closeness(table)
        return self.score[hypothesis.name]

    def add_best(self, tried: list[Hypothesis]) -> None:
        """Those that agree best on few pixels, in the order given."""
        rough = [self._rough(one) for one in tried]
        least = sorted(rough)[-min(SHORTLIST, len(rough))]
        for hypothesis, value in zip(tried, rough, strict=True):
            if value >= least:
                self.add(hypothesis)

    def add_scale(self) -> None:
        """The scale under which frames agree best, or the known one that is meant."""
        factor = fit_factor(lambda one: self._rough(Hypothesis("", depth_factor=one)))
        for width in (0.04, 0.02, 0.01):
            around = factor * np.exp(width * np.array([0.0, -1.0, 1.0]))
            factor = max(around.tolist(), key=lambda one: self._closeness(Hypothesis("", depth_factor=one)))
        if abs(np.log(factor)) < SMALLEST:
            return
        found = scale_hypothesis(factor, self.samples)
        fitted = self.add(found)
        known = [scale_hypothesis(one, self.samples) for one in known_near(factor)]
        best = max((self.add(one) for one in known), default=0.0)
        names = [one.name for one in known]
        meant = next((name for name in names if self.score[name] >= max(best - EQUAL, fitted - TIE)), None)
        for name in (*names, found.name):
            if meant not in (None, name):  # of a plateau of factors the known one is meant
                self._drop(name)

    def add_focal(self) -> None:
        """The best of the focal lengths, refined."""
        best = max(FOCAL_FACTORS, key=lambda one: self._rough(focal_hypothesis(one)))
        for width in (0.08, 0.04, 0.02, 0.01):
            around = best * np.exp(width * np.array([-1.0, 0.0, 1.0]))
            best = max(around.tolist(), key=lambda one: self._closeness(focal_hypothesis(one)))
        if abs(np.log(best)) < SMALLEST:
            return
        self.add(focal_hypothesis(best))
        for factor in FOCAL_FACTORS:
            if 1e-9 < abs(np.log(factor / best)) < 0.12:  # the same mistake, less exactly
                self._drop(focal_hypothesis(factor).name)

    def diagnosis(self) -> Diagnosis:
        """The simplest of the best hypotheses, where it is clearly better than what is."""
        base = mean_closeness(self.base)
        still = self.frames.under(AS_STORED, np.tile(np.eye(4), (len(self.samples), 1, 1)))
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
        """The first of some hypotheses, unless colours agree clearly better under another one."""
        color = [self.color[name] or 0.0 for name in near]
        best = int(np.argmax(color))
        return near[best] if color[best] > color[0] + COLORS_LEAD / 2 else near[0]

    def _by_color(self, base: float) -> str:
        """A hypothesis of equal agreement in depth under which colours agree clearly better."""
        if self.base_color is None:
            return ""
        equal = {name: self.color[name] for name, value in self.score.items() if value > base - 0.01}
        better = [(color, name) for name, color in equal.items() if color is not None]
        color, name = max(better, default=(0.0, ""))
        lacking = 1.0 - self.base_color
        clear = color > self.base_color + COLORS_LEAD and 1.0 - color < COLORS_LEFT * lacking
        return name if clear else ""

    def _drop(self, name: str) -> None:
        for scores in (self.table, self.score, self.color):
            scores.pop(name, None)

    def _rough(self, hypothesis: Hypothesis) -> float:
        found = self.few.under(hypothesis)
        return mean_closeness(found.closeness(self.tolerance * hypothesis.depth_factor))

    def _closeness(self, hypothesis: Hypothesis) -> float:
        return mean_closeness(self._compare(hypothesis)[0])

    def _compare(self, hypothesis: Hypothesis) -> tuple[Float64[ndarray, "pair 2"], float | None]:
        found: Agreement = self.frames.under(hypothesis)
        # Errors shrink and grow with a factor: the tolerance follows.
        tolerance = self.tolerance * hypothesis.depth_factor
        return found.closeness(tolerance), found.correlation(tolerance)
