"""Meshes after extraction: crop to what was observed, small components, colours, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.errors import OutputError, SceneError
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.connected_components import connected_components
from ponderv2.geometry.meshes import Mesh, SurfacePoints, vertex_normals
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply, read_ply
from ponderv2.io.point_columns import named_columns
from ponderv2.scenes.origin import Origin, middle_of
from ponderv2.scenes.scene import PointCloud


@dataclass(frozen=True)
class DepthView:
    """A camera and what it measured."""

    camera: Camera
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis; 0 = no measurement."""


def observed_points(
    surface: SurfacePoints, views: Iterable[DepthView], margin: float
) -> Bool[Tensor, " point"]:
    """Points that face a camera which measured a depth within `margin` metres of theirs.

    The test uses the depth along the optical axis, so that what lies behind a camera never counts.
    """
    observed = torch.zeros(len(surface.points), dtype=torch.bool)
    for view in views:
        rest = torch.nonzero(~observed)[:, 0]
        if len(rest) == 0:
            break
        points = surface.points[rest]
        pixel, depth = project(transform_points(view.camera.world_to_camera, points), view.camera.intrinsics)
        column, row = pixel.nan_to_num(-1.0).clamp(-1, 1e6).round().long().unbind(dim=-1)
        inside = (depth > 0) & (column >= 0) & (column < view.camera.width)
        inside &= (row >= 0) & (row < view.camera.height)
        measured = view.depth[row.clamp(0, view.camera.height - 1), column.clamp(0, view.camera.width - 1)]
        facing = ((view.camera.centre - points) * surface.normals[rest]).sum(-1) > 0
        hit = inside & facing & (measured > 0) & ((measured - depth).abs() < margin)
        observed[rest[hit]] = True
    return observed


def near_cloud(mesh: Mesh, cloud: PointCloud, margin: float) -> Bool[Tensor, " vertex"]:
    """Vertices within `margin` of a point of the cloud whose normal, if known, does not oppose its own."""
    return points_near_cloud(SurfacePoints(mesh.vertices, vertex_normals(mesh)), cloud, margin)


def points_near_cloud(surface: SurfacePoints, cloud: PointCloud, margin: float) -> Bool[Tensor, " point"]:
    """Points within `margin` of a point of the cloud whose normal, if known, does not oppose their own."""
    from scipy.spatial import KDTree

    if len(surface.points) == 0 or len(cloud) == 0:
        return torch.zeros(len(surface.points), dtype=torch.bool)
    distance, index = KDTree(cloud.coord.numpy()).query(
        surface.points.numpy(), distance_upper_bound=margin, workers=1
    )
    near = torch.from_numpy(np.isfinite(distance))
    if cloud.normal is None:
        return near
    partner = cloud.normal[torch.from_numpy(np.where(np.isfinite(distance), index, 0))]
    return near & ((partner * surface.normals).sum(-1) >= -0.2)


def cropped(mesh: Mesh, keep: Bool[Tensor, " vertex"]) -> Mesh:
    """Faces whose three vertices all stay. SceneError: no face is left."""
    left = mesh.with_faces(keep[mesh.faces].all(dim=-1))
    if len(left.faces) == 0:
        raise SceneError(
            f"none of the {len(mesh.faces)} faces lies where the scene was observed",
            fix="--set crop_to_observed=false to see the whole surface, or --refine 2000",
        )
    return left


def remove_small_components(mesh: Mesh, min_faces: int) -> Mesh:
    """Without connected components of fewer faces; the largest always stays."""
    if len(mesh.faces) == 0:
        return mesh
    first, second, third = mesh.faces.unbind(dim=1)
    component = connected_components(
        torch.cat([first, second]), torch.cat([second, third]), len(mesh.vertices)
    )[first]
    counts = torch.bincount(component)
    return mesh.with_faces(counts[component] >= min(min_faces, int(counts.max())))


ColorAt = Callable[[Float[Tensor, "point 3"], Float[Tensor, "point 3"]], Float[Tensor, "point 3"]]
"""Points and viewing directions (unit length) in scene units -> colour 0..1."""


@torch.no_grad()
def colored(mesh: Mesh, color_at: ColorAt, chunk: int = 65536) -> Mesh:
    """The mesh with vertex colours, for viewing directions along the inward normals."""
    normals = vertex_normals(mesh)
    parts = [
        color_at(mesh.vertices[start : start + chunk], -normals[start : start + chunk])
        for start in range(0, len(mesh.vertices), chunk)
    ]
    colors = torch.cat(parts).clamp(0.0, 1.0) if parts else torch.zeros(0, 3)
    return replace(mesh, colors=colors)


SUFFIXES = (".ply", ".obj", ".glb")


def check_mesh_path(path: Path) -> None:
    """Refuses a file that cannot be written, before hours are spent on its contents. Raises OutputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write a mesh as '{path.name}'", fix=f"--out {path.with_suffix('.ply')}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder, a file is needed", fix=f"--out {path / 'mesh.ply'}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write into {folder}", fix="choose another folder with --out")


def write_mesh(path: Path, mesh: Mesh, origin: Origin = (0.0, 0.0, 0.0)) -> None:
    """Vertices, faces, smooth normals and colours; the ending chooses the format.

    Coordinates stay as they are (metres, z up), in GLB too. `origin` is added in double precision to those of
    PLY and OBJ; GLB knows single precision alone and stays near zero. Raises OutputError.
    """
    check_mesh_path(path)
    data = _encoded(mesh, path.suffix.lower()[1:], np.array(origin))
    write_bytes(path, data)


def read_mesh(path: Path, origin: Origin = (0.0, 0.0, 0.0)) -> Mesh:
    """A triangle mesh from PLY, OBJ, GLB or whatever else trimesh reads. Raises SceneError.

    `origin` is subtracted, in double precision, from a mesh that lies nearer to it than to zero.
    """
    if path.suffix.lower() == ".ply":
        file = read_ply(path)
        columns = named_columns(file.vertex, path)
        colors = None if columns.color is None else columns.color.color / 255
        return _checked(path, _near(columns.coord, origin), file.faces, colors)
    import trimesh

    try:
        loaded: Any = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(loaded.vertices), np.asarray(loaded.faces)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError) as error:
        raise SceneError(f"{path} is not a readable mesh ({error})") from error
    return _checked(path, _near(vertices, origin), faces, None)


def _near(vertices: np.ndarray, origin: Origin) -> np.ndarray:
    """Near zero: meshes of prepared scenes are there already, others lie where the recording lay."""
    middle = middle_of(vertices)
    far = np.linalg.norm(middle - origin) < np.linalg.norm(middle)
    return vertices.astype(np.float64) - origin if far else vertices


def _checked(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None) -> Mesh:
    if len(faces) == 0:
        raise SceneError(f"{path} has no faces; a mesh is needed, not a point cloud")
    return Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(faces.astype(np.int64)),
        None if colors is None else torch.from_numpy(colors),
    )


def _encoded(mesh: Mesh, kind: str, origin: np.ndarray) -> bytes:
    import trimesh

    colors = None
    if mesh.colors is not None:
        colors = (mesh.colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    vertices = mesh.vertices.numpy()
    if origin.any() and kind != "glb":
        vertices = vertices.astype(np.float64) + origin
        if kind == "ply":  # trimesh writes single precision
            return encode_ply(vertices, vertex_normals(mesh).numpy(), mesh.faces.numpy(), colors)
    made = trimesh.Trimesh(
        vertices=vertices,
        faces=mesh.faces.numpy(),
        vertex_normals=vertex_normals(mesh).numpy(),
        vertex_colors=colors,
        process=False,
    )
    options: dict[str, Any] = {"vertex_normal": True} if kind == "ply" else {"include_normals": True}
    encoded: Any = made.export(file_type=kind, **options)
    return encoded if isinstance(encoded, bytes) else str(encoded).encode()
