"""Fusion of depth frames into a truncated signed distance, and the surface in it. Metres.

Open3D's VoxelBlockGrid: only blocks near a surface exist. Results are sorted, so that they do not depend on
the order of its hash table.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from numpy import ndarray

from ponderv2.errors import ResourceError, SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.reconstruction.config import TsdfConfig
from ponderv2.scenes.prepared import FusionSettings, PreparedCloud
from ponderv2.scenes.scene import Frame

OPEN3D_ROUNDS_DOWN = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
"""Open3D takes the integer part of a projected pixel: without this, depth is used half a pixel off."""
UNKNOWN_COLOR = 128
"""Of a part of a surface that no frame with colours saw."""
Colors = Literal["all", "some", "none"]
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
class _Grid:
    """One of Open3D's grids, with or without colours in its cells."""

    blocks: Any
    has_color: bool


class TsdfFusion:
    """Takes frames one by one, then gives the surface.

    One weight of a cell counts for its distance and its colour. Where some frames have no colour, the surface
    is therefore that of all frames, and its colours are those of a second one, of the frames that have some.
    """

    def __init__(self, settings: FusionSettings, n_blocks: int = 4000, colors: Colors = "all") -> None:
        """`colors`: which frames come with a colour image. ResourceError where Open3D is not installed."""
        self.settings = settings
        self.n_frames = 0
        self._n_blocks = n_blocks
        self._surface = self._new_grid(has_color=colors == "all")
        self._colors = self._new_grid(has_color=True) if colors == "some" else None

    def _new_grid(self, has_color: bool) -> _Grid:
        open3d = load_open3d()
        o3c = open3d.core
        names, channels = ("tsdf", "weight"), ((1), (1))
        if has_color:
            names, channels = (*names, "color"), (*channels, (3))
        grid = open3d.t.geometry.VoxelBlockGrid(
            attr_names=names,
            attr_dtypes=(o3c.float32,) * len(names),
            attr_channels=channels,
            voxel_size=self.settings.voxel_size,
            block_resolution=16,
            block_count=self._n_blocks,
            device=o3c.Device("CPU:0"),
        )
        return _Grid(grid, has_color)

    def add(
        self,
        depth: Float32[ndarray, "row column"],
        color: UInt8[ndarray, "row column 3"] | None,
        intrinsics: Float[ndarray, "3 3"],
        world_to_camera: Float[ndarray, "4 4"],
    ) -> None:
        """Depth in metres, 0 = no measurement. A frame without any measurement is passed over.

        Raises ValueError for a frame without colour where `colors` promised one in all frames.
        """
        if color is None and self._surface.has_color:
            raise ValueError("expected a colour image with every frame, got none: give colors='some'")
        if not ((depth > 0) & (depth < self.settings.depth_max)).any():
            return
        self._integrate(self._surface, depth, color, intrinsics, world_to_camera)
        if self._colors is not None and color is not None:
            self._integrate(self._colors, depth, color, intrinsics, world_to_camera)
        self.n_frames += 1

    def _integrate(
        self,
        grid: _Grid,
        depth: Float32[ndarray, "row column"],
        color: UInt8[ndarray, "row column 3"] | None,
        intrinsics: Float[ndarray, "3 3"],
        world_to_camera: Float[ndarray, "4 4"],
    ) -> None:
        open3d = load_open3d()
        o3c, new_image = open3d.core, open3d.t.geometry.Image
        depth_image = new_image(o3c.Tensor(np.ascontiguousarray(depth, np.float32)))
        camera_matrix = o3c.Tensor(np.asarray(intrinsics, np.float64) + OPEN3D_ROUNDS_DOWN)
        pose = o3c.Tensor(np.asarray(world_to_camera, np.float64))
        limits = {"depth_scale": 1.0, "depth_max": self.settings.depth_max}
        widths = self.settings.truncation / self.settings.voxel_size
        limits["trunc_voxel_multiplier"] = widths
        blocks = grid.blocks.compute_unique_block_coordinates(depth_image, camera_matrix, pose, **limits)
        if not grid.has_color:
            grid.blocks.integrate(blocks, depth_image, camera_matrix, pose, **limits)
            return
        color_image = new_image(o3c.Tensor(np.ascontiguousarray(color, np.float32)))
        grid.blocks.integrate(blocks, depth_image, color_image, camera_matrix, camera_matrix, pose, **limits)

    def cloud(self) -> PreparedCloud:
        """The vertices of the mesh, with normals pointing into free space and, where frames had it, colour.

        Not Open3D's own point extraction: that loses surfaces which lie exactly on the voxels.
        """
        found = self._extract()
        if found is None:
            return PreparedCloud.empty()
        coord = found.vertex.positions.numpy()
        normal = found.vertex.normals.numpy()
        length = np.linalg.norm(normal, axis=1)
        usable = np.flatnonzero(np.isfinite(coord).all(axis=1) & np.isfinite(length) & (length > 1e-6))
        order = usable[_order(coord[usable])]
        color = self._colors_of(found)
        unit = normal[order] / length[order, None]
        return PreparedCloud(coord[order], None if color is None else color[order], unit)

    def mesh(self) -> Mesh:
        """Triangles by marching cubes, coloured where frames were; sorted like the cloud."""
        found = self._extract()
        if found is None:
            return Mesh.of_arrays(_NONE, np.zeros((0, 3), np.int64))
        vertices = found.vertex.positions.numpy()
        order = _order(vertices)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        faces = rank[found.triangle.indices.numpy().astype(np.int64)]
        first = faces.argmin(axis=1)
        faces = np.stack([faces[np.arange(len(faces)), (first + step) % 3] for step in range(3)], axis=1)
        faces = faces[np.lexsort(faces.T[::-1])]
        color = self._colors_of(found)
        return Mesh.of_arrays(vertices[order], faces, None if color is None else color[order])

    def _colors_of(self, found: Any) -> UInt8[ndarray, "vertex 3"] | None:
        """Of the vertices of the surface; None where no frame had colours.

        Where only frames without colour saw the surface, the nearest colour within the truncation stands in,
        and beyond that a neutral grey.
        """
        if self._surface.has_color:
            return _as_bytes(found.vertex.colors.numpy())
        colored = None if self._colors is None else self._extract(self._colors)
        if colored is None:
            return None
        from scipy.spatial import KDTree

        tree = KDTree(colored.vertex.positions.numpy().astype(np.float64))
        reach, nearest = tree.query(found.vertex.positions.numpy().astype(np.float64))
        colors = _as_bytes(colored.vertex.colors.numpy())[nearest]
        return np.where((reach <= self.settings.truncation)[:, None], colors, UNKNOWN_COLOR).astype(np.uint8)

    def _extract(self, grid: _Grid | None = None) -> Any:
        if self.n_frames == 0:
            return None
        found = (grid or self._surface).blocks.extract_triangle_mesh(weight_threshold=self._threshold())
        return found if "positions" in found.vertex and len(found.vertex.positions) else None

    def _threshold(self) -> float:
        """A recording of few frames cannot see every cell often."""
        return min(self.settings.min_weight, max(self.n_frames // 10, 0) + 0.5)


def _order(coord: Float32[ndarray, "point 3"]) -> Int64[ndarray, " point"]:
    return np.lexsort((coord[:, 0], coord[:, 1], coord[:, 2]))


def _as_bytes(color: Float32[ndarray, "point 3"]) -> UInt8[ndarray, "point 3"]:
    """Colours come out as they went in, 0..255."""
    return np.clip(np.rint(color), 0, 255).astype(np.uint8)


def colors_of(have_color: Iterable[bool]) -> Colors:
    """Which of some frames have a colour image."""
    have = set(have_color)
    return "all" if have == {True} else "some" if True in have else "none"


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
    return made
