"""The points or mesh that come with a recording, in the frame of the prepared scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.geometry.normals import estimate_normals, vertex_normals
from ponderv2.io.colors import NO_COLOR_NOTE
from ponderv2.io.ply import read_ply
from ponderv2.io.point_columns import PointColumns, named_columns
from ponderv2.scenes.origin import coarse_note, compact, far_outliers
from ponderv2.scenes.prepared import PreparedCloud


def own_surface(path: Path, to_scene: Float[ndarray, "4 4"]) -> tuple[PreparedCloud, Mesh | None, list[str]]:
    """Vertices of a PLY file after x' = to_scene x, a rigid motion; the mesh, and what there is to report.

    Colours go by the rule of all readers. Normals are those of the file, else of its faces, else of the
    neighbourhood. Points without a position, without a normal or far from all others are left out.

    Raises:
        SceneError: the file is damaged, or no point is left.
    """
    ply = read_ply(path)
    columns = named_columns(ply.vertex, path, ply.faces)
    coord = columns.coord.astype(np.float64) @ to_scene[:3, :3].T + to_scene[:3, 3]
    color = columns.color
    about_color = (NO_COLOR_NOTE,) if color is None else color.notes
    notes = [f"{path.name}: {note}" for note in (*columns.notes, *coarse_note(columns.coord), *about_color)]
    placed = np.isfinite(coord).all(axis=1) & ~far_outliers(coord)
    normal = _normals(columns, coord, placed, to_scene)
    length = np.linalg.norm(normal, axis=1)
    usable = placed & (length > 1e-9)
    if not usable.any():
        raise SceneError(
            f"{path} holds no points with a position and a normal", fix="--set source.cloud=fuse"
        )
    if not usable.all():
        count = int((~usable).sum())
        notes.append(
            f"{path.name}: {count} points without position or normal, or far from all others, left out"
        )
    unit = (normal[usable] / length[usable, None]).astype(np.float32)
    bytes_ = None if color is None else color.as_bytes()
    cloud = PreparedCloud(compact(coord[usable]), None if bytes_ is None else bytes_[usable], unit)
    faces = ply.faces[placed[ply.faces].all(axis=1)]
    if not len(faces):
        return cloud, None, notes
    vertices = compact(np.where(placed[:, None], coord, coord[placed][0]))  # others are part of no face
    return cloud, Mesh.of_arrays(vertices, faces, bytes_), notes


def _normals(
    columns: PointColumns,
    coord: Float64[ndarray, "point 3"],
    placed: ndarray,
    to_scene: Float[ndarray, "4 4"],
) -> Float64[ndarray, "point 3"]:
    """Of any length; 0 where there is none."""
    if columns.normal is not None and columns.normal.any():
        return np.nan_to_num(columns.normal @ to_scene[:3, :3].T)
    here = np.where(placed[:, None], coord, 0.0)
    if columns.faces is not None:
        faces = columns.faces[placed[columns.faces].all(axis=1)]
        return vertex_normals(here, faces)
    normal = np.zeros(coord.shape)
    if placed.any():
        points = coord[placed]
        normal[placed] = estimate_normals(points, towards=points.mean(axis=0)[None])
    return normal
