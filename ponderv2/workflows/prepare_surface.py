"""Points of a scene without its own: fused from its depth frames while they are stored. Metres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ponderv2.checks.check import cause_without_points
from ponderv2.errors import SceneError
from ponderv2.geometry.pose_candidates import spread_frames
from ponderv2.geometry.reprojection import sample_depth
from ponderv2.reconstruction.fusion import TsdfFusion, colors_of
from ponderv2.scenes.prepared import DecodedFrame, NeededSurface, PreparedScene, SceneStream

MOST_FRAMES = 16
"""Number of frames compared where fusion gives no points."""
N_PIXELS = 1000
"""Of each of them."""


def with_surface(stream: SceneStream) -> SceneStream:
    """The same scene with points: its own, or fused from its frames while they are streamed.

    Held-out frames are not fused. Raises ResourceError where Open3D is needed and not installed; `finish`
    raises SceneError where frames give no surface, and names the hypothesis under which they would.
    """
    needed = stream.needs_surface
    if needed is None:
        return stream
    fusion = TsdfFusion(needed.settings, colors=colors_of(needed.has_color))
    compared: list[DecodedFrame] = []
    chosen = frozenset(spread_frames(len(needed.has_color), MOST_FRAMES))

    def frames() -> Iterator[DecodedFrame]:
        for index, frame in enumerate(stream.frames):
            if frame.depth is not None and not frame.held_out:
                metres = (frame.depth * frame.depth_scale).astype(np.float32)
                fusion.add(metres, frame.color, frame.intrinsics, np.linalg.inv(frame.camera_to_world))
            if index in chosen:
                compared.append(replace(frame, color=None, color_file=None, visible=None))
            yield frame

    def finish() -> PreparedScene:
        made, cloud = stream.finish(), fusion.cloud()
        if not len(cloud.coord):
            raise _no_points(needed, compared, made)
        note = f"{len(cloud.coord)} points fused from {fusion.n_frames} frames"
        return replace(made, cloud=cloud, notes=(*made.notes, note))

    return SceneStream(frames(), finish)


def _no_points(needed: NeededSurface, frames: list[DecodedFrame], made: PreparedScene) -> SceneError:
    """Names the hypothesis about the recording's poses under which its frames agree, if there is one."""
    samples = [
        sample_depth(
            frame.depth.astype(np.float64) * frame.depth_scale,
            frame.intrinsics,
            frame.camera_to_world,
            N_PIXELS,
            recording_to_scene=made.recording_to_scene,
        )
        for frame in frames
        if frame.depth is not None
    ]
    doubt = f"; {needed.doubt}" if needed.doubt else ""
    cause = cause_without_points(samples)
    if not cause:
        return SceneError(
            f"{needed.where}: the scene has no points, as no two frames see a surface at one place{doubt}",
            fix="check the depth images, their scale and depth limits, and the poses",
        )
    return SceneError(
        f"{needed.where}: the scene has no points, as frames do not agree: {cause}{doubt}",
        fix="correct the poses, or give --depth-scale or --intrinsics",
    )
