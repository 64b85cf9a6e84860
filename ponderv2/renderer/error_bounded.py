"""VolSDF's sampler: samples are added until the error of the opacity estimate is bounded (algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.renderer.compositing import laplace_density, weights_from_density
from ponderv2.renderer.config import ErrorBoundedSamplerConfig
from ponderv2.renderer.sampling import (
    Interval,
    RayNoise,
    RaySamples,
    SdfAlongRays,
    even_edges,
    importance_edges,
    merge_edges,
)


@dataclass(frozen=True)
class _Line:
    """What is known along each ray so far."""

    sdf: Float[Tensor, "ray sample"]
    steps: Float[Tensor, "ray sample"]
    clearance: Float[Tensor, "ray sample"]
    """No surface is nearer than this within the step (theorem 1, d*)."""

    def error(self, beta: Float[Tensor, "ray 1"]) -> tuple[Float[Tensor, "ray sample"], Tensor]:
        """Bound of the opacity error at each sample, and the weights at this width."""
        weights, light = weights_from_density(laplace_density(self.sdf, beta), self.steps)
        per_step = torch.exp(-self.clearance / beta) * self.steps.square() / (4.0 * beta.square())
        bound = (torch.exp(per_step.cumsum(-1)).clamp(max=1e6) - 1.0) * light
        return bound, weights


def error_bounded_samples(
    config: ErrorBoundedSamplerConfig,
    interval: Interval,
    noise: RayNoise | None,
    sdf_at: SdfAlongRays,
    width: Float[Tensor, ""],
) -> RaySamples:
    """`n_samples` by importance and `n_extra` even ones, sorted; `width` is the learned VolSDF beta.

    The width at which the samples so far are trusted starts where the bound always holds (lemma 2) and is
    lowered by bisection; rounds end when all rays of the call reach the learned width.
    """
    noise = noise if config.stratified else None
    n_rays = len(interval.near)
    edges = even_edges(config.n_evaluated, n_rays, noise.uniform if noise else None, interval.near)
    starts, steps = _starts_and_steps(interval, edges)
    sdf = sdf_at(starts)
    beta = (steps.square().sum(-1) / (4.0 * math.log(1.0 + config.error))).sqrt()
    weights = torch.zeros_like(steps)
    for round_ in range(config.n_rounds):
        line = _Line(sdf, steps, clearance(sdf, steps))
        beta = _smallest_safe_width(line, width, beta, config)
        bound, weights = line.error(beta[:, None].clamp(min=1e-10))
        if round_ + 1 == config.n_rounds or not bool((beta > width).any()):
            break
        random = noise.importance[round_] if noise else None
        new = importance_edges(edges, bound, config.n_evaluated, random)
        new_sdf = sdf_at(interval.distances(new)[:, :-1])
        edges, order = merge_edges(edges, new)
        sdf = torch.cat([sdf, new_sdf], dim=-1).gather(-1, order)
        starts, steps = _starts_and_steps(interval, edges)
    new = importance_edges(edges, weights, config.n_samples, noise.importance[-1] if noise else None)
    merged = new
    if config.n_extra > 0:
        extra = even_edges(config.n_extra, n_rays, noise.extra if noise else None, interval.near)
        merged, _ = merge_edges(new, extra)
    starts, steps = _starts_and_steps(interval, merged)
    return RaySamples(merged, starts, steps, weights, interval.distances(new)[:, :-1])


def _starts_and_steps(interval: Interval, edges: Tensor) -> tuple[Tensor, Tensor]:
    distances = interval.distances(edges)
    return distances[:, :-1], distances[:, 1:] - distances[:, :-1]


def _smallest_safe_width(
    line: _Line, width: Tensor, beta: Tensor, config: ErrorBoundedSamplerConfig
) -> Float[Tensor, " ray"]:
    """Bisection between the learned width and the last safe one; the learned one where it is already safe."""
    smallest = width.expand_as(beta)
    safe = line.error(smallest[:, None])[0].amax(-1) <= config.error
    high = torch.where(safe, smallest, beta)
    low = smallest
    for _ in range(config.n_bisections):
        middle = (low + high) / 2.0
        safe = line.error(middle[:, None])[0].amax(-1) <= config.error
        high, low = torch.where(safe, middle, high), torch.where(safe, low, middle)
    return high


def clearance(
    sdf: Float[Tensor, "ray sample"], steps: Float[Tensor, "ray sample"]
) -> Float[Tensor, "ray sample"]:
    """A lower bound of the distance to the surface within each step, from the distances at its ends.

    The spheres of the two distances leave a gap: the height of the triangle over the step, or the smaller
    distance where the triangle is obtuse; 0 where the sign changes. The last step repeats the one before.
    """
    a, b, c = steps[:, :-1], sdf[:, :-1].abs(), sdf[:, 1:].abs()
    half = (a + b + c) / 2.0
    area = (half * (half - a) * (half - b) * (half - c)).clamp(min=0.0).sqrt()
    height = torch.where(b + c - a > 0, 2.0 * area / a.clamp(min=1e-20), 0.0)
    bound = torch.where(a.square() + b.square() <= c.square(), b, height)
    bound = torch.where(a.square() + c.square() <= b.square(), c, bound)
    bound = torch.where(sdf[:, 1:].sign() * sdf[:, :-1].sign() == 1, bound, 0.0)
    return F.pad(bound[:, None], (0, 1), mode="replicate")[:, 0]
