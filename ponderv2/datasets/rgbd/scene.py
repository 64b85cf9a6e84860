"""A recording becomes a scene: frames are chosen, cleaned, rotated upright and registered while streaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.datasets.recordings import (
    Limits,
    RawFrame,
    Recording,
    Registered,
    load_depth,
    register,
)
from ponderv2.datasets.rgbd.camera_conventions import (
    with_given_cameras,
    with_rows_downwards,
    with_size_of_images,
)
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.depth_units import with_unified_depth_unit
from ponderv2.datasets.rgbd.surface import own_surface
from ponderv2.errors import SceneError
from ponderv2.geometry.gravity import AXES, estimate_up, normals_of_depth, turn_up
from ponderv2.geometry.poses import clean_poses
from ponderv2.scenes.origin import far_outliers, near_pose, origin_note, origin_of
from ponderv2.scenes.prepared import (
    DecodedFrame,
    FusionSettings,
    NeededSurface,
    PreparedCloud,
    PreparedScene,
    SceneStream,
)

N_SURVEYED = 16
"""Number of frames from which the up direction is estimated."""
CHECK_DEPTH = "check the depth images, --depth-scale, --depth-min and --depth-max"
MOST_HIDDEN = 0.8
"""Share of hidden pixels above which masks are perhaps inverted."""
GUESSED_WARNING = 0.1
"""Share of guessed colours above which it is reported."""


@dataclass
class _FrameReport:
    """What is gathered while frames are streamed; the only mutable state here."""

    unreadable: list[SceneError] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Ids of frames in which alpha or a mask hides everything."""
    hidden_share: list[float] = field(default_factory=list)
    """Share of hidden pixels of each frame in which alpha or a mask hides some."""
    pixel_notes: Counter[str] = field(default_factory=Counter)
    """How the pixels of colour images were interpreted, with the number of images."""
    n_without_color: int = 0
    n_dropped: int = 0
    n_pixels: int = 0
    guessed: list[float] = field(default_factory=list)
    n_frames: int = 0
    n_held_out: int = 0


def read_recording(recording: Recording, path: Path, config: RgbdConfig) -> SceneStream:
    """Frames as a generator, and the recording's own points, or what is needed to create them.

    Raises SceneError when no frame is usable.
    """
    if not recording.frames:
        reasons = "; ".join((*recording.notes, *recording.repairs))
        raise SceneError(
            f"no frame in {path} has all its images and a pose: {reasons}",
            fix="check the numbers or times of images and poses",
        )
    recording = replace(recording, notes=(f"layout {recording.layout}", *recording.notes))
    recording = with_rows_downwards(with_given_cameras(recording, config))
    recording = _with_valid_poses(with_size_of_images(recording), path)
    recording = replace(recording, frames=choose_frames(recording.frames, config.stride, config.max_frames))
    recording = with_unified_depth_unit(recording, config.depth_max, config.depth_scale)
    limits = Limits(config.depth_min, config.depth_max, config.max_image_size)
    recording, origin = _near_zero(recording)
    recording, turn = _upright(recording, limits, config.up_axis)
    own_cloud = recording.cloud if config.cloud == "auto" else None
    report = _FrameReport()
    frames = _frames(recording, limits, turn, config.holdout, report)
    to_scene = turn.copy()
    to_scene[:3, 3] -= turn[:3, :3] @ origin
    x, y, z = (-to_scene[:3, 3] + 0.0).tolist()  # no negative zeros

    def finish() -> PreparedScene:
        if report.n_frames == 0:
            raise _nothing_usable(path, recording, report)
        cloud, mesh, notes = PreparedCloud.empty(), None, [*recording.notes, *_notes(report)]
        if own_cloud is not None:
            cloud, mesh, cloud_notes = own_surface(own_cloud, to_scene)
            notes += cloud_notes
            if report.n_held_out:
                notes.append("the recording's own points may have been made from held-out frames too")
            notes.append(f"points from {own_cloud.name}")
        repairs = (*recording.repairs, *_repairs(report))
        return PreparedScene(cloud, mesh, tuple(notes), repairs, (x, y, z), to_scene)

    return SceneStream(
        frames, finish, _needed_surface(recording, path, config) if own_cloud is None else None
    )


def _needed_surface(recording: Recording, path: Path, config: RgbdConfig) -> NeededSurface:
    wanted = config.fusion
    settings = FusionSettings(wanted.voxel_size, wanted.truncation, wanted.depth_max, wanted.min_weight)
    has_color = tuple(frame.color is not None for frame in recording.frames)
    return NeededSurface(settings, has_color, str(path), recording.unit_doubt)


def _near_zero(recording: Recording) -> tuple[Recording, Float64[ndarray, "3"]]:
    """The recording moved by an origin where its cameras are far from zero, and that origin.

    A camera that is far from all others is a damaged pose, and its frame is dropped.
    """
    places = np.stack([frame.camera_to_world[:3, 3] for frame in recording.frames])
    far = far_outliers(places)
    if far.any():
        first = recording.frames[int(np.flatnonzero(far)[0])].id
        dropped = f"{int(far.sum())} frames far from all others were dropped, the first is {first}"
        recording = recording.noted(repairs=(dropped,))
    origin = origin_of(places)
    if origin.any():
        recording = recording.noted(origin_note(origin))
    frames = tuple(
        replace(frame, camera_to_world=near_pose(frame.camera_to_world, origin))
        for frame, is_far in zip(recording.frames, far, strict=True)
        if not is_far
    )
    return replace(recording, frames=frames), origin


def choose_frames(frames: tuple[RawFrame, ...], stride: int, most: int | None) -> tuple[RawFrame, ...]:
    """Every stride-th frame, at most `most`, evenly spread."""
    chosen = frames[::stride]
    if most is not None and len(chosen) > most:
        keep = np.linspace(0, len(chosen) - 1, most).round().astype(int)
        chosen = tuple(chosen[index] for index in keep)
    return chosen


def _with_valid_poses(recording: Recording, path: Path) -> Recording:
    """The recording without frames whose pose is invalid; rotations are made orthonormal."""
    clean = clean_poses(np.stack([frame.camera_to_world for frame in recording.frames]), similarities=True)
    notes, repairs = [], []
    for reason, count in Counter(one for one in clean.reasons if one).items():
        first = recording.frames[clean.reasons.index(reason)].id
        repairs.append(f"{count} frames with an invalid pose ({reason}) were dropped, the first is {first}")
    if clean.factor != 1.0:
        notes.append(
            f"poses were similarities: a factor of {clean.factor:.4g} was divided out of their rotations, the"
            " translations were taken as they are"
        )
    if clean.n_rounded:
        notes.append(f"{clean.n_rounded} rotations, rounded in the file, were made orthonormal")
    if not clean.valid.any():
        reasons = ", ".join(sorted(set(clean.reasons)))
        raise SceneError(
            f"no frame in {path} has a valid pose ({reasons})", fix="check the files of the poses"
        )
    frames = tuple(
        replace(frame, camera_to_world=pose)
        for frame, pose, valid in zip(recording.frames, clean.camera_to_world, clean.valid, strict=True)
        if valid
    )
    return replace(recording, frames=frames).noted(*notes, repairs=tuple(repairs))


def _upright(recording: Recording, limits: Limits, up: str) -> tuple[Recording, Float[ndarray, "4 4"]]:
    """The rotation of the recording's frame into one with z up, and the recording with a note on it."""
    if up != "auto":
        return recording.noted(f"up: the {up} axis of the recording, as given"), turn_up(np.array(AXES[up]))
    if recording.z_is_up:
        return recording.noted("up: z, known from the layout"), np.eye(4)
    estimate = _estimated_up(recording, limits)
    if estimate is None:
        return recording.noted("up: not clear, the recording's own axes are kept; see --up-axis"), np.eye(4)
    vector, share = estimate
    angle = np.rad2deg(np.arccos(np.clip(vector[2], -1, 1)))
    direction = ", ".join(f"{one:.3f}" for one in vector)
    note = f"up: ({direction}) of the recording, from {share:.0%} of the surface; turned {angle:.1f} degrees"
    return recording.noted(note), turn_up(vector)


def _estimated_up(recording: Recording, limits: Limits) -> tuple[Float[ndarray, "3"], float] | None:
    surveyed = choose_frames(recording.frames, 1, N_SURVEYED)
    normals = [np.zeros((0, 3))]
    for raw in surveyed:
        try:
            depth, _, intrinsics = load_depth(raw, recording, limits)
        except SceneError:
            continue
        step = max(max(depth.shape) // 64, 2)
        seen = normals_of_depth(depth * recording.depth_scale, intrinsics, step)
        normals.append(seen @ raw.camera_to_world[:3, :3].T)
    poses = np.stack([raw.camera_to_world for raw in surveyed])
    return estimate_up(np.concatenate(normals), poses)


def _frames(
    recording: Recording, limits: Limits, turn: Float[ndarray, "4 4"], holdout: int, report: _FrameReport
) -> Iterator[DecodedFrame]:
    for raw in recording.frames:
        try:
            registered = register(raw, recording, limits)
        except SceneError as error:
            report.unreadable.append(SceneError(f"{raw.id}: {error.message}", error.fix))
            continue
        frame = registered.frame
        if not registered.depth.any():
            hidden = frame.visible is not None and not frame.visible.any()
            (report.hidden if hidden else report.empty).append(raw.id)
            continue
        held_out = holdout > 0 and report.n_frames % holdout == holdout - 1
        _count(report, registered, held_out)
        yield replace(frame, camera_to_world=turn @ raw.camera_to_world, held_out=held_out)


def _count(report: _FrameReport, registered: Registered, held_out: bool) -> None:
    frame = registered.frame
    report.n_frames += 1
    report.n_held_out += held_out
    report.n_dropped += registered.n_dropped
    report.n_pixels += int(np.count_nonzero(registered.depth)) + registered.n_dropped
    report.n_without_color += frame.color is None
    report.guessed.append(registered.guessed)
    report.pixel_notes.update(registered.notes)
    if frame.visible is not None:
        report.hidden_share.append(1.0 - float(frame.visible.mean()))


def _notes(report: _FrameReport) -> list[str]:
    notes = [f"{report.n_frames} frames, {report.n_held_out} of them held out"]
    if report.n_without_color:
        everything = report.n_without_color == report.n_frames
        rest = "the points have no colour" if everything else "points take their colour from the others"
        notes.append(f"{report.n_without_color} of {report.n_frames} frames have depth alone: {rest}")
    notes += [f"{count} colour images: {note}" for note, count in report.pixel_notes.items()]
    if report.hidden_share:
        share = float(np.mean(report.hidden_share))
        most = ": black should hide; are the masks inverted?" if share > MOST_HIDDEN else ""
        notes.append(
            f"alpha or masks hide {share:.1%} of the pixels in {len(report.hidden_share)} frames, which have "
            f"neither colour nor depth there{most}"
        )
    if report.n_dropped:
        share = report.n_dropped / max(report.n_pixels, 1)
        notes.append(f"{share:.1%} of the depths were outside of the limits")
    if report.guessed and np.mean(report.guessed) > 0:
        share = float(np.mean(report.guessed))
        strong = "; is the calibration right?" if share > GUESSED_WARNING else ""
        notes.append(
            f"colour warped into the depth camera, {share:.1%} of the pixels were hidden from it{strong}"
        )
    return notes


def _repairs(report: _FrameReport) -> list[str]:
    unreadable, hidden, empty = report.unreadable, report.hidden, report.empty
    repairs = []
    if unreadable:
        repairs.append(f"{len(unreadable)} unreadable frames were dropped ({unreadable[0].message})")
    if hidden:
        whole = "frames that alpha or a mask hides as a whole were dropped"
        repairs.append(f"{len(hidden)} {whole}, the first is {hidden[0]}")
    if empty:
        repairs.append(f"{len(empty)} frames without depth were dropped, the first is {empty[0]}")
    return repairs


def _nothing_usable(path: Path, recording: Recording, report: _FrameReport) -> SceneError:
    if report.unreadable:
        first = report.unreadable[0]
        return SceneError(
            f"no usable frames in {path}: {first.message}", fix=first.fix or "check the files of the images"
        )
    if report.hidden:
        return SceneError(
            f"no usable frames in {path}: alpha or masks hide everything ({report.hidden[0]})",
            fix="remove the alpha channel or the masks; black hides, and so does an alpha below one half",
        )
    doubt = f"; {recording.unit_doubt}" if recording.unit_doubt else ""
    return SceneError(f"no usable frames in {path}: no depth within the limits{doubt}", fix=CHECK_DEPTH)
