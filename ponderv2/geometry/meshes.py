"""Triangle meshes: normals, areas, points on the surface. Faces are counter-clockwise seen from outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Mesh:
    """Triangles in one frame, usually the scene's: metres, right-handed, z up."""

    vertices: Float[Tensor, "vertex 3"]
    faces: Int[Tensor, "face 3"]
    colors: Float[Tensor, "vertex 3"] | None = None
    """0..1."""

    @staticmethod
    def of_arrays(
        vertices: Float[ndarray, "vertex 3"],
        faces: Integer[ndarray, "face 3"],
        colors: UInt8[ndarray, "vertex 3"] | None = None,
    ) -> Mesh:
        """The mesh of NumPy arrays, colours 0..255; positions keep their precision."""
        return Mesh(
            torch.from_numpy(np.ascontiguousarray(vertices)),
            torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int64)),
            None if colors is None else torch.from_numpy(colors.astype(np.float32) / 255.0),
        )

    def color_bytes(self) -> UInt8[ndarray, "vertex 3"] | None:
        """Colours 0..255, as files have them; None where there are none."""
        return None if self.colors is None else np.rint(self.colors.numpy() * 255.0).astype(np.uint8)

    def moved(self, transform: Float[Tensor, "4 4"]) -> Mesh:
        """The mesh after x' = transform x. A mirroring turns faces over, so that outside stays outside."""
        matrix = transform.double()
        vertices = self.vertices.double() @ matrix[:3, :3].T + matrix[:3, 3]
        faces = self.faces.flip(-1) if torch.linalg.det(matrix[:3, :3]) < 0 else self.faces
        return replace(self, vertices=vertices.to(self.vertices.dtype), faces=faces)

    def with_faces(self, keep: Bool[Tensor, " face"]) -> Mesh:
        """Only the chosen faces, and only the vertices that they use."""
        faces = self.faces[keep]
        used = torch.zeros(len(self.vertices), dtype=torch.bool, device=faces.device)
        used[faces.reshape(-1)] = True
        new_index = torch.cumsum(used, 0) - 1
        colors = None if self.colors is None else self.colors[used]
        return Mesh(self.vertices[used], new_index[faces], colors)


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a surface and where it faces."""

    points: Float[Tensor, "point 3"]
    normals: Float[Tensor, "point 3"]
    """Unit length, outward."""

    def part(self, keep: Bool[Tensor, " point"]) -> SurfacePoints:
        """Some of the points."""
        return SurfacePoints(self.points[keep], self.normals[keep])


def face_cross_products(mesh: Mesh) -> Float[Tensor, "face 3"]:
    """Outward vectors of twice each face's area."""
    first, second, third = mesh.vertices[mesh.faces].unbind(dim=1)
    return torch.linalg.cross(second - first, third - first)


def vertex_normals(mesh: Mesh) -> Float[Tensor, "vertex 3"]:
    """Mean normal of the faces around each vertex, weighted by area; zero for vertices without a face."""
    cross = face_cross_products(mesh)
    total = torch.zeros_like(mesh.vertices)
    for corner in range(3):
        total.index_add_(0, mesh.faces[:, corner], cross)
    return F.normalize(total, dim=-1, eps=1e-20)


def sample_surface(mesh: Mesh, n_points: int, generator: torch.Generator) -> SurfacePoints:
    """Points spread evenly over the area, with the normals of their faces. ValueError: no area."""
    cross = face_cross_products(mesh).double()
    ends = torch.cumsum(cross.norm(dim=-1), 0)
    if len(ends) == 0 or ends[-1] <= 0:
        raise ValueError("a mesh without area has no points to sample")
    drawn = torch.rand(n_points, 3, generator=generator, dtype=torch.float64)
    face = torch.searchsorted(ends, drawn[:, 0] * ends[-1]).clamp(max=len(ends) - 1)
    side = drawn[:, 1].sqrt()  # a uniform point of a triangle: Osada et al. 2002, section 4.2
    weights = torch.stack([1.0 - side, side * (1.0 - drawn[:, 2]), side * drawn[:, 2]], dim=-1)
    points = (weights[:, :, None] * mesh.vertices.double()[mesh.faces[face]]).sum(dim=1)
    dtype = mesh.vertices.dtype
    return SurfacePoints(points.to(dtype), F.normalize(cross[face], dim=-1).to(dtype))


def merged(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one; colours are kept when all of them have colours."""
    if not meshes:
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    starts = torch.tensor([0, *(len(mesh.vertices) for mesh in meshes)]).cumsum(0)
    faces = torch.cat([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)])
    colors = [mesh.colors for mesh in meshes if mesh.colors is not None]
    return Mesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        faces,
        torch.cat(colors) if len(colors) == len(meshes) else None,
    )
