"""Surface that nobody saw and crumbs that float in the air are taken out of a mesh."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.meshes import Mesh, SurfacePoints, vertex_normals
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import PointCloud


@dataclass(frozen=True)
class DepthView:
    """A camera and what it measured."""

    camera: Camera
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis; 0 = no measurement."""


def seen_vertices(mesh: Mesh, views: Iterable[DepthView], margin: float) -> Bool[Tensor, " vertex"]:
    """Vertices that face a camera which measured a depth within `margin` metres of theirs."""
    return seen_points(SurfacePoints(mesh.vertices, vertex_normals(mesh)), views, margin)


def seen_points(surface: SurfacePoints, views: Iterable[DepthView], margin: float) -> Bool[Tensor, " point"]:
    """Points that face a camera which measured a depth within `margin` metres of theirs.

    The test uses the depth along the optical axis, so that what lies behind a camera never counts.
    """
    seen = torch.zeros(len(surface.points), dtype=torch.bool)
    for view in views:
        rest = torch.nonzero(~seen)[:, 0]
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
        seen[rest[hit]] = True
    return seen


def near_cloud(mesh: Mesh, cloud: PointCloud, margin: float) -> Bool[Tensor, " vertex"]:
    """Vertices within `margin` of a point of the cloud whose normal does not point the other way."""
    from scipy.spatial import KDTree

    distance, index = KDTree(cloud.coord.numpy()).query(
        mesh.vertices.numpy(), distance_upper_bound=margin, workers=1
    )
    near = torch.from_numpy(np.isfinite(distance))
    partner = cloud.normal[torch.from_numpy(np.where(np.isfinite(distance), index, 0))]
    return near & ((partner * vertex_normals(mesh)).sum(-1) >= -0.2)


def cropped(mesh: Mesh, keep: Bool[Tensor, " vertex"]) -> Mesh:
    """Faces whose three vertices are all kept. SceneError: nothing is left."""
    left = mesh.with_faces(keep[mesh.faces].all(dim=-1))
    if len(left.faces) == 0:
        raise SceneError(
            f"none of the {len(mesh.faces)} faces lies where the scene was observed",
            fix="--set crop_to_observed=false to see the whole surface, or --refine 2000",
        )
    return left


def without_crumbs(mesh: Mesh, min_faces: int) -> Mesh:
    """Without connected pieces of fewer faces; the largest piece always stays."""
    if len(mesh.faces) == 0:
        return mesh
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faces = mesh.faces.numpy()
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    links = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(mesh.vertices),) * 2)
    piece = connected_components(links, directed=False)[1][faces[:, 0]]
    counts = np.bincount(piece)
    return mesh.with_faces(torch.from_numpy(counts[piece] >= min(min_faces, counts.max())))
