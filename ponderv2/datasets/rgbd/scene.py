"""A recording becomes a scene: frames are chosen, cleaned, turned upright and registered as they pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.datasets.camera_text import read_intrinsics, read_matrix
from ponderv2.datasets.recordings import (
    Limits,
    RawFrame,
    Recording,
    Registered,
    load_depth,
    register,
    same_aspect,
)
from ponderv2.datasets.rgbd.camera_conventions import with_rows_downwards, with_size_of_images
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.depth_units import with_depth_numbers
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
"""Frames that are looked at to find out which way is up."""
CHECK_DEPTH = "check the depth images, --depth-scale, --depth-min and --depth-max"
MOST_HIDDEN = 0.8
"""Share of hidden pixels from which on masks are perhaps the other way round."""
GUESSED_WARNING = 0.1
"""Share of guessed colours that is worth a sentence."""


@dataclass
class _Findings:
    """What is learnt while frames pass by; the only thing here that changes."""

    notes: list[str] = field(default_factory=list)
    unit_doubt: str = ""
    """Why the unit of depth looks wrong; empty where it does not."""
    repairs: list[str] = field(default_factory=list)
    unreadable: list[SceneError] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Ids of frames of which alpha or a mask hides everything."""
    hidden_share: list[float] = field(default_factory=list)
    """Of the pixels of each frame in which alpha or a mask hides some."""
    pixel_notes: Counter[str] = field(default_factory=Counter)
    """How the pixels of colour images were understood, with the number of images."""
    n_without_color: int = 0
    n_dropped: int = 0
    n_pixels: int = 0
    guessed: list[float] = field(default_factory=list)
    n_frames: int = 0
    n_held_out: int = 0


def read_recording(recording: Recording, path: Path, config: RgbdConfig) -> SceneStream:
    """Frames as a generator, and the recording's own points, or what is to be known to make some.

    Raises SceneError when no frame is usable.
    """
    if not recording.frames:
        reasons = "; ".join((*recording.notes, *recording.repairs))
        raise SceneError(
            f"no frame in {path} has all its images and a pose: {reasons}",
            fix="check the numbers or times of images and poses",
        )
    found = _Findings(notes=[f"layout {recording.layout}", *recording.notes], repairs=list(recording.repairs))
    recording, flipped = with_rows_downwards(_with_own_files(recording, config, found))
    recording, sized = with_size_of_images(recording)
    found.notes += (*flipped, *sized)
    recording = _with_valid_poses(recording, path, found)
    recording = replace(recording, frames=choose_frames(recording.frames, config.stride, config.max_frames))
    recording, chosen = with_depth_numbers(recording, config.depth_max, config.depth_scale)
    found.notes += chosen.notes
    found.unit_doubt = chosen.doubt
    limits = Limits(config.depth_min, config.depth_max, config.max_image_size)
    recording, origin = _near_zero(recording, found)
    turn = _turn(recording, limits, config.up, found)
    own_cloud = recording.cloud if config.cloud == "auto" else None
    frames = _frames(recording, limits, turn, config.holdout, found)
    to_scene = turn.copy()
    to_scene[:3, 3] -= turn[:3, :3] @ origin
    x, y, z = (-to_scene[:3, 3] + 0.0).tolist()  # no negative zeros

    def finish() -> PreparedScene:
        made = _scene(path, own_cloud, to_scene, found)
        return replace(made, origin=(x, y, z), recording_to_scene=to_scene)

    return SceneStream(frames, finish, None if own_cloud else _needed(recording, path, config, found))


def _needed(recording: Recording, path: Path, config: RgbdConfig, found: _Findings) -> NeededSurface:
    wanted = config.fusion
    settings = FusionSettings(wanted.voxel_size, wanted.truncation, wanted.depth_max, wanted.min_weight)
    has_color = tuple(frame.color is not None for frame in recording.frames)
    return NeededSurface(settings, has_color, str(path), found.unit_doubt)


def _near_zero(recording: Recording, found: _Findings) -> tuple[Recording, Float64[ndarray, "3"]]:
    """The recording moved by an origin where its cameras are far from zero, and that origin.

    A camera that is far from all others is a damaged pose, and its frame is dropped.
    """
    places = np.stack([frame.camera_to_world[:3, 3] for frame in recording.frames])
    far = far_outliers(places)
    if far.any():
        first = recording.frames[int(np.flatnonzero(far)[0])].id
        found.repairs.append(
            f"{int(far.sum())} frames far from all others were dropped, the first is {first}"
        )
    origin = origin_of(places)
    if origin.any():
        found.notes.append(origin_note(origin))
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


def _with_own_files(recording: Recording, config: RgbdConfig, found: _Findings) -> Recording:
    """Cameras and scale that the user gave."""
    frames = recording.frames
    if config.intrinsics is not None:
        intrinsics = read_intrinsics(config.intrinsics)
        same = all(frame.color_intrinsics is frame.depth_intrinsics for frame in frames) and not _two_cameras(
            frames
        )
        frames = tuple(
            replace(
                one,
                depth_intrinsics=intrinsics,
                color_intrinsics=intrinsics if same else one.color_intrinsics,
            )
            for one in frames
        )
        found.notes.append(f"depth camera from {config.intrinsics.name}")
    if config.color_intrinsics is not None:
        intrinsics = read_intrinsics(config.color_intrinsics)
        frames = tuple(replace(one, color_intrinsics=intrinsics) for one in frames)
        found.notes.append(f"colour camera from {config.color_intrinsics.name}")
    recording = replace(recording, frames=frames)
    if config.depth_to_color is not None:
        matrix = read_matrix(config.depth_to_color, (4, 4))
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise SceneError(f"{config.depth_to_color} is not an invertible matrix of finite numbers")
        recording = replace(recording, depth_to_color=matrix)
        found.notes.append(f"depth-to-colour from {config.depth_to_color.name}")
    return recording


def _two_cameras(frames: tuple[RawFrame, ...]) -> bool:
    """Whether the one camera that is known cannot be that of the depth images, but is that of the colours."""
    known, size = frames[0].color_intrinsics.size, _depth_size(frames)
    return known is not None and size is not None and not same_aspect(size, known)


def _depth_size(frames: tuple[RawFrame, ...]) -> tuple[int, int] | None:
    """Width and height of the first depth image that can be read."""
    for frame in frames[:N_SURVEYED]:
        try:
            depth = frame.depth.depth()
        except SceneError:
            continue
        return depth.shape[1], depth.shape[0]
    return None


def _with_valid_poses(recording: Recording, path: Path, found: _Findings) -> Recording:
    clean = clean_poses(np.stack([frame.camera_to_world for frame in recording.frames]), similarities=True)
    for reason, count in Counter(one for one in clean.reasons if one).items():
        first = recording.frames[clean.reasons.index(reason)].id
        found.repairs.append(
            f"{count} frames with an invalid pose ({reason}) were dropped, the first is {first}"
        )
    if clean.factor != 1.0:
        found.notes.append(
            f"poses were similarities: a factor of {clean.factor:.4g} was divided out of their rotations, the"
            " translations were taken as they are"
        )
    if clean.n_rounded:
        found.notes.append(f"{clean.n_rounded} rotations, rounded in the file, were made orthonormal")
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
    return replace(recording, frames=frames)


def _turn(recording: Recording, limits: Limits, up: str, found: _Findings) -> Float[ndarray, "4 4"]:
    """The rotation of the recording's frame into one with z up."""
    if up != "auto":
        found.notes.append(f"up: the {up} axis of the recording, as given")
        return turn_up(np.array(AXES[up]))
    if recording.z_is_up:
        found.notes.append("up: z, known from the layout")
        return np.eye(4)
    estimate = _estimated_up(recording, limits)
    if estimate is None:
        found.notes.append("up: not clear, the recording's own axes are kept; see --up")
        return np.eye(4)
    vector, share = estimate
    angle = np.rad2deg(np.arccos(np.clip(vector[2], -1, 1)))
    direction = ", ".join(f"{one:.3f}" for one in vector)
    found.notes.append(
        f"up: ({direction}) of the recording, from {share:.0%} of the surface; turned {angle:.1f} degrees"
    )
    return turn_up(vector)


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
    recording: Recording, limits: Limits, turn: Float[ndarray, "4 4"], holdout: int, found: _Findings
) -> Iterator[DecodedFrame]:
    for raw in recording.frames:
        try:
            registered = register(raw, recording, limits)
        except SceneError as error:
            found.unreadable.append(SceneError(f"{raw.id}: {error.message}", error.fix))
            continue
        frame = registered.frame
        if not registered.depth.any():
            hidden = frame.visible is not None and not frame.visible.any()
            (found.hidden if hidden else found.empty).append(raw.id)
            continue
        held_out = holdout > 0 and found.n_frames % holdout == holdout - 1
        _note_frame(found, registered, held_out)
        yield replace(frame, camera_to_world=turn @ raw.camera_to_world, held_out=held_out)


def _note_frame(found: _Findings, registered: Registered, held_out: bool) -> None:
    frame = registered.frame
    found.n_frames += 1
    found.n_held_out += held_out
    found.n_dropped += registered.n_dropped
    found.n_pixels += int(np.count_nonzero(registered.depth)) + registered.n_dropped
    found.n_without_color += frame.color is None
    found.guessed.append(registered.guessed)
    found.pixel_notes.update(registered.notes)
    if frame.visible is not None:
        found.hidden_share.append(1.0 - float(frame.visible.mean()))


def _scene(
    path: Path, own_cloud: Path | None, to_scene: Float[ndarray, "4 4"], found: _Findings
) -> PreparedScene:
    if found.n_frames == 0:
        raise _nothing_usable(path, found)
    notes, repairs = _summary(found)
    if own_cloud is not None:
        cloud, mesh, cloud_notes = own_surface(own_cloud, to_scene)
        notes += cloud_notes
        if found.n_held_out:
            notes.append("the recording's own points may have been made from held-out frames too")
        notes.append(f"points from {own_cloud.name}")
        return PreparedScene(cloud, mesh, tuple(notes), tuple(repairs))
    return PreparedScene(PreparedCloud.empty(), None, tuple(notes), tuple(repairs))


def _summary(found: _Findings) -> tuple[list[str], list[str]]:
    notes, repairs = list(found.notes), list(found.repairs)
    notes.append(f"{found.n_frames} frames, {found.n_held_out} of them held out")
    if found.n_without_color:
        everything = found.n_without_color == found.n_frames
        rest = "the points have no colour" if everything else "points take their colour of the others"
        notes.append(f"{found.n_without_color} of {found.n_frames} frames have depth alone: {rest}")
    notes += [f"{count} colour images: {note}" for note, count in found.pixel_notes.items()]
    if found.hidden_share:
        notes.append(_what_masks_hide(found))
    if found.n_dropped:
        notes.append(
            f"{found.n_dropped / max(found.n_pixels, 1):.1%} of the depths were outside of the limits"
        )
    if found.guessed and np.mean(found.guessed) > 0:
        share = float(np.mean(found.guessed))
        strong = "; is the calibration right?" if share > GUESSED_WARNING else ""
        notes.append(
            f"colour warped into the depth camera, {share:.1%} of the pixels were hidden from it{strong}"
        )
    if found.unreadable:
        first = found.unreadable[0].message
        repairs.append(f"{len(found.unreadable)} unreadable frames were dropped ({first})")
    if found.hidden:
        repairs.append(
            f"{len(found.hidden)} frames that alpha or a mask hides as a whole were dropped, the first is "
            f"{found.hidden[0]}"
        )
    if found.empty:
        repairs.append(f"{len(found.empty)} frames without depth were dropped, the first is {found.empty[0]}")
    return notes, repairs


def _what_masks_hide(found: _Findings) -> str:
    share = float(np.mean(found.hidden_share))
    most = ": black should hide; are the masks the other way round?" if share > MOST_HIDDEN else ""
    return (
        f"alpha or masks hide {share:.1%} of the pixels in {len(found.hidden_share)} frames, which have "
        f"neither colour nor depth there{most}"
    )


def _nothing_usable(path: Path, found: _Findings) -> SceneError:
    if found.unreadable:
        first = found.unreadable[0]
        return SceneError(
            f"no usable frames in {path}: {first.message}", fix=first.fix or "check the files of the images"
        )
    if found.hidden:
        return SceneError(
            f"no usable frames in {path}: alpha or masks hide everything ({found.hidden[0]})",
            fix="remove the alpha channel or the masks; black hides, and so does an alpha below one half",
        )
    return SceneError(
        f"no usable frames in {path}: no depth within the limits{_doubt(found)}", fix=CHECK_DEPTH
    )


def _doubt(found: _Findings) -> str:
    return f"; {found.unit_doubt}" if found.unit_doubt else ""
