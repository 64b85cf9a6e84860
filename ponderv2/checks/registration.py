"""Does colour lie on depth? What moves all colour images alike leaves the agreement of depth as it is.

Two witnesses: local contrast of pixels that two frames see again (needs motion), and image edges on depth
edges of one frame (needs none). Each is compared under other placements of the colour: mirrored, turned,
shifted, magnified. Pixels (x, y), centres at integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.geometry.reprojection import Agreement, SampledFrame

Image = Float64[ndarray, "_row _column"]
Images = list[Image | None]
"""Of any sizes; None for a frame without colour."""

WIDTH = 160
"""To which images are reduced: finer structure than 1/160 of the width is calibration, not a mistake."""
CONTRAST = 0.04
"""Of the width: the neighbourhood whose mean and spread are taken out. Brightness itself correlates at 0.8
even for images shifted by 8 % of the width, its local contrast at half of what it does in place."""
FEWEST_MATCHES, FEWEST_OF_PAIR = 300, 12
"""Pixels seen again, in all and of one pair."""
MAGNIFIED = (
    *(0.4, 0.5, 0.56, 0.63, 0.71, 0.77, 0.83, 0.9, 0.95),
    *(1.05, 1.11, 1.2, 1.3, 1.41, 1.6, 1.8, 2.0, 2.5),
)
LEAD, LEFT, LITTLE_LEFT, WINS = 0.08, 0.85, 0.65, 0.7
"""By how much the correlation must rise under another placement, which part of what lacks to 1 may remain,
and in which part of the pairs it must be better. Sound recordings: at most 0.00 (walk through a box), kitchen
below."""
LOWEST = 0.25
"""Correlation that an explanation must reach; unrelated images stay below 0.13."""
FEWEST_EDGES, FEWEST_FRAMES = 30, 3
EDGES_LEAD, EDGES_LOWEST, EDGES_WINS = 0.08, 0.68, 0.75
"""The same of edges, where colours cannot tell. Rank of the image gradient at depth edges, 0..1: 0.70 to 0.83
in place, 0.60 to 0.67 elsewhere."""
EDGES_AGAINST = 0.03
"""Loss of edges that refutes what the contrast says, in at least AGAINST_FRAMES."""
AGAINST_FRAMES = 8
STRONG = 0.05
"""Mean distance, in widths, between where colours are and where they belong, from which on a scene is
suspect. The two cameras of one Kinect, not registered, are 0.035 to 0.04 apart, which is worth a note; a
camera of another image size is 0.06 or more away."""


@dataclass(frozen=True)
class Placement:
    """Where the colour of a depth pixel would be: colour pixel = matrix @ (x, y, 1)."""

    description: str
    matrix: Float64[ndarray, "3 3"]
    shift: bool = False
    """A shift: only colours can tell it, depth edges meet image edges by chance under one of many."""
    fitted: bool = False
    """Magnified or shifted: may be fitted further."""


@dataclass(frozen=True)
class Registration:
    """What was found out about colour and depth."""

    contrast: float | None
    """Correlation of local contrast of pixels seen again, as the images are; None = not enough evidence."""
    edges: float | None
    """Mean rank of the image gradient at depth edges, as the images are; 0.5 = no relation, None as above."""
    cause: str
    """Another placement that fits clearly better; empty when none does."""
    offset: float = 0.0
    """Mean distance between the two placements, in widths of the image."""
    best: float = 0.0
    """Correlation of local contrast under it."""
    unknown: str = ""
    """Why there is no result."""

    @property
    def strong(self) -> bool:
        """Whether it spoils the colours of a scene rather than blurring them."""
        return self.offset > STRONG


def check_registration(
    samples: list[SampledFrame], found: Agreement, pairs: list[tuple[int, int]]
) -> Registration:
    """`found`: agreeing pixels of the pairs."""
    colored = [one.grey is not None for one in samples]
    if not any(colored):
        return Registration(None, None, "", unknown="no colour")
    images = [local_contrast(one.grey) for one in samples]
    if all(image is None or image.std() < 1e-3 for image in images):
        return Registration(None, None, "", unknown="colour images without contrast")
    height, width = samples[0].depth.shape
    identity = Placement("", np.eye(3))
    others = list(placements(width, height))
    placement_scores = _PlacementScores(samples, images, found, np.array(pairs, np.int64).reshape(-1, 2))
    contrast, edges = placement_scores.contrast(identity), placement_scores.edges(identity)
    base, sharp = mean_contrast(contrast), mean_contrast(edges)
    if base is None and sharp is None:
        return Registration(None, None, "", unknown="too few pixels seen again and too few depth edges")
    chosen, value = identity, base or 0.0
    for one in others:
        score = placement_scores.contrast(one)
        mean = mean_contrast(score)
        better = mean is not None and mean > max(value, LOWEST) and _leads(score, contrast)
        if better and not _refuted(placement_scores.edges(one), edges):
            chosen, value = one, float(mean or 0.0)
    if chosen.fitted:
        chosen, value = _fitted(placement_scores, chosen, value, width, height)
    if not chosen.description:
        chosen = _by_edges(placement_scores, others, edges, contrast)
    offset = round(_offset(chosen.matrix, width, height), 4)
    return Registration(_rounded(base), _rounded(sharp), chosen.description, offset, round(value, 3))


def placements(width: int, height: int) -> Iterator[Placement]:
    """All that are tried."""
    across, down = np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0])
    yield _about("colour images are mirrored left to right against depth", across, width, height)
    yield _about("colour images are mirrored upside down against depth", down, width, height)
    yield _about("colour images are turned by 180 degrees against depth", across @ down, width, height)
    turned = np.array([[0.0, width / height, 0], [-height / width, 0, 0], [0, 0, 1]])
    yield _about("colour images are turned by 90 degrees against depth", turned, width, height)
    yield _about(
        "colour images are turned by 90 degrees against depth", turned @ turned @ turned, width, height
    )
    for factor in MAGNIFIED:
        yield _magnified(np.array([factor, 0.0, 0.0]), width, height)
    for factor in (0.5625, 0.75, 1.3333, 1.7778):
        description = f"colour is stretched {{}} by about {factor:.3g} against depth: another aspect ratio"
        yield _about(description.format("vertically"), np.diag([1.0, factor, 1.0]), width, height)
        yield _about(description.format("horizontally"), np.diag([factor, 1.0, 1.0]), width, height)
    for right in range(-2, 3):
        for below in range(-2, 3):
            if right or below:
                yield _magnified(np.array([1.0, right * 0.08, below * 0.08]), width, height)


def _magnified(numbers: Float64[ndarray, "3"], width: int, height: int) -> Placement:
    """Magnified about the middle by the first number, then shifted by the others, in widths."""
    factor, right, below = numbers.tolist()
    description = []
    if abs(factor - 1.0) > 0.02:
        description.append(f"magnified by about {factor:.2f}")
    if max(abs(right), abs(below)) > 0.015:
        description.append(f"shifted by about ({right * width:+.0f}, {below * width:+.0f}) pixels")
    found = _about("", np.diag([factor, factor, 1.0]), width, height)
    found.matrix[:2, 2] += np.array([right, below]) * width
    text = (
        f"colour is {' and '.join(description)} against depth: it has another camera" if description else ""
    )
    return Placement(text, found.matrix, shift=factor == 1.0, fitted=True)


def _fitted(
    placement_scores: _PlacementScores, start: Placement, value: float, width: int, height: int
) -> tuple[Placement, float]:
    """Factor and shift refined, one number after the other."""
    factor = float(start.matrix[0, 0])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = (start.matrix[:2, 2] - (1.0 - factor) * middle) / width
    best = np.array([factor, *shift])
    for step in (0.04, 0.02, 0.01):
        improved = True
        while improved:
            improved = False
            for axis in range(3):
                for sign in (-step, step):
                    numbers = best.copy()
                    numbers[axis] += sign
                    if not 0.3 < numbers[0] < 3.0 or np.abs(numbers[1:]).max() > 0.3:
                        continue
                    mean = mean_contrast(placement_scores.contrast(_magnified(numbers, width, height)))
                    if mean is not None and mean > value + 1e-3:
                        best, value, improved = numbers, mean, True
    return _magnified(best, width, height), value


def local_contrast(grey: Image | None) -> Image | None:
    """Brightness without its local mean, over its local spread; reduced to about WIDTH columns."""
    if grey is None:
        return None
    from scipy.ndimage import gaussian_filter

    step = max(grey.shape[1] // WIDTH, 1)
    rows, columns = grey.shape[0] // step * step, grey.shape[1] // step * step
    small = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    around = CONTRAST * small.shape[1]
    centred = small - gaussian_filter(small, around)
    return centred / (np.sqrt(gaussian_filter(centred**2, around)) + 4.0)


class ContrastStack:
    """Reduced images in one row of numbers, so that pixels of many are read at once.

    Placements are of pixels at the size of the first frame; frames may have other sizes.
    """

    def __init__(self, images: Images, shapes: list[tuple[int, ...]]) -> None:
        """`shapes`: rows and columns of each frame in full."""
        self.full = np.array([(shape[1], shape[0]) for shape in shapes], np.float64).reshape(-1, 2)
        size = [(1, 1) if image is None else (image.shape[1], image.shape[0]) for image in images]
        self.size = np.array(size, np.int64).reshape(-1, 2)
        self.start = np.concatenate([[0], np.cumsum(self.size.prod(axis=1))])
        none = np.full(1, np.nan)
        self.value = np.concatenate([none if image is None else image.ravel() for image in images])

    def at(self, frame: ndarray, pixel: ndarray, matrix: ndarray) -> Float64[ndarray, " point"]:
        """Nearest values at placed pixels of the full images; not a number outside or where there is none."""
        placed = ((pixel + 0.5) * (self.full[0] / self.full[frame]) - 0.5) @ matrix[:2, :2].T + matrix[:2, 2]
        size = self.size[frame]
        place = np.rint((placed + 0.5) * (size / self.full[0]) - 0.5)
        inside = ((place >= 0) & (place < size)).all(axis=1)
        value = np.full(len(pixel), np.nan)
        x, y = place[inside].astype(np.int64).T
        value[inside] = self.value[self.start[frame[inside]] + y * size[inside, 0] + x]
        return value


def contrast_of_pairs(
    stack: ContrastStack, found: Agreement, pairs: ndarray, matrix: Float64[ndarray, "3 3"]
) -> Float64[ndarray, "pair 2"]:
    """Correlation of local contrast (not a number where too little is seen) and number of pixels, of each
    pair."""
    first = stack.at(pairs[found.pair, 0], found.start, matrix)
    second = stack.at(pairs[found.pair, 1], found.end, matrix)
    known = np.isfinite(first) & np.isfinite(second)
    pair, first, second = found.pair[known], first[known], second[known]

    def total(values: ndarray) -> ndarray:
        return np.bincount(pair, weights=values, minlength=len(pairs))

    count = total(np.ones(len(pair)))
    n = np.maximum(count, 1.0)
    mean = total(first) / n, total(second) / n
    spread = total(first**2) / n - mean[0] ** 2, total(second**2) / n - mean[1] ** 2
    both = total(first * second) / n - mean[0] * mean[1]
    scale = np.sqrt(np.maximum(spread[0], 0) * np.maximum(spread[1], 0))
    fine = (count >= FEWEST_OF_PAIR) & (scale > 1e-6)
    return np.stack([np.where(fine, both / np.where(fine, scale, 1.0), np.nan), count], axis=1)


class _PlacementScores:
    """Evidence for any placement."""

    def __init__(self, samples: list[SampledFrame], images: Images, found: Agreement, pairs: ndarray) -> None:
        self.found, self.pairs = found, pairs
        shapes = [one.depth.shape for one in samples]
        self.stack = ContrastStack(images, shapes)
        pixels = [_depth_edges(one.depth) for one in samples]
        self.edge = np.concatenate(pixels)
        self.frame = np.repeat(np.arange(len(samples)), [len(one) for one in pixels])
        self.n_frames = len(samples)
        self.gradients = ContrastStack([_gradient_rank(one.grey) for one in samples], shapes)

    def contrast(self, placement: Placement) -> Float64[ndarray, "pair 2"]:
        return contrast_of_pairs(self.stack, self.found, self.pairs, placement.matrix)

    def edges(self, placement: Placement) -> Float64[ndarray, "frame 2"]:
        """Mean rank of the gradient at depth edges, and how many there are, of each frame."""
        rank = self.gradients.at(self.frame, self.edge, placement.matrix)
        known = np.isfinite(rank)
        count = np.bincount(self.frame[known], minlength=self.n_frames).astype(np.float64)
        total = np.bincount(self.frame[known], weights=rank[known], minlength=self.n_frames)
        return np.stack(
            [np.where(count >= FEWEST_EDGES, total / np.maximum(count, 1.0), np.nan), count], axis=1
        )


def _by_edges(
    placement_scores: _PlacementScores, others: list[Placement], edges: ndarray, contrast: ndarray
) -> Placement:
    """The placement that only edges speak for, where the camera moves too little for colours to tell."""
    base = mean_contrast(contrast)
    best, chosen = EDGES_LOWEST, Placement("", np.eye(3))
    for one in others:
        score = placement_scores.edges(one)
        mean = mean_contrast(score)
        if (
            one.shift
            or mean is None
            or mean <= best
            or not _leads_by(score, edges, EDGES_LEAD, 1.0, EDGES_WINS)
        ):
            continue
        seen = mean_contrast(placement_scores.contrast(one))
        if base is None or seen is None or seen > base - 0.02:
            best, chosen = mean, one
    return chosen


def mean_contrast(scores: ndarray) -> float | None:
    """Weighted by pixels; None where there are too few pairs or frames."""
    known = np.isfinite(scores[:, 0])
    least = FEWEST_MATCHES if len(scores) else 0
    if known.sum() < FEWEST_FRAMES or scores[known, 1].sum() < least:
        return None
    return float(np.average(scores[known, 0], weights=scores[known, 1]))


def _leads(one: ndarray, other: ndarray) -> bool:
    """By much, or by less where little lacks."""
    return _leads_by(one, other, LEAD, LEFT, WINS) or _leads_by(one, other, LEAD / 2, LITTLE_LEFT, WINS)


def _leads_by(one: ndarray, other: ndarray, lead: float, left: float, wins: float) -> bool:
    best, second = mean_contrast(one), mean_contrast(other)
    if best is None:
        return False
    second = 0.0 if second is None else second
    if best - second < lead or 1.0 - best > left * (1.0 - second):
        return False
    both = np.isfinite(one[:, 0]) & np.isfinite(other[:, 0])
    return bool(both.any()) and float((one[both, 0] > other[both, 0]).mean()) >= wins


def _refuted(score: ndarray, edges: ndarray) -> bool:
    both = np.isfinite(score[:, 0]) & np.isfinite(edges[:, 0])
    return int(both.sum()) >= AGAINST_FRAMES and float((score - edges)[both, 0].mean()) < -EDGES_AGAINST


def _depth_edges(depth: Image) -> Float64[ndarray, "edge 2"]:
    """Pixels beside a jump of depth by more than 6 %, of an image reduced to about WIDTH columns."""
    step = max(depth.shape[1] // WIDTH, 1)
    small = depth[step // 2 :: step, step // 2 :: step]
    jump = np.zeros(small.shape, bool)
    for axis in (0, 1):
        along = np.moveaxis(small, axis, 0)
        nearer = np.minimum(along[1:], along[:-1])
        np.moveaxis(jump, axis, 0)[1:] |= (np.abs(np.diff(along, axis=0)) > 0.06 * nearer) & (nearer > 0)
    row, column = np.nonzero(jump)
    return np.stack([column, row], axis=1).astype(np.float64) * step + step // 2


def _gradient_rank(grey: Image | None) -> Image | None:
    """Rank of the gradient among those of its image, 0..1, the largest of the neighbours."""
    if grey is None or grey.std() < 1e-3:
        return None
    from scipy.ndimage import gaussian_filter, maximum_filter, sobel

    step = max(grey.shape[1] // WIDTH, 1)
    rows, columns = grey.shape[0] // step * step, grey.shape[1] // step * step
    small = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    small = gaussian_filter(small, 0.5)
    gradient = np.hypot(sobel(small, 0), sobel(small, 1))
    rank = gradient.ravel().argsort().argsort().reshape(gradient.shape) / gradient.size
    return maximum_filter(rank, size=3)


def _about(description: str, linear: ndarray, width: int, height: int) -> Placement:
    """A linear map about the middle of the image."""
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = linear.copy()
    matrix[:2, 2] = middle - linear[:2, :2] @ middle
    return Placement(description, matrix)


def _offset(matrix: ndarray, width: int, height: int) -> float:
    row, column = np.mgrid[0 : height : max(height // 12, 1), 0 : width : max(width // 16, 1)]
    pixel = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.float64)
    moved = pixel @ matrix[:2, :2].T + matrix[:2, 2]
    return float(np.linalg.norm(moved - pixel, axis=1).mean() / width)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
