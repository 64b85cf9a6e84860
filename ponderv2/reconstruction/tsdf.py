"""Fusion of depth frames into a surface, without any model (Curless and Levoy 1996)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.reconstruction.config import TsdfConfig
from ponderv2.reconstruction.fusion import Colors, FusionSettings, TsdfFusion
from ponderv2.scenes.scene import Frame


def fuse_frames(frames: Iterable[Frame], config: TsdfConfig, colors: Colors = "all") -> Mesh:
    """Surface of the frames, metres; coloured where they are. SceneError: no depth in reach, or no surface.

    `colors`: which of the frames have a colour image. Poses must be rigid: the sensor's metres are the
    scene's metres.
    """
    settings = FusionSettings(config.voxel_size, config.truncation, config.max_depth, config.min_weight)
    fusion = TsdfFusion(settings, colors=colors)
    for frame in frames:
        fusion.add(
            frame.read_depth().numpy(),
            frame.read_color().numpy() if frame.has_color else None,
            frame.camera.intrinsics.double().numpy(),
            frame.camera.world_to_camera.double().numpy(),
        )
    if fusion.n_frames == 0:
        raise SceneError(f"no frame has a depth below {config.max_depth} m", fix="--set tsdf.max_depth=20")
    made = fusion.mesh()
    if len(made.faces) == 0:
        raise SceneError(
            f"{fusion.n_frames} frames were fused and gave no surface", fix="--set tsdf.min_weight=0"
        )
    return Mesh(
        torch.from_numpy(np.ascontiguousarray(made.vertices)),
        torch.from_numpy(np.ascontiguousarray(made.faces, dtype=np.int64)),
        None if made.colors is None else torch.from_numpy(made.colors.astype(np.float32) / 255.0),
    )
