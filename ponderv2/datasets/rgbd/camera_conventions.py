"""Which cameras a recording has: those that are given, sizes of images they belong to, which way y points."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ponderv2.datasets.camera_text import read_intrinsics, read_matrix
from ponderv2.datasets.recordings import RawFrame, Recording, same_aspect
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics

CENTRED = 0.12
"""Largest distance of the principal point from the image centre, as a fraction of width and height."""
ENLARGED = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5, 8.0)
"""Usual factors between images that a camera was calibrated with, and those that were stored."""
N_SAMPLED = 5
"""Number of images that tell the size of a camera without one."""
ALIKE = 0.06
"""Relative difference up to which the principal point says the same factor in x and in y."""


MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""y -> -y, of cameras and of the world alike."""
N_TRIED = 16
"""Number of depth images tried to find their size."""


def with_given_cameras(recording: Recording, config: RgbdConfig) -> Recording:
    """The recording with the cameras that the settings name."""
    frames, notes = recording.frames, []
    if config.intrinsics is not None:
        depth = read_intrinsics(config.intrinsics)
        same = all(one.color_intrinsics is one.depth_intrinsics for one in frames)
        if same and not _is_of_color(frames):
            frames = tuple(replace(one, color_intrinsics=depth) for one in frames)
        frames = tuple(replace(one, depth_intrinsics=depth) for one in frames)
        notes.append(f"depth camera from {config.intrinsics.name}")
    if config.color_intrinsics is not None:
        color = read_intrinsics(config.color_intrinsics)
        frames = tuple(replace(one, color_intrinsics=color) for one in frames)
        notes.append(f"colour camera from {config.color_intrinsics.name}")
    matrix = recording.depth_to_color
    if config.depth_to_color is not None:
        matrix = read_matrix(config.depth_to_color, (4, 4))
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise SceneError(f"{config.depth_to_color} is not an invertible matrix of finite numbers")
        notes.append(f"depth-to-colour from {config.depth_to_color.name}")
    return replace(recording, frames=frames, depth_to_color=matrix).noted(*notes)


def _is_of_color(frames: tuple[RawFrame, ...]) -> bool:
    """Whether the one camera that is known cannot be that of the depth images, but is that of the colours."""
    known = frames[0].color_intrinsics.size
    sizes = (_size_of(frame, "depth") for frame in frames[:N_TRIED])
    size = next((one for one in sizes if one is not None), None)
    return known is not None and size is not None and not same_aspect(size, known)


def with_size_of_images(recording: Recording) -> Recording:
    """The recording with a size for every camera, by its principal point where the images allow others.

    One file without a size may serve two sizes of images, or be that of images before they were resized.
    """
    return _with_size_of_calibration(_with_shared_size(recording))


def _with_shared_size(recording: Recording) -> Recording:
    """The recording with the size of its camera, where one file without a size serves two sizes of images.

    The principal point lies near the middle of the images that the numbers belong to. Where it is near
    neither middle, they are those of the depth images.
    """
    sized = ((one, _sizes(one)) for one in recording.frames if _is_shared(one))
    first, sizes = next(((one, found) for one, found in sized if found is not None), (None, None))
    if first is None or sizes is None or sizes["depth"] == sizes["colour"]:
        return recording
    apart = {name: _from_middle(first.depth_intrinsics, size) for name, size in sizes.items()}
    nearest = min(apart, key=lambda name: apart[name])
    whose = nearest if apart[nearest] < CENTRED else "depth"
    new: dict[int, Intrinsics] = {}
    for frame in recording.frames:
        if _is_shared(frame):
            new.setdefault(id(frame.depth_intrinsics), replace(frame.depth_intrinsics, size=sizes[whose]))
    frames = tuple(
        replace(
            frame,
            color_intrinsics=new[id(frame.depth_intrinsics)],
            depth_intrinsics=new[id(frame.depth_intrinsics)],
        )
        if _is_shared(frame)
        else frame
        for frame in recording.frames
    )
    wide, high = sizes[whose]
    note = (
        f"the camera's numbers belong to the {whose} images of {wide} x {high} pixels, by its principal point"
    )
    return replace(recording, frames=frames).noted(note)


def _with_size_of_calibration(recording: Recording) -> Recording:
    """The recording with a size for every camera: that of most of its images, so that others are told apart.

    It is k times that of the images where the principal point is k times as far from the corner as their
    middle, by one usual factor in x and in y. Whether that holds the check of the prepared frames tells.
    """
    sized: dict[int, Intrinsics] = {}
    notes: dict[str, None] = {}
    for what in ("depth", "colour"):
        users: dict[int, list[RawFrame]] = {}
        for frame in recording.frames:
            intrinsics = _intrinsics(frame, what)
            if intrinsics.size is None and id(intrinsics) not in sized:
                users.setdefault(id(intrinsics), []).append(frame)
        for key, frames in users.items():
            image, intrinsics = _usual_size(frames, what), _intrinsics(frames[0], what)
            if image is None:
                continue
            factor = _enlarged(intrinsics, image) or 1.0
            wide, high = round(image[0] * factor), round(image[1] * factor)
            sized[key] = replace(intrinsics, size=(wide, high))
            if factor != 1.0:
                small = f"not of {image[0]} x {image[1]}: its numbers were divided by {factor:g}"
                where = f"middle of images of {wide} x {high} pixels, {small}"
                notes[f"the {what} camera's principal point is the {where}"] = None
    if not sized:
        return recording
    frames = tuple(
        replace(
            frame,
            depth_intrinsics=sized.get(id(frame.depth_intrinsics), frame.depth_intrinsics),
            color_intrinsics=sized.get(id(frame.color_intrinsics), frame.color_intrinsics),
        )
        for frame in recording.frames
    )
    return replace(recording, frames=frames).noted(*notes)


def _intrinsics(frame: RawFrame, what: str) -> Intrinsics:
    return frame.depth_intrinsics if what == "depth" else frame.color_intrinsics


def _usual_size(frames: list[RawFrame], what: str) -> tuple[int, int] | None:
    """The most frequent size of a few images, spread over the recording; None where none can be read."""
    places = np.unique(np.linspace(0, len(frames) - 1, N_SAMPLED).astype(int))
    sizes = Counter(_size_of(frames[place], what) for place in places)
    sizes.pop(None, None)
    return sizes.most_common(1)[0][0] if sizes else None


def _size_of(frame: RawFrame, what: str) -> tuple[int, int] | None:
    """Width and height of an image; None where there is none, or it cannot be read."""
    try:
        if what == "depth":
            shape = frame.depth.depth().shape
        elif frame.color is not None:
            shape = frame.color.color().rgb.shape
        else:
            return None
    except SceneError:
        return None
    return shape[1], shape[0]


def _enlarged(intrinsics: Intrinsics, image: tuple[int, int]) -> float | None:
    """The usual factor by which the principal point is farther than the middle, in x and y alike; or None."""
    seen = (2.0 * np.abs(intrinsics.matrix[:2, 2]) + 1.0) / np.array(image)
    for factor in (*ENLARGED, *(1.0 / one for one in ENLARGED)):
        if np.abs(seen / factor - 1.0).max() < ALIKE:
            return factor
    return None


def _sizes(frame: RawFrame) -> dict[str, tuple[int, int]] | None:
    """Width and height of both images; None for a frame that cannot be read, which is reported later."""
    assert frame.color is not None
    try:
        depth, color = frame.depth.depth().shape, frame.color.color().rgb.shape
    except SceneError:
        return None
    return {"depth": (depth[1], depth[0]), "colour": (color[1], color[0])}


def _is_shared(frame: RawFrame) -> bool:
    return (
        frame.color_intrinsics is frame.depth_intrinsics
        and frame.depth_intrinsics.size is None
        and frame.color is not None
    )


def _from_middle(intrinsics: Intrinsics, size: tuple[int, int]) -> float:
    """The larger of both distances, as fractions of width and height."""
    middle = (np.array(size) - 1) / 2
    return float((np.abs(intrinsics.matrix[:2, 2] - middle) / np.array(size)).max())


def with_rows_downwards(recording: Recording) -> Recording:
    """The recording with y down in every depth camera, and a note where that changes something.

    With fy < 0 a pixel is v = cy - |fy| y / z: y points up in the camera, whose axes are left-handed, and so
    are those of the world. Both are mirrored, so that poses stay rotations and the room keeps its handedness.
    Raises SceneError where some cameras are like that and others are not.
    """
    upward = [frame.depth_intrinsics.matrix[1, 1] < 0 for frame in recording.frames]
    if not any(upward):
        return recording
    if not all(upward):
        raise SceneError(
            "some depth cameras have fy below zero and others have not", fix="give --intrinsics FILE"
        )
    turned = {
        id(intrinsics): _upright(intrinsics)
        for one in recording.frames
        for intrinsics in (one.color_intrinsics, one.depth_intrinsics)
    }
    frames = tuple(
        replace(
            frame,
            camera_to_world=MIRROR @ frame.camera_to_world @ MIRROR,
            color_intrinsics=turned[id(frame.color_intrinsics)],
            depth_intrinsics=turned[id(frame.depth_intrinsics)],
        )
        for frame in recording.frames
    )
    matrix = recording.depth_to_color
    notes = ["fy is below zero: y of the cameras points up, y of cameras and room was mirrored"]
    if recording.cloud is not None:
        notes.append(f"{recording.cloud.name} was not used, as it is not mirrored")
    mirrored = None if matrix is None else MIRROR @ matrix @ MIRROR
    upright = replace(recording, frames=frames, depth_to_color=mirrored, cloud=None, z_is_up=False)
    return upright.noted(*notes)


def _upright(intrinsics: Intrinsics) -> Intrinsics:
    """The sign of p1, tangential distortion along y, changes with the axis."""
    if intrinsics.matrix[1, 1] > 0:
        return intrinsics
    matrix = intrinsics.matrix.copy()
    matrix[1, 1] = -matrix[1, 1]
    k1, k2, p1, p2, k3 = intrinsics.distortion
    return Intrinsics(matrix, intrinsics.size, (k1, k2, -p1, p2, k3))
