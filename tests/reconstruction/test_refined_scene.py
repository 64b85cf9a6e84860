"""Sparse lattices against dense interpolation and finite differences."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator

from ponderv2.reconstruction.refined_scene import (
    dense_lattice,
    lattice_around,
)

LOWER, UPPER = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([1.0, 1.5, 3.0])


def test_a_full_lattice_matches_scipy(rng):
    grid = dense_lattice(LOWER, UPPER, 0.3)
    table = torch.rand(grid.n_rows, 2, generator=rng)
    points = LOWER + (UPPER - LOWER) * torch.rand(200, 3, generator=rng)
    axes = [LOWER[axis].item() + 0.3 * np.arange(grid.size[axis]) for axis in range(3)]
    values = table.reshape(grid.size[2], grid.size[1], grid.size[0], 2).permute(2, 1, 0, 3).numpy()
    truth = RegularGridInterpolator(axes, values)(points.numpy())
    assert np.allclose(grid.corners(points).interpolate(table).numpy(), truth, atol=1e-5)
    assert np.allclose(grid.corners(points).interpolate_scalar(table[:, 0]).numpy(), truth[:, 0], atol=1e-5)


def test_the_slope_matches_finite_differences(rng):
    grid = dense_lattice(LOWER, UPPER, 0.3)
    table = torch.rand(grid.n_rows, generator=rng)
    points = grid.lower + 0.3 * (1 + 0.2 + 0.6 * torch.rand(50, 3, generator=rng))
    found = grid.corners(points).slope(table)
    for axis in range(3):
        step = torch.zeros(3)
        step[axis] = 1e-2
        ahead, back = (grid.corners(points + sign * step).interpolate_scalar(table) for sign in (1, -1))
        assert torch.allclose(found[:, axis], (ahead - back) / 2e-2, atol=1e-3)


def test_values_of_linear_functions_are_exact_near_the_points(rng):
    points = LOWER + (UPPER - LOWER) * torch.rand(30, 3, generator=rng)
    grid = lattice_around(points, LOWER, UPPER, 0.05, 0)
    assert grid.n_rows < 30 * 8 + 1
    table = grid.points() @ torch.tensor([1.0, -2.0, 0.5])
    assert torch.allclose(
        grid.corners(points).interpolate_scalar(table), points @ torch.tensor([1.0, -2.0, 0.5]), atol=1e-5
    )


def test_rings_reach_as_far_as_they_say():
    grid = lattice_around(torch.tensor([[0.02, 1.02, 2.52]]), LOWER, UPPER, 0.1, 2)
    assert grid.n_rows == 6**3
    points = torch.tensor([[0.02, 1.02, 2.52], [0.25, 1.02, 2.52], [0.45, 1.02, 2.52]])
    for found in (
        grid.corners(points).interpolate(torch.ones(216, 1))[:, 0],
        grid.corners(points).interpolate_scalar(torch.ones(216)),
    ):
        assert torch.allclose(found, torch.tensor([1.0, 1.0, 0.0]))
