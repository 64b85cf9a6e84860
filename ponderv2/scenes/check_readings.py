"""Other ways to read the poses, depths and cameras of a recording, each the cure of a usual mistake."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

DEPTH_FACTORS = (
    0.0002,
    0.001,
    0.1,
    0.1525,
    0.2,
    0.25,
    0.5,
    0.75,
    1.33,
    2.0,
    4.0,
    5.0,
    6.5535,
    10.0,
    1000.0,
    5000.0,
)
FORWARD_UP_RIGHT = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""From OpenCV's axes to those in which Structured3D writes its cameras."""
FOCAL_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.65, 2.0)


def _identity() -> Float64[ndarray, "4 4"]:
    return np.eye(4)


@dataclass(frozen=True)
class Reading:
    """What is changed before the frames are compared."""

    name: str
    """Says what is wrong with the files if this reading is right."""
    inverse: bool = False
    before: Float64[ndarray, "4 4"] = field(default_factory=_identity)
    """Applied to camera coordinates before the pose."""
    depth_factor: float = 1.0
    matrix: Float64[ndarray, "3 3"] | None = None
    """Instead of the intrinsics."""

    def pose(self, camera_to_world: Float64[ndarray, "4 4"]) -> Float64[ndarray, "4 4"]:
        """The pose under this reading."""
        pose = np.linalg.inv(camera_to_world) if self.inverse else camera_to_world
        return pose @ self.before

    def intrinsics(self, known: Float64[ndarray, "3 3"]) -> Float64[ndarray, "3 3"]:
        """The camera under this reading."""
        return known if self.matrix is None else self.matrix


def readings(intrinsics: Float64[ndarray, "3 3"], shape: tuple[int, ...]) -> list[Reading]:
    """All that are tried, for a camera and the rows and columns of its pictures."""
    opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    found = [
        Reading("poses are world-to-camera: invert them", inverse=True),
        Reading("poses have OpenGL axes: negate columns 1 and 2", before=opengl),
        Reading("poses are world-to-camera with OpenGL axes", inverse=True, before=opengl),
        Reading("poses are mirrored along x", before=np.diag([-1.0, 1.0, 1.0, 1.0])),
        Reading("poses are mirrored along y", before=np.diag([1.0, -1.0, 1.0, 1.0])),
        Reading("poses are mirrored along z", before=np.diag([1.0, 1.0, -1.0, 1.0])),
        Reading("poses have x and y swapped", before=np.eye(4)[[1, 0, 2, 3]]),
        Reading(
            "poses have the axes of Structured3D's files (forward, up, right): they were not corrected",
            before=FORWARD_UP_RIGHT,
        ),
        Reading(
            "poses are world-to-camera with the axes of Structured3D's files (forward, up, right)",
            inverse=True,
            before=FORWARD_UP_RIGHT,
        ),
    ]
    for factor in DEPTH_FACTORS:
        found.append(Reading(f"depth scale is wrong: multiply it by about {factor:g}", depth_factor=factor))
    return found + _cameras(intrinsics, shape)


def _cameras(known: Float64[ndarray, "3 3"], shape: tuple[int, ...]) -> list[Reading]:
    height, width = shape[:2]
    found = []
    for factor in FOCAL_FACTORS:
        matrix = known.copy()
        matrix[0, 0] *= factor
        matrix[1, 1] *= factor
        found.append(
            Reading(f"intrinsics are wrong: multiply the focal length by about {factor:g}", matrix=matrix)
        )
    swapped = known.copy()
    swapped[0, 0], swapped[1, 1] = known[1, 1], known[0, 0]
    centred = known.copy()
    centred[:2, 2] = (width - 1) / 2, (height - 1) / 2
    crossed = known.copy()
    crossed[0, 2], crossed[1, 2] = known[1, 2], known[0, 2]
    for matrix, name in ((swapped, "fx and fy are swapped"), (crossed, "cx and cy are swapped")):
        if not np.allclose(matrix, known):
            found.append(Reading(f"intrinsics are wrong: {name}", matrix=matrix))
    if np.abs(centred - known).max() > 0.05 * width:
        found.append(
            Reading("intrinsics are wrong: the principal point should be near the middle", matrix=centred)
        )
    for factor in (0.25, 0.5, 2.0, 4.0):
        name = f"intrinsics are wrong: they belong to pictures of {1 / factor:g} times the size"
        found.append(Reading(name, matrix=np.diag([factor, factor, 1.0]) @ known))
    return found
