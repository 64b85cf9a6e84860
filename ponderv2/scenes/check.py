"""Are poses, depth, cameras and points of a scene consistent? Frames are compared with each other and them.

When they are not, other readings of the same files are tried (inverse poses, mirrored axes, other scales and
focal lengths), then pictures of other frames, then motions of the points that the cameras did not make;
the one under which all agrees names the likely cause. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.check_agreement import (
    FEWEST,
    Samples,
    agreement,
    frame_pairs,
    sample_frame,
)
from ponderv2.scenes.check_candidates import spread_frames
from ponderv2.scenes.check_cloud import CloudMap, motion_of_cloud, reading_of_cloud, seen_points
from ponderv2.scenes.check_order import OrderCheck
from ponderv2.scenes.check_readings import Reading, readings
from ponderv2.scenes.scene import Frame, Scene

CLEARLY_BETTER = 0.04
"""Share of agreeing pixels by which another reading must win to be named."""
HALVED = 0.6
"""Another reading must leave less than this part of the disagreeing pixels."""
MIN_CLOUD_SHARE = 0.3
"""Share of depth pixels near a point of the cloud, below which the cloud cannot be that of the frames."""
GOOD_CLOUD_SHARE = 0.8
"""The share from which on nobody asks whether points and cameras were moved apart."""
FEW_SEEN_AGAIN = 0.3
"""Part of the pixels seen again, below which frames look at different things and the points decide."""
CONVINCING = 0.85
"""Agreement under another reading from which on no further explanation is looked for."""
UNEXPLAINED = "frames disagree, and none of the usual mistakes explains it: inaccurate poses, motion, noise"
UNRELATED_COLORS = 0.5
"""Correlation of brightness below which colours may be those of other frames."""


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
    """Agreement under other readings, the best five; empty where frames agree so well that none was tried."""
    mirrored: bool = False
    """Cameras of determinant -1: the scene is a mirror image of the place, which does no harm by itself."""


def check_scene(scene: Scene, settings: CheckSettings = CheckSettings()) -> CheckResult:
    """Compare frames with each other and with the cloud; name the likely cause where they disagree."""
    samples = [sample_frame(frame, settings.n_pixels) for frame in _chosen(scene.frames, settings.max_frames)]
    samples = [one for one in samples if len(one.pixel) >= FEWEST]
    if not samples:
        return _unchecked(0, "no frames with depth: nothing to compare")
    return _Check(scene, settings, samples).result()


class _Check:
    """One scene under examination. What costs is done when it is asked for."""

    def __init__(self, scene: Scene, settings: CheckSettings, samples: list[Samples]) -> None:
        self.scene, self.settings, self.samples = scene, settings, samples
        self.pairs = frame_pairs(len(samples))
        self.base = agreement(samples, self.pairs, Reading(""))
        self.cloud = CloudMap(scene.cloud.coord.numpy(), settings.tolerance)
        self.cloud_error = self.cloud.distance(seen_points(samples, Reading("")))
        self.cloud_share = float((self.cloud_error < settings.tolerance).mean())
        self.scores: dict[str, float] = {}

    def result(self) -> CheckResult:
        """Figures and cause."""
        cause = self._cause()
        share = self._share() if self.pairs else None
        known = bool(len(self.base.error))
        correlation = self.base.correlation(self.settings.tolerance)
        words = cause
        if not self.pairs and not cause:
            words = "fewer than two frames with depth: nothing to compare but frame and points"
        return CheckResult(
            n_frames=len(self.samples),
            n_pairs=len(self.pairs),
            median_error=_rounded(np.median(np.abs(self.base.error)) if known else None),
            inlier_share=_rounded(share),
            cloud_median_error=_rounded(np.median(self.cloud_error)),
            cloud_inlier_share=_rounded(self.cloud_share),
            color_correlation=_rounded(correlation),
            suspect=bool(cause),
            likely_cause=words,
            alternatives=self.scores,
            mirrored=any(np.linalg.det(one.camera_to_world[:3, :3]) < 0 for one in self.samples),
        )

    def _share(self) -> float | None:
        """Agreement of the frames; of what is seen again alone, where the points vouch for the poses."""
        if self._points_decide() and self.cloud_share >= self.settings.min_inliers:
            return self.base.share_of_seen(self.settings.tolerance)
        return self.base.share(self.settings.tolerance)

    def _points_decide(self) -> bool:
        return self.base.overlap < FEW_SEEN_AGAIN

    def _cause(self) -> str:
        """What is wrong; empty when nothing is."""
        if not self.pairs or self._points_decide():
            cause = self._cause_by_points()
            if cause is not None:
                return cause
        return self._cause_by_frames()

    def _cause_by_points(self) -> str | None:
        """Of frames that see different things; None where the points cannot tell."""
        seen = self.base.share_of_seen(self.settings.tolerance)
        agree = seen is None or seen >= self.settings.min_inliers
        if agree and self.cloud_share >= self.settings.min_inliers:
            return ""
        first = self.samples[0]
        others = readings(first.intrinsics, first.depth.shape)
        cause, best = reading_of_cloud(self.samples, self.cloud, others, self.cloud_share)
        if cause and best > CONVINCING:
            return cause
        moved, share = motion_of_cloud(self.samples, self.cloud, self.cloud_share)
        if moved and share > best:
            return moved
        if cause or self.pairs:
            return cause or None
        return self._by_share_of_cloud()

    def _cause_by_frames(self) -> str:
        settings = self.settings
        share = self.base.share(settings.tolerance)
        self.scores, better = _other_readings(self.samples, self.pairs, settings.tolerance)
        if better and self.scores[better] > CONVINCING:
            return better
        if better or share < settings.min_inliers:
            order, found = OrderCheck(
                self.scene.frames, min(settings.n_pixels, 300), settings.tolerance
            ).of_poses()
            if order and found > self.scores.get(better, 0.0):
                return order
        if better:
            return better
        if share < settings.min_inliers:
            return UNEXPLAINED
        if self.cloud_share < GOOD_CLOUD_SHARE:
            moved, _ = motion_of_cloud(self.samples, self.cloud, self.cloud_share)
            if moved or self.cloud_share < MIN_CLOUD_SHARE:
                return moved or self._by_share_of_cloud()
        return self._colors_of_other_frames()

    def _by_share_of_cloud(self) -> str:
        if self.cloud_share < MIN_CLOUD_SHARE:
            return (
                "the points do not lie where the frames see surfaces: they are in another frame or too sparse"
            )
        return ""

    def _colors_of_other_frames(self) -> str:
        """Depth and poses agree; do the colours?"""
        correlation = self.base.correlation(self.settings.tolerance)
        if correlation is None or correlation >= UNRELATED_COLORS:
            return ""
        frames, n_pixels = self.scene.frames, min(self.settings.n_pixels, 600)
        return OrderCheck(frames, n_pixels, self.settings.tolerance).of_colors()


def _other_readings(
    samples: list[Samples], pairs: list[tuple[int, int]], tolerance: float
) -> tuple[dict[str, float], str]:
    """Agreement of the best other readings, and the name of one that halves the disagreement, if one does."""
    few = [replace(one, pixel=one.pixel[:: max(len(one.pixel) // 300, 1)]) for one in samples]
    pairs = pairs[:: max(len(pairs) // 40, 1)]
    share = agreement(few, pairs, Reading("")).share(tolerance)
    scores: dict[str, float] = {}
    if share > 1.0 - CLEARLY_BETTER:
        return scores, ""  # no reading can be clearly better
    for reading in readings(samples[0].intrinsics, samples[0].depth.shape):
        # Errors shrink with a scale below one: the tolerance has to shrink with it.
        scaled = tolerance * min(max(reading.depth_factor, 0.02), 1.0)
        scores[reading.name] = round(agreement(few, pairs, reading).share(scaled), 3)
    best = sorted(scores.items(), key=lambda item: -item[1])[:5]
    clearly = best[0][1] > share + CLEARLY_BETTER and 1.0 - best[0][1] < HALVED * (1.0 - share)
    return dict(best), best[0][0] if clearly else ""


def _chosen(frames: tuple[Frame, ...], most: int) -> list[Frame]:
    return [frames[index] for index in spread_frames(len(frames), most)]


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
