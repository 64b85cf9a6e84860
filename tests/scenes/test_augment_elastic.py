"""Elastic distortion against a slow loop and closed forms."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ponderv2.scenes.elastic import elastic_distortion, noise_shape, smooth_noise


def blurred_by_loop(noise: Tensor) -> Tensor:
    """Mean of three neighbours, zeros outside, x then y then z, twice."""
    value = noise.double()
    for _ in range(2):
        for axis in (1, 2, 3):
            result = torch.zeros_like(value)
            for index in itertools.product(*(range(n) for n in value.shape)):
                for away in (-1, 0, 1):
                    other = list(index)
                    other[axis] += away
                    if 0 <= other[axis] < value.shape[axis]:
                        result[index] += value[tuple(other)] / 3.0
            value = result
    return value


def looked_up_by_loop(coord: Tensor, grid: Tensor, cell: float) -> Tensor:
    """Linear in x, y and z between nodes at lowest - cell + i cell."""
    start = coord.double().amin(dim=0) - cell
    result = torch.zeros(len(coord), 3, dtype=torch.float64)
    for n, point in enumerate(coord.double()):
        position = (point - start) / cell
        low = position.floor().long()
        for corner in itertools.product((0, 1), repeat=3):
            node = low + torch.tensor(corner)
            if any(not 0 <= int(node[a]) < grid.shape[a + 1] for a in range(3)):
                continue
            weight = 1.0
            for a in range(3):
                part = float(position[a] - low[a])
                weight *= part if corner[a] else 1.0 - part
            result[n] += weight * grid[:, node[0], node[1], node[2]]
    return result


def test_smoothing_matches_the_loop(rng: torch.Generator) -> None:
    noise = torch.randn(3, 4, 5, 3, generator=rng)
    torch.testing.assert_close(smooth_noise(noise).double(), blurred_by_loop(noise), atol=1e-6, rtol=1e-5)


def test_distortion_matches_the_loop(rng: torch.Generator) -> None:
    coord = torch.rand(25, 3, generator=rng) * torch.tensor([1.3, 0.9, 0.5]) - 0.4
    cell, magnitude = 0.3, 0.7
    noise = torch.randn((3, *noise_shape(coord, cell)), generator=rng)
    moved = elastic_distortion(coord, noise, cell, magnitude)
    expected = coord + magnitude * looked_up_by_loop(coord, blurred_by_loop(noise), cell)
    torch.testing.assert_close(moved.double(), expected, atol=1e-5, rtol=0)


def test_noise_grid_reaches_beyond_every_point(rng: torch.Generator) -> None:
    """extent // cell + 3 nodes, the first one cell before the lowest point."""
    coord = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.59, 0.61]])
    assert noise_shape(coord, 0.2) == (7, 5, 6) or noise_shape(coord, 0.2) == (8, 5, 6)
    assert noise_shape(coord, 0.8) == (4, 3, 3)


def test_shape_stays_smooth(rng: torch.Generator) -> None:
    """Neighbours move together: far less against each other than as such."""
    start = torch.rand(200, 3, generator=rng) * 3.0
    coord = torch.cat([start, start + 0.01])
    noise = torch.randn((3, *noise_shape(coord, 0.8)), generator=rng)
    moved = elastic_distortion(coord, noise, 0.8, 1.6) - coord
    against = (moved[:200] - moved[200:]).norm(dim=1).mean()
    assert float(against) < 0.05 * float(moved.norm(dim=1).mean())


def test_no_noise_moves_nothing() -> None:
    coord = torch.rand(10, 3)
    still = elastic_distortion(coord, torch.zeros(3, *noise_shape(coord, 0.2)), 0.2, 0.4)
    assert torch.equal(still, coord)


def test_single_point_is_accepted(rng: torch.Generator) -> None:
    coord = torch.tensor([[1.0, 2.0, 3.0]])
    noise = torch.randn((3, *noise_shape(coord, 0.2)), generator=rng)
    assert noise.shape == (3, 3, 3, 3)
    moved = elastic_distortion(coord, noise, 0.2, 0.4)
    # The only point lies on the middle node.
    torch.testing.assert_close(moved[0], coord[0] + 0.4 * smooth_noise(noise)[:, 1, 1, 1])
