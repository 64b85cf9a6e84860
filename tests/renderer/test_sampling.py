"""Samplers against numpy loops, their distributions and known surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.renderer.config import (
    ErrorBoundedSamplerConfig,
    GuidedSamplerConfig,
    NeusSamplerConfig,
    RendererConfig,
    Spacing,
    UniformSamplerConfig,
)
from ponderv2.renderer.error_bounded import clearance, error_bounded_samples
from ponderv2.renderer.sampling import (
    Interval,
    draw_noise,
    even_edges,
    guided_samples,
    importance_edges,
    merge_edges,
    neus_samples,
    uniform_samples,
)

SPACINGS: tuple[Spacing, ...] = ("uniform", "linear_disparity", "sqrt", "log", "piecewise")


def _interval(n_rays: int) -> Interval:
    return Interval(torch.full((n_rays,), 0.2), torch.full((n_rays,), 3.0))


def _wall(starts: Tensor) -> Tensor:
    return 1.3 - starts


@pytest.mark.parametrize("spacing", SPACINGS)
def test_steps_are_even_in_the_named_quantity(spacing: Spacing) -> None:
    interval, samples = uniform_samples(
        UniformSamplerConfig(n_samples=8, spacing=spacing), _interval(1), None
    )
    ends = interval.distances(torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(ends, torch.tensor([[0.2, 3.0]]))
    t = torch.cat([samples.starts[0], (samples.starts + samples.steps)[0, -1:]]).numpy().astype(float)
    by_hand = {
        "uniform": t,
        "linear_disparity": 1 / t,
        "sqrt": np.sqrt(t),
        "log": np.log(t),
        "piecewise": np.where(t < 1, t / 2, 1 - 1 / (2 * t)),
    }
    steps = np.diff(by_hand[spacing])
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_rays_that_miss_have_finite_samples(spacing: Spacing) -> None:
    config = UniformSamplerConfig(n_samples=8, spacing=spacing)
    _, samples = uniform_samples(config, Interval(torch.zeros(2), torch.zeros(2)), None)
    assert samples.starts.isfinite().all() and samples.starts.abs().max() < 1e-6


def test_jittered_edges_stay_in_their_own_bins_and_fill_them(rng: torch.Generator) -> None:
    noise = torch.rand(4000, 9, generator=rng)
    edges = even_edges(8, 4000, noise, noise)
    assert (edges.diff(dim=-1) >= 0).all()
    inner = edges[:, 1:-1] * 8 - torch.arange(1, 8)
    assert float(inner.min()) >= -0.5 and float(inner.max()) <= 0.5
    torch.testing.assert_close(inner.mean(), torch.tensor(0.0), rtol=0, atol=0.01)
    torch.testing.assert_close(inner.var(), torch.tensor(1 / 12), rtol=0.03, atol=0)


def test_importance_edges_match_a_loop_over_numpy_interp(rng: torch.Generator) -> None:
    edges = torch.rand(6, 11, generator=rng, dtype=torch.float64).sort(-1).values
    weights = torch.rand(6, 10, generator=rng, dtype=torch.float64) + 0.01
    noise = torch.rand(6, 8, generator=rng, dtype=torch.float64)
    found = importance_edges(edges, weights, 7, noise)
    for ray in range(6):
        cumulative = np.concatenate([[0.0], np.cumsum(weights[ray].numpy())])
        cumulative /= cumulative[-1]
        at = (np.arange(8) + noise[ray].numpy()) / 8
        np.testing.assert_allclose(found[ray], np.interp(at, cumulative, edges[ray]), atol=1e-9)


def test_rays_without_weight_are_sampled_evenly() -> None:
    edges = torch.linspace(0, 1, 11)[None]
    found = importance_edges(edges, torch.zeros(1, 10), 4, None)
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.3, 0.5, 0.7, 0.9]]))


def test_merged_edges_are_sorted_and_end_with_the_last(rng: torch.Generator) -> None:
    first = torch.rand(3, 6, generator=rng).sort(-1).values
    second = torch.rand(3, 4, generator=rng).sort(-1).values
    edges, order = merge_edges(first, second)
    assert (edges.diff(dim=-1) >= 0).all() and edges.shape == (3, 9)
    values = torch.cat([first[:, :-1], second[:, :-1]], dim=-1).gather(-1, order)
    torch.testing.assert_close(edges[:, :-1], values)


@pytest.mark.parametrize("n_rounds", [1, 3])
def test_neus_samples_gather_at_the_surface(rng: torch.Generator, n_rounds: int) -> None:
    config = NeusSamplerConfig(initial=UniformSamplerConfig(n_samples=16), n_importance=12, n_rounds=n_rounds)
    noise = draw_noise(5, rng, RendererConfig(sampler=config))
    for random in (None, noise):
        samples = neus_samples(config, _interval(5), random, _wall)
        assert samples.starts.shape == (5, 28) and (samples.steps >= 0).all()
        assert (((samples.starts - 1.3).abs() < 0.2).sum(-1) >= 10).all()


def test_error_bounded_samples_gather_at_the_surface(rng: torch.Generator) -> None:
    config = ErrorBoundedSamplerConfig(n_samples=20, n_evaluated=32, n_extra=6)
    noise = draw_noise(4, rng, RendererConfig(sampler=config))
    for random in (None, noise):
        samples = error_bounded_samples(config, _interval(4), random, _wall, torch.tensor(0.01))
        assert samples.starts.shape == (4, 26) and (samples.steps >= 0).all()
        assert (((samples.starts - 1.3).abs() < 0.1).sum(-1) >= 10).all()
        missed = Interval(torch.zeros(4), torch.zeros(4))
        assert (
            error_bounded_samples(config, missed, random, _wall, torch.tensor(0.01)).starts.isfinite().all()
        )


def test_clearance_is_the_height_of_the_triangle_and_zero_at_a_crossing() -> None:
    steps = torch.tensor([[5.0, 1.0, 1.0, 1.0]])
    sdf = torch.tensor([[3.0, 4.0, 10.0, -1.0]])
    torch.testing.assert_close(clearance(sdf, steps), torch.tensor([[2.4, 4.0, 0.0, 0.0]]))


def test_guided_samples_surround_the_measurement(rng: torch.Generator) -> None:
    config = GuidedSamplerConfig(n_free=6, n_near=8, width=0.1)
    target = torch.tensor([1.5, -1.0, 0.25, 9.0])
    samples = guided_samples(config, _interval(4), target, torch.rand(4, 14, generator=rng))
    assert (samples.steps >= 0).all() and samples.starts.shape == (4, 14)
    assert float(samples.starts.min()) >= 0.2 and float((samples.starts + samples.steps).max()) <= 3.0 + 1e-5
    assert ((samples.starts[0, 6:] - 1.5).abs() <= 0.1).all() and (samples.starts[0, :6] <= 1.4).all()
    for ray in (1, 3):
        assert samples.starts[ray, -1] > 2.6
