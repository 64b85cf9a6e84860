"""Cameras whose y axis points up (fy below zero, as in ICL-NUIM) become OpenCV cameras. Metres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""y -> -y, of cameras and of the world alike."""


def with_rows_downwards(capture: Capture) -> tuple[Capture, tuple[str, ...]]:
    """The recording with y down in every depth camera, and a note where that changes something.

    With fy < 0 a pixel is v = cy - |fy| y / z: y points up in the camera, whose axes are left-handed, and so
    are those of the world. Both are mirrored, so that poses stay rotations and the room is no mirror image.
    Raises SceneError where some cameras are like that and others are not.
    """
    upward = [frame.depth_lens.intrinsics[1, 1] < 0 for frame in capture.frames]
    if not any(upward):
        return capture, ()
    if not all(upward):
        raise SceneError(
            "some depth cameras have fy below zero and others have not", fix="give --intrinsics FILE"
        )
    turned = {id(lens): _upright(lens) for one in capture.frames for lens in (one.color_lens, one.depth_lens)}
    frames = tuple(
        replace(
            frame,
            camera_to_world=MIRROR @ frame.camera_to_world @ MIRROR,
            color_lens=turned[id(frame.color_lens)],
            depth_lens=turned[id(frame.depth_lens)],
        )
        for frame in capture.frames
    )
    matrix = capture.depth_to_color
    notes = ["fy is below zero: y of the cameras points up, y of cameras and room was mirrored"]
    if capture.cloud is not None:
        notes.append(f"{capture.cloud.name} was not used, as it is not mirrored")
    return (
        replace(
            capture,
            frames=frames,
            depth_to_color=None if matrix is None else MIRROR @ matrix @ MIRROR,
            cloud=None,
            z_is_up=False,
        ),
        tuple(notes),
    )


def _upright(lens: Lens) -> Lens:
    """Of p1, which bends along y, the sign changes with the axis."""
    if lens.intrinsics[1, 1] > 0:
        return lens
    matrix = lens.intrinsics.copy()
    matrix[1, 1] = -matrix[1, 1]
    k1, k2, p1, p2, k3 = lens.distortion
    return Lens(matrix, lens.size, (k1, k2, -p1, p2, k3))
