"""Surface metrics of squares and spheres whose distances are known."""

from __future__ import annotations

import pytest
import torch
import trimesh

from ponderv2.evaluation.surfaces import compare_meshes, compare_surfaces
from ponderv2.geometry.meshes import Mesh, SurfacePoints


def square(height: float, size: float = 1.0) -> Mesh:
    corners = torch.tensor([[0.0, 0, height], [size, 0, height], [size, 1, height], [0, 1, height]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_parallel_squares_are_their_distance_apart(rng):
    found = compare_meshes(square(0.03), square(0.0), rng, threshold=0.05, n_points=40000)
    assert found.accuracy == pytest.approx(0.03, abs=1e-3)
    assert found.completeness == pytest.approx(0.03, abs=1e-3)
    assert found.chamfer == pytest.approx(0.03, abs=1e-3)
    assert (found.precision, found.recall, found.f_score) == (1.0, 1.0, 1.0)
    assert found.normal_consistency == pytest.approx(1.0, abs=1e-6)


def test_half_a_square_has_full_precision_and_half_the_recall(rng):
    found = compare_meshes(square(0.0, 0.5), square(0.0), rng, threshold=0.05, n_points=40000)
    recall = 0.55  # half the square, and the strip within the threshold of its edge
    assert found.precision == 1.0
    assert found.recall == pytest.approx(recall, abs=0.01)
    assert found.f_score == pytest.approx(2 * recall / (1 + recall), abs=0.01)


def test_surfaces_beyond_the_threshold_score_nothing(rng):
    found = compare_meshes(square(0.06), square(0.0), rng, threshold=0.05, n_points=2000)
    assert (found.precision, found.recall, found.f_score) == (0.0, 0.0, 0.0)


def test_concentric_spheres_differ_by_their_radii(rng):
    def ball(radius: float) -> Mesh:
        made = trimesh.creation.icosphere(subdivisions=5, radius=radius)
        return Mesh(torch.tensor(made.vertices).float(), torch.tensor(made.faces).long())

    found = compare_meshes(ball(1.04), ball(1.0), rng, n_points=40000)
    assert found.accuracy == pytest.approx(0.04, abs=2e-3)
    assert found.f_score > 0.999
    assert found.normal_consistency > 0.999


def test_distances_match_the_full_matrix(rng):
    first = SurfacePoints(torch.rand(50, 3, generator=rng), torch.randn(50, 3, generator=rng))
    second = SurfacePoints(torch.rand(60, 3, generator=rng), torch.randn(60, 3, generator=rng))
    matrix = torch.cdist(first.points.double(), second.points.double())
    found = compare_surfaces(first, second, 0.1)
    assert found.accuracy == pytest.approx(float(matrix.amin(dim=1).mean()), abs=1e-6)
    assert found.recall == pytest.approx(float((matrix.amin(dim=0) < 0.1).double().mean()))
