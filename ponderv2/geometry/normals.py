"""Normals of faces, of vertices from the faces around them, of bare points from their neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Integer
from numpy import ndarray

EYE_HEIGHT = 1.5
"""Metres."""


def estimate_normals(
    coord: Float64[ndarray, "point 3"], towards: Float64[ndarray, "eye 3"], n_neighbours: int = 16
) -> Float32[ndarray, "point 3"]:
    """Unit normals from principal components, each turned to the nearest of the given viewpoints.

    With fewer than three points there is no surface: all normals point up.
    """
    from scipy.spatial import KDTree

    if len(coord) < 3:
        return np.tile(np.array([0.0, 0.0, 1.0], np.float32), (len(coord), 1))
    tree = KDTree(coord)
    normals = np.empty(coord.shape, np.float64)
    for start in range(0, len(coord), 65536):  # all neighbours at once take gigabytes for a scanned hallway
        part = slice(start, start + 65536)
        patch = coord[np.asarray(tree.query(coord[part], k=min(n_neighbours, len(coord)))[1])]
        patch = patch - patch.mean(axis=1, keepdims=True)
        normals[part] = np.linalg.eigh(patch.transpose(0, 2, 1) @ patch)[1][:, :, 0]
    eye = np.asarray(KDTree(towards).query(coord)[1])
    away = ((towards[eye] - coord) * normals).sum(axis=1) < 0
    normals[away] *= -1
    return normals.astype(np.float32)


def standing_eye(coord: Float64[ndarray, "point 3"]) -> Float64[ndarray, "3"]:
    """Where somebody would stand in a room of these points: in the middle, 1.5 m above the floor or higher.

    Normals that are turned there point up on floors and tables even where walls and ceiling are missing.
    Metres, z up.
    """
    middle = coord.mean(axis=0)
    middle[2] = max(middle[2], np.quantile(coord[:, 2], 0.01) + EYE_HEIGHT)
    return middle


def face_normals(triangles: Float64[ndarray, "face 3 3"]) -> Float64[ndarray, "face 3"]:
    """Unit normals, corners counter-clockwise; zero for a face without area."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return normal / np.where(length > 0, length, 1.0)


def vertex_normals(
    coord: Float64[ndarray, "point 3"], faces: Integer[ndarray, "face 3"]
) -> Float64[ndarray, "point 3"]:
    """Sum of the normals of the faces around a vertex, weighted by their area; zero where there is no face.

    Not of unit length: twice the area.
    """
    corner = coord[faces]
    face = np.nan_to_num(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]))
    normal = np.empty(coord.shape, np.float64)
    for axis in range(3):
        weights = np.repeat(face[:, axis], 3)
        normal[:, axis] = np.bincount(faces.reshape(-1), weights=weights, minlength=len(coord))
    return normal
