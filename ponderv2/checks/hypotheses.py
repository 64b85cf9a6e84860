"""Other ways to read the poses, depths and cameras of a recording, each the cure of a usual mistake.

Poses camera-to-world with OpenCV axes; metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.geometry.reprojection import Hypothesis, Intrinsics, Poses

FORWARD_UP_RIGHT = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""From OpenCV's axes to those in which Structured3D writes its cameras."""
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
FOCAL_FACTORS = (
    0.35,
    0.42,
    0.5,
    0.55,
    0.6,
    0.66,
    0.73,
    0.8,
    0.9,
    1.1,
    1.25,
    1.4,
    1.55,
    1.7,
    1.9,
    2.1,
    2.4,
    2.8,
)
ASPECTS = (0.5, 0.5625, 0.6667, 0.75, 0.8333, 1.2, 1.3333, 1.5, 1.7778, 2.0)
"""Height of a pixel over its width, where intrinsics of an image of another aspect ratio were scaled:
16:9 taken for
4:3, 3:2, 4:3 for 16:9 and so on."""


def hypotheses(intrinsics: Float64[ndarray, "3 3"], size: tuple[int, int]) -> list[Hypothesis]:
    """All that are tried beside the scale, simple ones first; `size` is width and height."""
    return [*of_poses(), *of_depth(), *of_cameras(intrinsics, size)]


def of_poses() -> Iterator[Hypothesis]:
    """Direction, axes, order of a quaternion, and what is met together."""
    yield Hypothesis("poses are world-to-camera: invert them", change=np.linalg.inv)
    yield Hypothesis("poses have OpenGL axes: negate columns 1 and 2", before=OPENGL)
    yield Hypothesis("poses are world-to-camera with OpenGL axes", change=np.linalg.inv, before=OPENGL)
    yield Hypothesis(
        "rotations are transposed (or quaternions conjugated), translations are not", change=_transposed
    )
    yield Hypothesis(
        "rotations are transposed with OpenGL axes, translations are not", change=_transposed, before=OPENGL
    )
    yield Hypothesis("translations are those of world-to-camera, rotations are not", change=_centre_moved)
    for axis, name in enumerate("xyz"):
        mirror = np.eye(4)
        mirror[axis, axis] = -1
        description = f"poses are mirrored along {name}"
        yield Hypothesis(f"{description} (a left-handed frame, or flipped images)", before=mirror)
    yield Hypothesis(
        "images are upside down: turn them by 180 degrees", before=np.diag([-1.0, -1.0, 1.0, 1.0])
    )
    quarter = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    yield Hypothesis("images are turned by 90 degrees against the poses", before=quarter)
    yield Hypothesis("images are turned by 90 degrees against the poses, to the other side", before=quarter.T)
    yield Hypothesis("poses have x and y swapped", before=np.eye(4)[[1, 0, 2, 3]])
    forward = "axes of Structured3D's files (forward, up, right)"
    yield Hypothesis(f"poses have the {forward}: they were not corrected", before=FORWARD_UP_RIGHT)
    yield Hypothesis(
        f"poses are world-to-camera with the {forward}", change=np.linalg.inv, before=FORWARD_UP_RIGHT
    )
    for description, columns in (
        ("w x y z were read as x y z w", [1, 2, 3, 0]),
        ("x y z w were read as w x y z", [3, 0, 1, 2]),
    ):
        roll = partial(_quaternion, columns=columns)
        yield Hypothesis(f"quaternions have another order: {description}", change=roll)
        yield Hypothesis(
            f"quaternions have another order: {description}, and poses are world-to-camera",
            change=lambda poses, roll=roll: np.linalg.inv(roll(poses)),
        )
        yield Hypothesis(
            f"quaternions have another order: {description}, and axes are OpenGL's",
            change=roll,
            before=OPENGL,
        )


def of_depth() -> Iterator[Hypothesis]:
    """Shape of the depth; its scale is fitted."""
    yield Hypothesis(
        "depth images hold distances along the ray, not depth along the optical axis: "
        "divide each by the length of its ray",
        ray_power=-1,
    )
    yield Hypothesis(
        "depth images were divided by the length of the ray, though they held depth along the optical axis",
        ray_power=1,
    )


def of_cameras(known: Float64[ndarray, "3 3"], size: tuple[int, int]) -> Iterator[Hypothesis]:
    """Intrinsics of another size or aspect ratio, swapped numbers, a wrong middle, a wrong focal length."""
    for factor in (0.25, 0.5, 2.0, 4.0, 1.5, 1 / 1.5, 1.6, 0.625, 3.0, 1 / 3):
        times = f"{1 / factor:.3g}"
        yield Hypothesis(
            f"intrinsics are wrong: they belong to images of {times} times the size",
            intrinsics=partial(_scaled, factor=factor),
        )
    yield from _of_centres(known, size)
    yield from _of_aspects(square=bool(abs(known[0, 0] / known[1, 1] - 1) < 0.02))
    for factor in FOCAL_FACTORS:
        yield focal_hypothesis(factor)


def _of_centres(known: Float64[ndarray, "3 3"], size: tuple[int, int]) -> Iterator[Hypothesis]:
    middle = (np.array(size, np.float64) - 1) / 2
    if np.abs(known[0, 2] - known[1, 2]) > 0.02 * size[0]:
        yield Hypothesis("intrinsics are wrong: cx and cy are swapped", intrinsics=_swapped_centre)
    if np.abs(middle - known[:2, 2]).max() > 0.05 * size[0]:
        yield Hypothesis(
            "intrinsics are wrong: the principal point should be near the middle", intrinsics=_centred
        )


def _of_aspects(square: bool) -> Iterator[Hypothesis]:
    """`square`: whether fx and fy are equal as they are."""
    other = "the camera is that of an image of another aspect ratio"
    if not square:
        yield Hypothesis("intrinsics are wrong: fx and fy are swapped", intrinsics=_swapped_focal)
        yield Hypothesis(
            f"intrinsics are wrong: fy should be fx, {other}", intrinsics=partial(_square, axis=0)
        )
        yield Hypothesis(
            f"intrinsics are wrong: fx should be fy, {other}", intrinsics=partial(_square, axis=1)
        )
    for aspect in ASPECTS:
        for axis, name in enumerate("xy"):
            across, along = (aspect, 1.0) if name == "x" else (1.0, aspect)
            both = f"f{name} and c{name} should be multiplied by about {aspect:.3g}, {other}"
            yield Hypothesis(
                f"intrinsics are wrong: {both}", intrinsics=partial(_stretched, axis=axis, factor=aspect)
            )
            focal = f"f{name} should be multiplied by about {aspect:.3g}, {other}"
            yield Hypothesis(
                f"intrinsics are wrong: {focal}", intrinsics=partial(_focal, across=across, along=along)
            )
    if not square:
        for factor in FOCAL_FACTORS:
            description = f"fx and fy should be equal, about {factor:.3g} times fx, {other}"
            change = partial(_square, axis=0, factor=factor, centred=True)
            yield Hypothesis(f"intrinsics are wrong: {description}", intrinsics=change)


def focal_hypothesis(factor: float) -> Hypothesis:
    """Another focal length."""
    description = f"intrinsics are wrong: multiply the focal length by about {factor:.3g}"
    return Hypothesis(description, intrinsics=partial(_focal, across=factor, along=factor))


# Changes of poses -------------------------------------------------------------------------------------------


def _transposed(poses: Poses) -> Poses:
    found = poses.copy()
    found[:, :3, :3] = np.swapaxes(poses[:, :3, :3], 1, 2)
    return found


def _centre_moved(poses: Poses) -> Poses:
    """Rotation kept; centre = -R t of what is written."""
    found = poses.copy()
    found[:, :3, 3] = -np.einsum("fij,fj->fi", poses[:, :3, :3], poses[:, :3, 3])
    return found


def _quaternion(poses: Poses, columns: list[int]) -> Poses:
    """Numbers x, y, z, w of each quaternion taken in another order."""
    from scipy.spatial.transform import Rotation

    found = poses.copy()
    proper = np.linalg.det(poses[:, :3, :3]) > 0
    if proper.any():
        numbers = Rotation.from_matrix(poses[proper, :3, :3]).as_quat()
        found[proper, :3, :3] = Rotation.from_quat(numbers[:, columns]).as_matrix()
    return found


# Changes of intrinsics --------------------------------------------------------------------------------------


def _scaled(intrinsics: Intrinsics, size: ndarray, factor: float) -> Intrinsics:
    return np.diag([factor, factor, 1.0]) @ intrinsics


def _stretched(intrinsics: Intrinsics, size: ndarray, axis: int, factor: float) -> Intrinsics:
    intrinsics[:, axis] *= factor
    return intrinsics


def _focal(intrinsics: Intrinsics, size: ndarray, across: float, along: float) -> Intrinsics:
    intrinsics[:, 0, 0] *= across
    intrinsics[:, 1, 1] *= along
    return intrinsics


def _square(
    intrinsics: Intrinsics, size: ndarray, axis: int, factor: float = 1.0, centred: bool = False
) -> Intrinsics:
    focal = intrinsics[:, axis, axis] * factor
    intrinsics[:, 0, 0] = focal
    intrinsics[:, 1, 1] = focal
    return _centred(intrinsics, size) if centred else intrinsics


def _swapped_focal(intrinsics: Intrinsics, size: ndarray) -> Intrinsics:
    intrinsics[:, [0, 1], [0, 1]] = intrinsics[:, [1, 0], [1, 0]]
    return intrinsics


def _swapped_centre(intrinsics: Intrinsics, size: ndarray) -> Intrinsics:
    intrinsics[:, :2, 2] = intrinsics[:, 1::-1, 2]
    return intrinsics


def _centred(intrinsics: Intrinsics, size: ndarray) -> Intrinsics:
    intrinsics[:, :2, 2] = (size - 1) / 2
    return intrinsics
