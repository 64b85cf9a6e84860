"""Signed distance -> opacity of a step along a ray (NeuS, VolSDF) -> weights -> one value per ray."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def neus_alpha(
    sdf: Float[Tensor, "ray sample"],
    slope: Float[Tensor, "ray sample"],
    step: Float[Tensor, "ray sample"],
    inv_s: Float[Tensor, ""],
) -> Float[Tensor, "ray sample"]:
    """Opacity 0..1 of a step with distance `sdf` in its middle and `slope` = d sdf / d t <= 0 along the ray.

    (before - after + 1e-5) / (before + 1e-5), before/after = logistic(inv_s * sdf) at the step's ends.
    Positive slopes (the ray leaves the surface) count as 0. NeuS, equation 13; constants as published.
    """
    half = -torch.relu(-slope) * step * 0.5
    before = torch.sigmoid((sdf - half) * inv_s)
    after = torch.sigmoid((sdf + half) * inv_s)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0.0, 1.0)


def neus_inv_s(variance: Float[Tensor, "1"]) -> Float[Tensor, ""]:
    """Slope of the logistic function, exp(10 variance), 1 / length."""
    return torch.exp(variance[0] * 10.0).clamp(1e-6, 1e6)


def importance_alpha(
    sdf: Float[Tensor, "ray sample"], step: Float[Tensor, "ray sample"], inv_s: float
) -> Float[Tensor, "ray interval"]:
    """Opacity between neighbouring samples from their distances alone, for placing samples (not clipped).

    The slope is the smaller of this interval's and the previous one's, which is robust where the ray passes
    two surfaces within an interval.
    """
    step = step[:, :-1]
    slope = (sdf[:, 1:] - sdf[:, :-1]) / (step + 1e-5)
    previous = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=-1)
    slope = torch.minimum(slope, previous).clamp(-1e3, 0.0)
    middle = (sdf[:, 1:] + sdf[:, :-1]) * 0.5
    before = torch.sigmoid((middle - slope * step * 0.5) * inv_s)
    after = torch.sigmoid((middle + slope * step * 0.5) * inv_s)
    return (before - after + 1e-5) / (before + 1e-5)


def laplace_density(sdf: Float[Tensor, "*batch"], beta: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """Density 1 / length: Laplace distribution function of -sdf with width beta, over beta. VolSDF, eq. 2."""
    return (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() / beta)) / beta


def volsdf_width(beta: Float[Tensor, "1"], beta_min: Float[Tensor, "1"]) -> Float[Tensor, ""]:
    """Width of the density, |beta| + its smallest value."""
    return beta[0].abs() + beta_min[0]


def weights_from_alpha(alpha: Float[Tensor, "ray sample"]) -> Float[Tensor, "ray sample"]:
    """w_i = alpha_i prod_{j<i} (1 - alpha_j + 1e-7), NeuS equation 11; the constant is published."""
    light_after = torch.cumprod(1.0 - alpha + 1e-7, dim=-1)
    light_before = torch.cat([torch.ones_like(alpha[:, :1]), light_after[:, :-1]], dim=-1)
    return alpha * light_before


def weights_from_density(
    density: Float[Tensor, "ray sample"], step: Float[Tensor, "ray sample"]
) -> tuple[Float[Tensor, "ray sample"], Float[Tensor, "ray sample"]]:
    """Beer and Lambert: w_i = (1 - exp(-sigma_i step_i)) T_i; returns w and the light T before each step."""
    thickness = density * step
    before = torch.cumsum(thickness[:, :-1], dim=-1)
    light = torch.exp(-torch.cat([torch.zeros_like(thickness[:, :1]), before], dim=-1))
    return -torch.expm1(-thickness) * light, light


def composite(
    weights: Float[Tensor, "ray sample"], values: Float[Tensor, "ray sample channel"]
) -> Float[Tensor, "ray channel"]:
    """Weighted sum along each ray, not divided by the sum of the weights."""
    return torch.bmm(weights[:, None, :], values)[:, 0]


def mean_distance(
    weights: Float[Tensor, "ray sample"],
    starts: Float[Tensor, "ray sample"],
    scene: Int[Tensor, " ray"] | None = None,
) -> Float[Tensor, " ray"]:
    """Weighted mean of the samples' distances, clipped to those of the ray.

    With `scene`: clipped to the distances of all rays of its scene.
    """
    distance = (weights * starts).sum(-1) / (weights.sum(-1) + 1e-10)
    nearest, farthest = starts.detach().amin(-1), starts.detach().amax(-1)
    if scene is not None and len(scene) > 0:
        empty = nearest.new_zeros(int(scene.max()) + 1)
        nearest = empty.scatter_reduce(0, scene, nearest, "amin", include_self=False)[scene]
        farthest = empty.scatter_reduce(0, scene, farthest, "amax", include_self=False)[scene]
    return torch.minimum(torch.maximum(distance, nearest), farthest)
