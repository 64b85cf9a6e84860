"""Fusion of depth frames into a surface, without any model (Curless and Levoy 1996), by Open3D."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.reconstruction.config import TsdfConfig
from ponderv2.scenes.scene import Frame

BLOCK = 16
"""Cells along a side of a block of the hash grid."""


def fuse_frames(frames: Iterable[Frame], config: TsdfConfig) -> Mesh:
    """Coloured surface of the frames, metres. SceneError: no depth within reach, or no surface.

    Poses must be rigid: the sensor's metres are the scene's metres.
    """
    import open3d as o3d

    core, geometry = o3d.core, o3d.t.geometry
    grid = geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"),
        (core.float32, core.float32, core.float32),
        ((1), (1), (3)),
        config.voxel_size,
        BLOCK,
        10_000,
        core.Device("CPU:0"),
    )
    reach = (1.0, config.max_depth, config.truncation / config.voxel_size)
    n_fused = 0
    for frame in frames:
        depth = frame.read_depth().numpy()
        if not ((depth > 0) & (depth < config.max_depth)).any():
            continue
        color = frame.read_color().numpy().astype(np.float32) / 255.0
        depth_image, color_image = geometry.Image(core.Tensor(depth)), geometry.Image(core.Tensor(color))
        intrinsics = core.Tensor(frame.camera.intrinsics.double().numpy())
        pose = core.Tensor(frame.camera.world_to_camera.double().numpy())
        blocks = grid.compute_unique_block_coordinates(depth_image, intrinsics, pose, *reach)
        grid.integrate(blocks, depth_image, color_image, intrinsics, intrinsics, pose, *reach)
        n_fused += 1
    if n_fused == 0:
        raise SceneError(f"no frame has a depth below {config.max_depth} m", fix="--set tsdf.max_depth=20")
    return _surface(grid, config)


def _surface(grid, config: TsdfConfig) -> Mesh:
    mesh = grid.extract_triangle_mesh(config.min_weight)
    if "indices" not in mesh.triangle or len(mesh.triangle.indices) == 0:
        raise SceneError(
            f"no cell was seen {config.min_weight:g} times, so there is no surface",
            fix="--set tsdf.min_weight=0",
        )
    return Mesh(
        torch.from_numpy(mesh.vertex.positions.numpy().astype(np.float32)),
        torch.from_numpy(mesh.triangle.indices.numpy().astype(np.int64)),
        torch.from_numpy(mesh.vertex.colors.numpy().astype(np.float32)).clamp(0.0, 1.0),
    )
