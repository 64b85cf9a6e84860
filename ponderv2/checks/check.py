"""Are poses, depth, cameras, colour and points of a scene consistent? Frames are compared with each other.

When they are not, hypotheses about the same files are tried (inverse poses, mirrored axes, other scales and
focal lengths), then images of other frames, then motions of the points that the cameras did not make; the one
under which all agrees names the likely cause. What moves all frames alike leaves the depth of the frames in
agreement: colour is compared with depth of its own. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.checks.cloud import CloudMap, hypothesis_of_cloud, motion_of_cloud, visible_points
from ponderv2.checks.config import CheckConfig
from ponderv2.checks.diagnosis import (
    Diagnosis,
    describe_motion,
    diagnose,
    diagnose_together,
    known_factors,
    scale_hypothesis,
)
from ponderv2.checks.drive import LidarFinding, check_key_frame, is_drive
from ponderv2.checks.frame_order import OrderCheck, sample_frame
from ponderv2.checks.hypotheses import hypotheses
from ponderv2.checks.registration import Registration, check_registration
from ponderv2.errors import SceneError
from ponderv2.geometry.pose_candidates import spread_frames
from ponderv2.geometry.reprojection import AS_STORED, FEWEST, SampledFrame, agreement, frame_pairs
from ponderv2.scenes.scene import Frame, Scene

MIN_CLOUD_SHARE = 0.3
"""Share of depth pixels near a point of the cloud, below which the cloud cannot be that of the frames."""
GOOD_CLOUD_SHARE = 0.8
"""The share from which on nobody asks whether points and cameras were moved apart."""
FEW_SEEN_AGAIN = 0.3
"""Part of the pixels seen again, below which frames look at different things and the points decide."""
CONVINCING = 0.85
"""Closeness under another hypothesis from which on no further explanation is looked for."""
CONVINCING_FROM_NOTHING = 0.6
"""The same where frames hardly see each other as they are, so that the points seem to decide."""
IN_ORDER = 0.97
"""Closeness from which on no other order of the frames can be clearly better."""
CONTRAST_IN_PLACE = 0.85
"""Correlation of local contrast from which on nobody asks whether colours are those of other frames."""
FAR_OUT_OF_ORDER = 0.6
"""Closeness below which other orders than shifts by few frames are tried. Sound recordings reach 0.66 or
more."""
UNRELATED_CONTRAST = 0.3
"""The same of local contrast; sound recordings reach 0.5 or more."""
PAIRS, PIXELS = 60, 400
"""That colour is compared in."""
UNEXPLAINED = (
    "depth maps are inconsistent across frames, and no known cause (pose convention, depth scale, "
    "intrinsics) explains it: inaccurate poses, motion, noise"
)


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
    """Agreement under the best five hypotheses; empty where frames agree so well that none was tried."""
    mirrored: bool = False
    """Cameras of determinant -1: the scene is a mirror image of the place, which does no harm by itself."""
    contrast_correlation: float | None = None
    """Of the local contrast of reprojected pixels: how sharply colour is registered to depth."""
    edge_rank: float | None = None
    """Mean rank of the image gradient at depth edges, 0..1; 0.5 = no relation."""
    notes: tuple[str, ...] = ()
    """What is not wrong enough to be suspect, and what could not be checked for want of evidence."""
    lidar: LidarFinding | None = None
    """Of a key frame of a drive."""


def check_scene(
    scene: Scene,
    settings: CheckConfig = CheckConfig(),
    recording_to_scene: Float64[ndarray, "4 4"] | None = None,
) -> CheckResult:
    """Compare frames with each other and with the cloud; name the likely cause where they disagree.

    `recording_to_scene`: what was done to the world when the recording was prepared. Readings of the poses
    (such as their inverse) concern those of the recording.
    """
    frames = _chosen(scene.frames, settings.max_frames)
    samples = [sample_frame(frame, settings.n_pixels, recording_to_scene) for frame in frames]
    samples = [one for one in samples if len(one.pixel) >= FEWEST]
    if not samples and is_drive(scene):
        found = check_key_frame(scene)
        unknown = _unchecked(0, found.cause)
        return replace(unknown, suspect=bool(found.cause), notes=found.notes, lidar=found)
    if not samples:
        return _unchecked(0, "no frames with depth: nothing to compare")
    return _Check(scene, settings, samples).result()


def cause_without_points(samples: list[SampledFrame]) -> str:
    """The hypothesis under which frames agree that do not as they are, of a recording that gave no points."""
    if len(samples) < 2:
        return ""
    pairs = frame_pairs(len(samples))
    found = diagnose(samples, pairs)
    return found.cause or diagnose_together(samples, pairs).cause


class _Check:
    """One scene under examination. What costs is done when it is asked for."""

    def __init__(self, scene: Scene, settings: CheckConfig, samples: list[SampledFrame]) -> None:
        self.scene, self.settings, self.samples = scene, settings, samples
        self.pairs = frame_pairs(len(samples))
        self.base = agreement(samples, self.pairs)
        self.frames = tuple(frame for frame in scene.frames if frame.has_depth)
        points = scene.cloud.coord.numpy()
        self.cloud = CloudMap(points, settings.tolerance) if len(points) else None
        error = None if self.cloud is None else self.cloud.distance(visible_points(samples, AS_STORED))
        self.cloud_error = None if error is None else float(np.median(error))
        self.cloud_share = 0.0 if error is None else float((error < settings.tolerance).mean())
        self.diagnosis = diagnose(samples, self.pairs) if self.pairs else None
        self.registration: Registration | None = None
        self.notes: list[str] = []

    def result(self) -> CheckResult:
        """Figures and cause."""
        cause = self._cause()
        share = self._share() if self.pairs else None
        known = bool(len(self.base.error))
        correlation = self.base.correlation(self.settings.tolerance)
        description = cause
        if not self.pairs and not cause:
            description = "fewer than two frames with depth: nothing to compare but frame and points"
        placed = self.registration
        return CheckResult(
            n_frames=len(self.samples),
            n_pairs=len(self.pairs),
            median_error=_rounded(np.median(np.abs(self.base.error)) if known else None),
            inlier_share=_rounded(share),
            cloud_median_error=_rounded(self.cloud_error),
            cloud_inlier_share=None if self.cloud is None else _rounded(self.cloud_share),
            color_correlation=_rounded(correlation),
            suspect=bool(cause),
            likely_cause=description,
            alternatives=self.diagnosis.scores if self.diagnosis is not None and cause else {},
            mirrored=any(np.linalg.det(one.camera_to_world[:3, :3]) < 0 for one in self.samples),
            contrast_correlation=None if placed is None else placed.contrast,
            edge_rank=None if placed is None else placed.edges,
            notes=tuple(self.notes),
        )

    def _share(self) -> float | None:
        """Agreement of the frames; of what is seen again alone, where the points vouch for the poses."""
        if self._points_decide() and self.cloud_share >= self.settings.min_inliers:
            return self.base.share_of_seen(self.settings.tolerance)
        return self.base.share(self.settings.tolerance)

    def _points_decide(self) -> bool:
        return self.cloud is not None and self.base.overlap < FEW_SEEN_AGAIN

    def _cause(self) -> str:
        """What is wrong; empty when nothing is."""
        found = self.diagnosis
        if found is None:
            return self._cause_by_points() or self._cause_by_color()
        if self._points_decide():
            if found.cause and found.best > CONVINCING_FROM_NOTHING:
                return found.cause
            cause = self._cause_by_points()
            if cause is not None:
                return cause or self._cause_by_color()
        return self._cause_by_frames(found)

    def _cause_by_points(self) -> str | None:
        """Of frames that see different things; None where the points cannot tell."""
        if self.cloud is None:
            return ""
        seen = self.base.share_of_seen(self.settings.tolerance)
        agree = seen is None or seen >= self.settings.min_inliers
        if agree and self.cloud_share >= self.settings.min_inliers:
            return ""
        first = self.samples[0]
        others = hypotheses(first.intrinsics, (first.depth.shape[1], first.depth.shape[0]))
        others += [scale_hypothesis(factor, self.samples) for factor in known_factors()]
        cause, best = hypothesis_of_cloud(self.samples, self.cloud, others, self.cloud_share)
        if cause and best > CONVINCING:
            return cause
        moved, share = motion_of_cloud(self.samples, self.cloud, self.cloud_share)
        if moved and share > best:
            return moved
        if cause or self.pairs:
            return cause or None
        return self._by_share_of_cloud()

    def _cause_by_frames(self, found: Diagnosis) -> str:
        if found.cause and found.best > CONVINCING:
            return found.cause
        settings = self.settings
        share = self.base.share(settings.tolerance)
        if found.closeness < IN_ORDER:
            n_pixels = min(settings.n_pixels, 300)
            near = max(found.closeness, found.best) > FAR_OUT_OF_ORDER and share > settings.min_inliers
            order, closeness = OrderCheck(self.frames, n_pixels, settings.tolerance).of_poses(near)
            if order and closeness > (found.best if found.cause else 0.0):
                return order
        if found.cause:
            return found.cause
        if share < settings.min_inliers:
            together = diagnose_together(self.samples, self.pairs).cause
            return together or "; ".join(one for one in (UNEXPLAINED, describe_motion(self.samples)) if one)
        if not found.moves:
            self.notes.append(
                "the camera hardly moves: not enough evidence on poses, depth scale and intrinsics"
            )
        if self.cloud is not None and self.cloud_share < GOOD_CLOUD_SHARE:
            moved, _ = motion_of_cloud(self.samples, self.cloud, self.cloud_share)
            if moved or self.cloud_share < MIN_CLOUD_SHARE:
                return moved or self._by_share_of_cloud()
        return self._cause_by_color()

    def _by_share_of_cloud(self) -> str:
        if self.cloud_share < MIN_CLOUD_SHARE:
            return (
                "the points do not lie where the frames see surfaces: they are in another frame or too sparse"
            )
        return ""

    def _cause_by_color(self) -> str:
        """Depth and poses agree; do the colours lie on depth, and are they those of the same frames?"""
        settings = self.settings
        pairs = self.pairs[:: max(len(self.pairs) // PAIRS, 1)]
        few = [replace(one, pixel=one.pixel[:: max(len(one.pixel) // PIXELS, 1)]) for one in self.samples]
        seen = agreement(few, pairs).only_agreeing(settings.tolerance)
        found = check_registration(few, seen, pairs)
        self.registration = found
        if found.unknown:
            self.notes.append(f"colour against depth: not enough evidence ({found.unknown})")
            return ""
        if found.contrast is not None and found.contrast < CONTRAST_IN_PLACE:
            n_pixels = min(settings.n_pixels, 300)
            near = max(found.contrast, found.best) > UNRELATED_CONTRAST
            order, best = OrderCheck(self.frames, n_pixels, settings.tolerance).of_colors(near)
            if order and best > found.best:
                return order
        if found.cause and found.strong:
            return f"{found.cause} (by {found.offset:.0%} of the width on average)"
        if found.cause:
            self.notes.append(
                f"{found.cause} (by {found.offset:.1%} of the width on average): "
                "see --color-intrinsics and --depth-to-color"
            )
        return ""


def _chosen(frames: tuple[Frame, ...], most: int) -> list[Frame]:
    """Frames with a depth image, a few steps apart."""
    measured = [frame for frame in frames if frame.has_depth]
    return [measured[index] for index in spread_frames(len(measured), most)]


def _rounded(value: float | np.floating | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _unchecked(n_frames: int, reason: str) -> CheckResult:
    return CheckResult(n_frames, 0, None, None, None, None, None, False, reason, {})


def check_or_reason(
    scene: Scene, settings: CheckConfig, recording_to_scene: Float64[ndarray, "4 4"] | None = None
) -> CheckResult:
    """Like check_scene; a scene whose images cannot be read is suspect, with the reason."""
    try:
        return check_scene(scene, settings, recording_to_scene)
    except SceneError as error:
        return CheckResult(0, 0, None, None, None, None, None, True, error.message, {})
