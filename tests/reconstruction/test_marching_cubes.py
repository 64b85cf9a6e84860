"""Marching cubes on a sphere whose signed distance is exact."""

from __future__ import annotations

import pytest
import torch
import trimesh

from ponderv2.errors import SceneError
from ponderv2.geometry.meshes import vertex_normals
from ponderv2.reconstruction.marching_cubes import Lattice, extract_surface

LATTICE = Lattice.covering(torch.tensor([-1.1, -1.0, -1.2]), torch.tensor([1.1, 1.3, 1.0]), 0.11)
RADIUS = 0.8


def sphere(points):
    return points.norm(dim=-1) - RADIUS


@pytest.fixture(scope="module")
def whole():
    return extract_surface(sphere, LATTICE, block=64)


def test_vertices_lie_on_the_sphere_and_normals_point_outward(whole):
    assert (whole.vertices.norm(dim=-1) - RADIUS).abs().max() < 0.11**2
    outward = whole.vertices / whole.vertices.norm(dim=-1, keepdim=True)
    assert (vertex_normals(whole) * outward).sum(-1).min() > 0.95


def test_the_surface_is_closed_and_has_the_volume_of_a_ball(whole):
    made = trimesh.Trimesh(whole.vertices.numpy(), whole.faces.numpy(), process=False)
    assert made.is_watertight
    assert made.volume == pytest.approx(4 / 3 * torch.pi * RADIUS**3, rel=0.02)


@pytest.mark.parametrize("block", [4, 7, 11])
def test_blocks_give_the_same_surface_as_the_whole(whole, block):
    parts = extract_surface(sphere, LATTICE, block=block)
    made = trimesh.Trimesh(parts.vertices.numpy(), parts.faces.numpy(), process=False)
    assert made.is_watertight
    assert parts.vertices.shape == whole.vertices.shape
    assert parts.faces.shape == whole.faces.shape
    middles = [mesh.vertices[mesh.faces].mean(dim=1) for mesh in (parts, whole)]
    assert torch.cdist(*middles, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1).max() < 1e-5


def test_an_empty_surface_names_the_range_of_distances():
    with pytest.raises(SceneError, match=r"from 0\.\d+ to") as caught:
        extract_surface(lambda points: points.norm(dim=-1) + 0.2, LATTICE)
    assert caught.value.fix is not None and "--refine" in caught.value.fix


def test_unknown_distances_leave_a_hole():
    def half(points):
        return torch.where(points[:, 0] > 0.3, torch.nan, sphere(points))

    found = extract_surface(half, LATTICE)
    assert found.vertices[:, 0].max() <= 0.3
    assert found.vertices[:, 0].max() > 0.3 - 0.11
    assert (found.vertices.norm(dim=-1) - RADIUS).abs().max() < 0.11**2


def test_blocks_that_hold_nothing_are_not_asked():
    asked = []

    def watched(points):
        asked.append(len(points))
        return sphere(points)

    extract_surface(watched, LATTICE, block=8, occupied=lambda lower, upper: bool(lower[0] < -0.5))
    everything = []
    extract_surface(lambda p: (everything.append(len(p)), sphere(p))[1], LATTICE, block=8)
    assert 0 < sum(asked) < sum(everything)
