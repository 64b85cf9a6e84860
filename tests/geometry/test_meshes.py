"""Meshes against closed forms: a cube, a triangle, a tetrahedron."""

from __future__ import annotations

import pytest
import torch
import trimesh

from ponderv2.geometry.meshes import Mesh, merged, sample_surface, vertex_normals


def cube(size: float = 2.0) -> Mesh:
    """A cube around the origin, faces outward."""
    made = trimesh.creation.box((size, size, size))
    return Mesh(torch.tensor(made.vertices).float(), torch.tensor(made.faces).long())


def test_normals_of_an_icosphere_are_its_directions():
    ball = trimesh.creation.icosphere(subdivisions=3)
    mesh = Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
    assert (vertex_normals(mesh) * mesh.vertices).sum(-1).min() > 0.999


def test_normals_weigh_faces_by_area():
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))  # areas 2 (up) and 1 (along x)
    expected = torch.tensor([1.0, 0.0, 2.0]) / 5.0**0.5
    assert torch.allclose(vertex_normals(mesh)[0], expected)


def test_points_are_spread_by_area(rng):
    corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [3, 4, 5]]))  # areas 1.5 and 0.5
    found = sample_surface(mesh, 20000, rng)
    assert float((found.points[:, 2] < 0.5).float().mean()) == pytest.approx(0.75, abs=0.01)
    low = found.points[found.points[:, 2] < 0.5]
    assert torch.allclose(low.mean(dim=0), corners[:3].mean(dim=0), atol=0.03)
    assert torch.equal(found.normals, torch.tensor([0.0, 0.0, 1.0]).expand_as(found.normals))


def test_a_mesh_without_area_is_refused(rng):
    with pytest.raises(ValueError, match="without area"):
        sample_surface(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 10, rng)


def test_a_mirrored_mesh_still_faces_outward():
    mirror = torch.diag(torch.tensor([-2.0, 1.0, 1.0, 1.0]))
    moved = cube().moved(mirror)
    assert ((vertex_normals(moved) * moved.vertices).sum(-1) > 0).all()
    assert moved.vertices[:, 0].amax() == 2.0


def test_choosing_faces_keeps_their_vertices_and_colours():
    mesh = Mesh(cube().vertices, cube().faces, torch.rand(8, 3))
    keep = torch.zeros(12, dtype=torch.bool)
    keep[5] = True
    chosen = mesh.with_faces(keep)
    assert torch.equal(chosen.vertices[chosen.faces[0]], mesh.vertices[mesh.faces[5]])
    assert chosen.colors is not None and mesh.colors is not None
    assert torch.equal(chosen.colors[chosen.faces[0]], mesh.colors[mesh.faces[5]])


def test_merged_meshes_keep_their_triangles():
    both = merged([cube(1.0), cube(2.0)])
    assert torch.equal(both.vertices[both.faces[12:]], cube(2.0).vertices[cube(2.0).faces])
    assert len(merged([]).faces) == 0
