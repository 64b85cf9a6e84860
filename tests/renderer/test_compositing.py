"""Weights and opacities against loops, Beer-Lambert and published formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from ponderv2.renderer.compositing import (
    composite,
    laplace_density,
    mean_distance,
    neus_alpha,
    weights_from_alpha,
    weights_from_density,
)


def test_weights_match_the_loop(rng: torch.Generator) -> None:
    alpha = torch.rand(4, 9, generator=rng, dtype=torch.float64)
    expected = torch.zeros_like(alpha)
    for ray in range(4):
        light = 1.0
        for sample in range(9):
            expected[ray, sample] = alpha[ray, sample] * light
            light *= 1.0 - float(alpha[ray, sample]) + 1e-7
    torch.testing.assert_close(weights_from_alpha(alpha), expected)


@pytest.mark.parametrize("density", [0.0, 0.5, 7.0])
def test_uniform_fog_absorbs_as_beer_lambert_says(density: float) -> None:
    step = torch.full((1, 50), 0.02)
    weights, light = weights_from_density(torch.full((1, 50), density), step)
    assert float(weights.sum()) == pytest.approx(1 - math.exp(-density), abs=1e-6)
    assert float(light[0, -1]) == pytest.approx(math.exp(-density * 0.98), rel=1e-5)


def test_neus_puts_the_surface_where_the_distance_is_zero() -> None:
    starts = torch.linspace(0, 1, 401)[None, :-1]
    slope = torch.full_like(starts, -0.5)
    sdf = 0.5 * (0.6 - starts)
    alpha = neus_alpha(sdf, slope, torch.full_like(starts, 1 / 400), torch.tensor(500.0))
    assert float(mean_distance(weights_from_alpha(alpha), starts)) == pytest.approx(0.6, abs=4e-3)


def test_laplace_density_is_a_distribution_function_over_beta() -> None:
    beta = torch.tensor(0.1)
    sdf = torch.tensor([-10.0, 0.0, 10.0, 0.1])
    expected = torch.tensor([10.0, 5.0, 0.0, 5.0 * math.exp(-1)])
    torch.testing.assert_close(laplace_density(sdf, beta), expected)


def test_gradients_stay_finite_when_a_ray_is_fully_blocked() -> None:
    alpha = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    starts = torch.arange(4.0)[None].expand(2, -1)
    weights = weights_from_alpha(alpha)
    (mean_distance(weights, starts).sum() + composite(weights, starts[..., None]).sum()).backward()
    assert alpha.grad is not None and alpha.grad.isfinite().all()


def test_distance_is_clipped_to_the_ray_or_to_its_scene() -> None:
    weights, starts = torch.zeros(3, 2), torch.tensor([[1.0, 2.0], [0.5, 3.0], [4.0, 5.0]])
    assert mean_distance(weights, starts).tolist() == [1.0, 0.5, 4.0]
    assert mean_distance(weights, starts, torch.tensor([0, 0, 1])).tolist() == [0.5, 0.5, 4.0]
