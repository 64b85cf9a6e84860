"""Fusion of depth frames into a truncated signed distance, and the surface in it. Metres.

Open3D's VoxelBlockGrid: only blocks near a surface exist. Results are sorted, so that they do not depend on
the order of its hash table.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from numpy import ndarray

from ponderv2.errors import ResourceError
from ponderv2.scenes.prepared import PreparedCloud, PreparedMesh

OPEN3D_ROUNDS_DOWN = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
"""Open3D takes the integer part of a projected pixel: without this, depth is used half a pixel off."""
_NONE = np.zeros((0, 3), np.float32)


def load_open3d() -> Any:
    """The package open3d, an extra. Raises ResourceError where it is not installed.

    Open3D 0.20 links to libusb, which few machines have; `libusb-package` brings it. Loaded globally before
    Open3D, it is found.
    """
    with contextlib.suppress(ImportError, OSError):
        import libusb_package  # pyright: ignore[reportMissingImports]

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    try:
        return importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        if error.name != "open3d":
            raise
        raise ResourceError(
            "fusing depth frames needs Open3D, which is not installed", fix='pip install "ponder[open3d]"'
        ) from error


@dataclass(frozen=True)
class FusionSettings:
    """How fine and how far."""

    voxel_size: float = 0.02
    truncation: float = 0.08
    depth_max: float = 6.0
    min_weight: float = 3.0


class TsdfFusion:
    """Takes frames one by one, then gives the surface."""

    def __init__(self, settings: FusionSettings, n_blocks: int = 4000) -> None:
        """Raises ResourceError where Open3D is not installed."""
        open3d = load_open3d()
        o3c = open3d.core

        self.settings = settings
        self.n_frames = 0
        self._grid = open3d.t.geometry.VoxelBlockGrid(
            attr_names=("tsdf", "weight", "color"),
            attr_dtypes=(o3c.float32, o3c.float32, o3c.float32),
            attr_channels=((1), (1), (3)),
            voxel_size=settings.voxel_size,
            block_resolution=16,
            block_count=n_blocks,
            device=o3c.Device("CPU:0"),
        )

    def add(
        self,
        depth: Float32[ndarray, "row column"],
        color: UInt8[ndarray, "row column 3"],
        intrinsics: Float[ndarray, "3 3"],
        world_to_camera: Float[ndarray, "4 4"],
    ) -> None:
        """Depth in metres, 0 = no measurement. A frame without any measurement is passed over."""
        open3d = load_open3d()
        o3c, new_image = open3d.core, open3d.t.geometry.Image

        if not ((depth > 0) & (depth < self.settings.depth_max)).any():
            return
        depth_image = new_image(o3c.Tensor(np.ascontiguousarray(depth, np.float32)))
        color_image = new_image(o3c.Tensor(np.ascontiguousarray(color, np.float32)))
        lens = o3c.Tensor(np.asarray(intrinsics, np.float64) + OPEN3D_ROUNDS_DOWN)
        pose = o3c.Tensor(np.asarray(world_to_camera, np.float64))
        limits = {"depth_scale": 1.0, "depth_max": self.settings.depth_max}
        widths = self.settings.truncation / self.settings.voxel_size
        blocks = self._grid.compute_unique_block_coordinates(
            depth_image, lens, pose, **limits, trunc_voxel_multiplier=widths
        )
        self._grid.integrate(
            blocks, depth_image, color_image, lens, lens, pose, **limits, trunc_voxel_multiplier=widths
        )
        self.n_frames += 1

    def cloud(self) -> PreparedCloud:
        """The vertices of the mesh, with colour and with normals pointing into free space.

        Not Open3D's own point extraction: that loses surfaces which lie exactly on the voxels.
        """
        found = self._extract()
        if found is None:
            return PreparedCloud(_NONE, _NONE.astype(np.uint8), _NONE)
        coord = found.vertex.positions.numpy()
        normal = found.vertex.normals.numpy()
        length = np.linalg.norm(normal, axis=1)
        usable = np.flatnonzero(np.isfinite(coord).all(axis=1) & np.isfinite(length) & (length > 1e-6))
        order = usable[_order(coord[usable])]
        color = _as_bytes(found.vertex.colors.numpy())[order]
        return PreparedCloud(coord[order], color, normal[order] / length[order, None])

    def mesh(self) -> PreparedMesh:
        """Triangles by marching cubes, coloured; sorted like the cloud."""
        found = self._extract()
        if found is None:
            return PreparedMesh(_NONE, np.zeros((0, 3), np.int64), _NONE.astype(np.uint8))
        vertices = found.vertex.positions.numpy()
        order = _order(vertices)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        faces = rank[found.triangle.indices.numpy().astype(np.int64)]
        first = faces.argmin(axis=1)
        faces = np.stack([faces[np.arange(len(faces)), (first + step) % 3] for step in range(3)], axis=1)
        faces = faces[np.lexsort(faces.T[::-1])]
        return PreparedMesh(vertices[order], faces, _as_bytes(found.vertex.colors.numpy())[order])

    def _extract(self) -> Any:
        if self.n_frames == 0:
            return None
        found = self._grid.extract_triangle_mesh(weight_threshold=self._threshold())
        return found if "positions" in found.vertex and len(found.vertex.positions) else None

    def _threshold(self) -> float:
        """A recording of few frames cannot see every cell often."""
        return min(self.settings.min_weight, max(self.n_frames // 10, 0) + 0.5)


def _order(coord: Float32[ndarray, "point 3"]) -> Int64[ndarray, " point"]:
    return np.lexsort((coord[:, 0], coord[:, 1], coord[:, 2]))


def _as_bytes(color: Float32[ndarray, "point 3"]) -> UInt8[ndarray, "point 3"]:
    """Colours come out as they went in, 0..255."""
    return np.clip(np.rint(color), 0, 255).astype(np.uint8)
