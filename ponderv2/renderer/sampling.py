"""Samples along rays: even, jittered, by importance, around a measured distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.renderer.compositing import importance_alpha, weights_from_alpha
from ponderv2.renderer.config import (
    ErrorBoundedSamplerConfig,
    GuidedSamplerConfig,
    NeusSamplerConfig,
    RendererConfig,
    Spacing,
    UniformSamplerConfig,
)

Distances = Float[Tensor, "ray sample"]
SdfAlongRays = Callable[[Tensor], Tensor]
"""Distances along the rays [ray, sample] -> signed distance there [ray, sample]."""


@dataclass(frozen=True)
class RayNoise:
    """Uniform random numbers in [0, 1) for one training pass; one column means one number per ray."""

    uniform: Float[Tensor, "ray edge"]
    """For the even samples, one per bin edge."""
    importance: tuple[Float[Tensor, "ray _"], ...] = ()
    """For each round of importance samples, one per bin edge."""
    extra: Float[Tensor, "ray _"] | None = None
    """For the even samples that the error-bounded sampler adds at the end."""
    guided: Float[Tensor, "ray _"] | None = None
    """For the samples around a measured distance, one per sample."""


def draw_noise(n_rays: int, generator: torch.Generator, config: RendererConfig) -> RayNoise:
    """The random numbers that one training pass over `n_rays` rays needs, from the generator's device."""

    def draw(columns: int, single: bool) -> Tensor:
        return torch.rand(n_rays, 1 if single else columns, generator=generator, device=generator.device)

    guided = None
    if config.guided is not None:
        guided = draw(config.guided.n_free + config.guided.n_near, False)
    match config.sampler:
        case UniformSamplerConfig() as even:
            return RayNoise(draw(even.n_samples + 1, even.single_jitter), guided=guided)
        case NeusSamplerConfig() as neus:
            single = neus.initial.single_jitter
            uniform = draw(neus.initial.n_samples + 1, single)
            edges = neus.n_importance // neus.n_rounds + 1
            return RayNoise(uniform, tuple(draw(edges, single) for _ in range(neus.n_rounds)), guided=guided)
        case ErrorBoundedSamplerConfig() as bounded:
            single = bounded.single_jitter
            uniform = draw(bounded.n_evaluated + 1, single)
            rounds = [draw(bounded.n_evaluated + 1, single) for _ in range(bounded.n_rounds - 1)]
            rounds.append(draw(bounded.n_samples + 1, single))
            return RayNoise(uniform, tuple(rounds), draw(bounded.n_extra + 1, single), guided)


def draw_noise_of_scenes(
    counts: Sequence[int], generators: Sequence[torch.Generator], config: RendererConfig, device: torch.device
) -> RayNoise:
    """The random numbers of consecutive rays of several scenes, each scene's from its own generator.

    They do not depend on which other scenes are in the batch.
    """
    parts = [draw_noise(n, generator, config) for n, generator in zip(counts, generators, strict=True)]

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        given = [value for value in values if value is not None]
        return torch.cat(given).to(device) if given else None

    uniform = joined([part.uniform for part in parts])
    rounds = [joined(values) for values in zip(*(part.importance for part in parts), strict=True)]
    assert uniform is not None
    return RayNoise(
        uniform,
        tuple(values for values in rounds if values is not None),
        joined([part.extra for part in parts]),
        joined([part.guided for part in parts]),
    )


@dataclass(frozen=True)
class Interval:
    """Where each ray may be sampled, and what even steps are even in."""

    near: Float[Tensor, " ray"]
    far: Float[Tensor, " ray"]
    spacing: Spacing = "uniform"

    def distances(self, fraction: Float[Tensor, "ray edge"]) -> Float[Tensor, "ray edge"]:
        """Distances along the ray at fractions 0..1 of the interval."""
        if self.spacing == "uniform":
            near, far = self.near[:, None], self.far[:, None]
            return fraction * far + (1.0 - fraction) * near
        near = _spaced(self.near, self.spacing)[:, None]
        far = _spaced(self.far, self.spacing)[:, None]
        return _unspaced(fraction * far + (1.0 - fraction) * near, self.spacing)


_TINY = 1e-10  # replaces the distance 0 of rays that miss, where 1/t and log t have no value


def _spaced(distance: Tensor, spacing: Spacing) -> Tensor:
    match spacing:
        case "uniform":
            return distance
        case "linear_disparity":
            return 1.0 / distance.clamp(min=_TINY)
        case "sqrt":
            return distance.clamp(min=0.0).sqrt()
        case "log":
            return distance.clamp(min=_TINY).log()
        case "piecewise":
            return torch.where(distance < 1.0, distance / 2.0, 1.0 - 1.0 / (2.0 * distance.clamp(min=_TINY)))


def _unspaced(value: Tensor, spacing: Spacing) -> Tensor:
    match spacing:
        case "uniform":
            return value
        case "linear_disparity":
            return 1.0 / value
        case "sqrt":
            return value.square()
        case "log":
            return value.exp()
        case "piecewise":
            return torch.where(value < 0.5, 2.0 * value, 1.0 / (2.0 - 2.0 * value))


@dataclass(frozen=True)
class RaySamples:
    """Consecutive intervals along each ray; the field is evaluated where each begins."""

    edges: Float[Tensor, "ray edge"]
    """Fractions 0..1 of the ray's interval, ascending; one more than there are samples."""
    starts: Float[Tensor, "ray sample"]
    """Distance from the ray's origin."""
    steps: Float[Tensor, "ray sample"]
    """Length of each interval, not negative."""
    coarse_weights: Float[Tensor, "ray coarse"] | None = None
    """Weights of the samples that placed the last importance samples."""
    new_starts: Float[Tensor, "ray new"] | None = None
    """Distances of the last importance samples, before they were sorted in."""


def _samples(interval: Interval, edges: Tensor) -> RaySamples:
    distances = interval.distances(edges)
    return RaySamples(edges, distances[:, :-1], distances[:, 1:] - distances[:, :-1])


def even_edges(
    n_samples: int, n_rays: int, noise: Float[Tensor, "ray _"] | None, like: Tensor
) -> Float[Tensor, "ray edge"]:
    """Edges of even bins in 0..1; with noise each is drawn between the midpoints to its neighbours."""
    edges = torch.linspace(0.0, 1.0, n_samples + 1, device=like.device, dtype=like.dtype)
    if noise is None:
        return edges.expand(n_rays, -1)
    middle = (edges[1:] + edges[:-1]) / 2.0
    upper = torch.cat([middle, edges[-1:]])
    lower = torch.cat([edges[:1], middle])
    return lower + (upper - lower) * noise.to(like)


def importance_edges(
    edges: Float[Tensor, "ray edge"],
    weights: Float[Tensor, "ray sample"],
    n_samples: int,
    noise: Float[Tensor, "ray _"] | None,
) -> Float[Tensor, "ray new"]:
    """`n_samples + 1` sorted edges distributed as the piecewise-constant density `weights` over the bins.

    Inverse of the cumulative distribution at stratified positions (bin middles without noise). Rays without
    any weight are sampled evenly.
    """
    n_edges = n_samples + 1
    total = weights.sum(dim=-1, keepdim=True)
    missing = torch.relu(1e-5 - total)
    density = (weights + missing / weights.shape[-1]) / (total + missing)
    cumulative = F.pad(density.cumsum(dim=-1).clamp(max=1.0), (1, 0))
    at = torch.linspace(0.0, 1.0 - 1.0 / n_edges, n_edges, device=edges.device, dtype=edges.dtype)
    at = at + (0.5 if noise is None else noise.to(edges)) / n_edges
    at = at.expand(len(edges), n_edges).contiguous()
    above = torch.searchsorted(cumulative, at, right=True)
    below = (above - 1).clamp(0, edges.shape[-1] - 1)
    above = above.clamp(0, edges.shape[-1] - 1)
    start, width = edges.gather(-1, below), edges.gather(-1, above) - edges.gather(-1, below)
    at_start, mass = cumulative.gather(-1, below), cumulative.gather(-1, above) - cumulative.gather(-1, below)
    part = ((at - at_start) / torch.where(mass < 1e-5, 1.0, mass)).clamp(0.0, 1.0)
    return (start + part * width).detach()


def merge_edges(
    first: Float[Tensor, "ray edge"], second: Float[Tensor, "ray new"]
) -> tuple[Float[Tensor, "ray merged"], Tensor]:
    """The bins that begin where either set's bins begin; and the order that sorts values of both likewise."""
    last = torch.maximum(first[:, -1:], second[:, -1:])
    starts, order = torch.sort(torch.cat([first[:, :-1], second[:, :-1]], dim=-1), dim=-1)
    return torch.cat([starts, last], dim=-1), order


def uniform_samples(
    config: UniformSamplerConfig, interval: Interval, noise: RayNoise | None
) -> tuple[Interval, RaySamples]:
    """Even samples, and the interval with their spacing."""
    interval = Interval(interval.near, interval.far, config.spacing)
    random = noise.uniform if noise is not None and config.stratified else None
    return interval, _samples(
        interval, even_edges(config.n_samples, len(interval.near), random, interval.near)
    )


def neus_samples(
    config: NeusSamplerConfig, interval: Interval, noise: RayNoise | None, sdf_at: SdfAlongRays
) -> RaySamples:
    """Even samples and importance samples, sorted together."""
    interval, samples = uniform_samples(config.initial, interval, noise)
    random = noise if noise is not None and config.initial.stratified else None
    sdf = sdf_at(samples.starts)
    n_new = config.n_importance // config.n_rounds
    for step in range(config.n_rounds):
        weights = weights_from_alpha(importance_alpha(sdf, samples.steps, config.base_inv_s * 2**step))
        weights = F.pad(weights, (0, 1))
        new = importance_edges(samples.edges, weights, n_new, random.importance[step] if random else None)
        new_starts = interval.distances(new)[:, :-1]
        edges, order = merge_edges(samples.edges, new)
        if step + 1 < config.n_rounds:
            sdf = torch.cat([sdf, sdf_at(new_starts)], dim=-1).gather(-1, order)
        merged = _samples(interval, edges)
        samples = RaySamples(edges, merged.starts, merged.steps, weights, new_starts)
    return samples


def guided_samples(
    config: GuidedSamplerConfig,
    interval: Interval,
    target_distance: Float[Tensor, " ray"],
    noise: Float[Tensor, "ray sample"],
) -> RaySamples:
    """Stratified samples up to the surface and, more densely, around it.

    Rays without a target (distance <= 0) or with one outside their interval are sampled evenly throughout.
    """
    near, far = interval.near[:, None], interval.far[:, None]
    target = target_distance[:, None].to(near)
    known = (target > near) & (target < far)
    split = torch.where(known, (target - config.width).clamp(min=near), near + (far - near) * 0.5)
    end = torch.where(known, (target + config.width).clamp(max=far), far)
    n_free, n_near = config.n_free, config.n_near
    position = torch.arange(n_free + n_near, device=near.device) + noise.to(near)
    free = near + (split - near) * (position[:, :n_free] / n_free)
    close = split + (end - split) * ((position[:, n_free:] - n_free) / n_near)
    starts = torch.cat([free, close], dim=-1)
    distances = torch.cat([starts, torch.maximum(end, starts[:, -1:])], dim=-1)
    span = (far - near).clamp(min=1e-10)
    return RaySamples((distances - near) / span, starts, distances[:, 1:] - distances[:, :-1])
