"""Are poses, depth and cameras of a scene consistent? Depth is reprojected between frames and into the cloud.

When it is not, other readings of the same files are tried (inverse poses, mirrored axes, other depth scales,
other focal lengths); the one under which the frames agree names the likely cause. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.check_readings import Reading, readings
from ponderv2.scenes.scene import Frame, Scene

GAPS = (1, 2, 3, 5, 8)
"""Steps between the frames of a pair, in the chosen frames."""
CLEARLY_BETTER = 0.04
"""Share of agreeing pixels by which another reading must win to be named."""
HALVED = 0.6
"""Another reading must leave less than this part of the disagreeing pixels."""
MIN_CLOUD_SHARE = 0.3
"""Share of depth pixels near a point of the cloud, below which the cloud cannot be that of the frames."""
RELATIVE = 0.02
"""Part of the depth that is tolerated on top of the fixed tolerance."""


@dataclass(frozen=True)
class CheckSettings:
    """How much is looked at, and what counts as agreement."""

    max_frames: int = 24
    n_pixels: int = 1500
    tolerance: float = 0.05
    min_inliers: float = 0.6


@dataclass(frozen=True)
class CheckResult:
    """The figures of one scene. Nothing that could not be measured is a number."""

    n_frames: int
    n_pairs: int
    median_error: float | None
    """Of reprojected depth between frames, metres."""
    inlier_share: float | None
    """Share of reprojected pixels within the tolerance."""
    cloud_median_error: float | None
    """From depth pixels to the nearest point of the cloud, metres."""
    cloud_inlier_share: float | None
    color_correlation: float | None
    """Of the brightness of reprojected pixels: how well colour is registered to depth."""
    suspect: bool
    likely_cause: str
    """Empty when nothing is wrong."""
    alternatives: dict[str, float]
    """Agreement under other readings, the best five."""
    mirrored: bool = False
    """Cameras of determinant -1: the scene is a mirror image of the place, which does no harm by itself."""


@dataclass(frozen=True)
class Samples:
    """One frame as the check sees it."""

    depth: Float64[ndarray, "row column"]
    grey: Float64[ndarray, "row column"]
    pixel: Float64[ndarray, "point 2"]
    """Pixels with a measurement."""
    intrinsics: Float64[ndarray, "3 3"]
    camera_to_world: Float64[ndarray, "4 4"]


@dataclass(frozen=True)
class Agreement:
    """Residuals of all pairs under one reading."""

    error: Float64[ndarray, " point"]
    """Difference of depths where a pixel was seen again, metres."""
    depth: Float64[ndarray, " point"]
    first: Float64[ndarray, " point"]
    """Brightness in the one frame."""
    second: Float64[ndarray, " point"]
    """Brightness in the other."""
    n_tried: int

    def share(self, tolerance: float) -> float:
        """Agreeing part of the pixels that were seen again; few pixels seen again lower it."""
        seen = max(len(self.error), 0.15 * self.n_tried, 1.0)
        return float((np.abs(self.error) < tolerance + RELATIVE * self.depth).sum() / seen)


def check_scene(scene: Scene, settings: CheckSettings = CheckSettings()) -> CheckResult:
    """Reproject depth between frames and into the cloud; try other readings when they disagree."""
    chosen = _chosen(scene.frames, settings.max_frames)
    samples = [_samples(frame, settings.n_pixels) for frame in chosen]
    samples = [one for one in samples if len(one.pixel) >= 20]
    pairs = _pairs(samples)
    if not pairs:
        return _unchecked(len(samples), "fewer than two frames with depth: nothing to compare")
    base = agreement(samples, pairs, Reading(""))
    share = base.share(settings.tolerance)
    cloud_error = _distance_to_cloud(scene, samples)
    cloud_share = float((cloud_error < settings.tolerance).mean()) if len(cloud_error) else None
    scores, better = _other_readings(samples, pairs, settings.tolerance)
    cause = better or _cause_without_reading(samples, share, cloud_share, settings)
    return CheckResult(
        n_frames=len(samples),
        n_pairs=len(pairs),
        median_error=_rounded(np.median(np.abs(base.error)) if len(base.error) else None),
        inlier_share=_rounded(share),
        cloud_median_error=_rounded(np.median(cloud_error) if len(cloud_error) else None),
        cloud_inlier_share=_rounded(cloud_share),
        color_correlation=_correlation(base, settings.tolerance),
        suspect=bool(cause),
        likely_cause=cause,
        alternatives=scores,
    )


def agreement(samples: list[Samples], pairs: list[tuple[int, int]], reading: Reading) -> Agreement:
    """Reproject the pixels of each pair's first frame into the second."""
    parts: list[tuple[ndarray, ndarray, ndarray, ndarray]] = []
    n_tried = 0
    for first, second in pairs:
        parts.append(_reproject(samples[first], samples[second], reading))
        n_tried += len(samples[first].pixel)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Agreement(columns[0], columns[1], columns[2], columns[3], n_tried)


def _reproject(
    first: Samples, second: Samples, reading: Reading
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Depth difference, depth, and the brightness in both frames, of the pixels that are seen again."""
    source, target = reading.intrinsics(first.intrinsics), reading.intrinsics(second.intrinsics)
    column, row = first.pixel[:, 0].astype(np.int64), first.pixel[:, 1].astype(np.int64)
    depth = first.depth[row, column] * reading.depth_factor
    ray = (first.pixel - source[:2, 2]) / np.array([source[0, 0], source[1, 1]])
    points = np.concatenate([ray, np.ones((len(ray), 1))], axis=1) * depth[:, None]
    pose = np.linalg.inv(reading.pose(second.camera_to_world)) @ reading.pose(first.camera_to_world)
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    front = moved[:, 2] > 0.05
    pixel = moved[front, :2] / moved[front, 2:] * (target[0, 0], target[1, 1]) + target[:2, 2]
    x, y = np.rint(pixel[:, 0]), np.rint(pixel[:, 1])
    height, width = second.depth.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x[inside].astype(np.int64), y[inside].astype(np.int64)
    measured = second.depth[y, x] * reading.depth_factor
    z = moved[front, 2][inside]
    known = measured > 0
    # What lies far behind the second frame's surface is hidden from it, which is no disagreement.
    known &= z < measured * 1.25 + 0.1
    start = first.grey[row, column][front][inside]
    return (z - measured)[known], z[known], start[known], second.grey[y, x][known]


def _other_readings(
    samples: list[Samples], pairs: list[tuple[int, int]], tolerance: float
) -> tuple[dict[str, float], str]:
    """Agreement of the best other readings, and the name of one that halves the disagreement, if one does."""
    few = [replace(one, pixel=one.pixel[:: max(len(one.pixel) // 300, 1)]) for one in samples]
    share = agreement(few, pairs, Reading("")).share(tolerance)
    scores: dict[str, float] = {}
    for reading in readings(samples[0].intrinsics, samples[0].depth.shape):
        # Errors shrink with a scale below one: the tolerance has to shrink with it.
        scaled = tolerance * min(max(reading.depth_factor, 0.02), 1.0)
        scores[reading.name] = round(agreement(few, pairs, reading).share(scaled), 3)
    best = sorted(scores.items(), key=lambda item: -item[1])[:5]
    clearly = best[0][1] > share + CLEARLY_BETTER and 1.0 - best[0][1] < HALVED * (1.0 - share)
    return dict(best), best[0][0] if clearly else ""


def _cause_without_reading(
    samples: list[Samples], share: float, cloud_share: float | None, settings: CheckSettings
) -> str:
    """What is wrong although no other reading is better; empty when nothing is."""
    if any(np.linalg.det(one.camera_to_world[:3, :3]) < 0 for one in samples):
        return "poses are mirrored: frames agree, but the scene is a mirror image of the place"
    if share < settings.min_inliers:
        return "frames disagree, and none of the usual mistakes explains it: inaccurate poses, motion, noise"
    if cloud_share is not None and cloud_share < MIN_CLOUD_SHARE:
        return "the points do not lie where the frames see surfaces: they are in another frame or too sparse"
    return ""


def _chosen(frames: tuple[Frame, ...], most: int) -> list[Frame]:
    """A few runs of neighbouring frames rather than frames far apart, which would see different things."""
    if len(frames) <= most:
        return list(frames)
    n_runs = max(most // 8, 1)
    length = most // n_runs
    span = len(frames) // n_runs
    step = max(min(span // length, 3), 1)
    starts = [run * span for run in range(n_runs)]
    picked = sorted({start + index * step for start in starts for index in range(length)})
    return [frames[index] for index in picked if index < len(frames)]


def _pairs(samples: list[Samples]) -> list[tuple[int, int]]:
    """Both directions of frames a few steps apart, at most 120 pairs."""
    pairs = [(one, one + gap) for gap in GAPS for one in range(len(samples) - gap)]
    pairs = pairs[:: max(len(pairs) // 60, 1)]
    return pairs + [(second, first) for first, second in pairs]


def _samples(frame: Frame, n_pixels: int) -> Samples:
    depth = frame.read_depth().numpy().astype(np.float64)
    color = frame.read_color().numpy()
    row, column = np.nonzero(depth > 0)
    keep = np.linspace(0, max(len(row) - 1, 0), min(n_pixels, len(row))).astype(np.int64)
    # Evenly spaced in reading order would give stripes where the row length divides the step: jitter by hash.
    keep = np.clip(keep + (np.arange(len(keep)) * 7919) % 53, 0, max(len(row) - 1, 0))
    pixel = np.stack([column[keep], row[keep]], axis=1).astype(np.float64)
    return Samples(
        depth=depth,
        grey=_grey(color),
        pixel=pixel,
        intrinsics=frame.camera.intrinsics.numpy().astype(np.float64),
        camera_to_world=np.linalg.inv(frame.camera.world_to_camera.numpy().astype(np.float64)),
    )


def _grey(color: UInt8[ndarray, "row column 3"]) -> Float64[ndarray, "row column"]:
    return color.astype(np.float64).mean(axis=2)


def _distance_to_cloud(scene: Scene, samples: list[Samples]) -> Float[ndarray, " point"]:
    from scipy.spatial import KDTree

    coord = scene.cloud.coord.numpy().astype(np.float64)
    tree = KDTree(coord[:: max(len(coord) // 400_000, 1)])
    found: list[ndarray] = [np.zeros(0)]
    for one in samples[:: max(len(samples) // 8, 1)]:
        pixel = one.pixel[:: max(len(one.pixel) // 300, 1)]
        depth = one.depth[pixel[:, 1].astype(np.int64), pixel[:, 0].astype(np.int64)]
        ray = (pixel - one.intrinsics[:2, 2]) / np.array([one.intrinsics[0, 0], one.intrinsics[1, 1]])
        points = np.concatenate([ray, np.ones((len(ray), 1))], axis=1) * depth[:, None]
        found.append(
            np.asarray(tree.query(points @ one.camera_to_world[:3, :3].T + one.camera_to_world[:3, 3])[0])
        )
    return np.concatenate(found)


def _correlation(base: Agreement, tolerance: float) -> float | None:
    agreeing = np.abs(base.error) < tolerance
    first, second = base.first[agreeing], base.second[agreeing]
    if len(first) < 50 or first.std() < 1e-6 or second.std() < 1e-6:
        return None
    return _rounded(np.corrcoef(first, second)[0, 1])


def _rounded(value: float | np.floating | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _unchecked(n_frames: int, reason: str) -> CheckResult:
    return CheckResult(n_frames, 0, None, None, None, None, None, False, reason, {})


def check_or_reason(scene: Scene, settings: CheckSettings) -> CheckResult:
    """Like check_scene; a scene whose pictures cannot be read is suspect, with the reason."""
    try:
        return check_scene(scene, settings)
    except SceneError as error:
        return CheckResult(0, 0, None, None, None, None, None, True, error.message, {})
