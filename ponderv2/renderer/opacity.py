"""Signed distance -> opacity of a step along a ray: NeuS and VolSDF."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def neus_alpha(
    sdf: Float[Tensor, "ray sample"],
    slope: Float[Tensor, "ray sample"],
    step: Float[Tensor, "ray sample"],
    sharpness: Float[Tensor, ""],
) -> Float[Tensor, "ray sample"]:
    """Opacity 0..1 of a step with distance `sdf` in its middle and `slope` = d sdf / d t <= 0 along the ray.

    (before - after + 1e-5) / (before + 1e-5), before/after = logistic(sharpness * sdf) at the step's ends.
    Positive slopes (the ray leaves the surface) count as 0. NeuS, equation 13; constants as published.
    """
    half = -torch.relu(-slope) * step * 0.5
    before = torch.sigmoid((sdf - half) * sharpness)
    after = torch.sigmoid((sdf + half) * sharpness)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0.0, 1.0)


def neus_sharpness(variance: Float[Tensor, "1"]) -> Float[Tensor, ""]:
    """Slope of the logistic function, exp(10 variance), 1 / length."""
    return torch.exp(variance[0] * 10.0).clamp(1e-6, 1e6)


def importance_alpha(
    sdf: Float[Tensor, "ray sample"], step: Float[Tensor, "ray sample"], sharpness: float
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
    before = torch.sigmoid((middle - slope * step * 0.5) * sharpness)
    after = torch.sigmoid((middle + slope * step * 0.5) * sharpness)
    return (before - after + 1e-5) / (before + 1e-5)


def laplace_density(sdf: Float[Tensor, "*batch"], beta: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """Density 1 / length: Laplace distribution function of -sdf with width beta, over beta. VolSDF, eq. 2."""
    return (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() / beta)) / beta


def volsdf_width(beta: Float[Tensor, "1"], beta_min: Float[Tensor, "1"]) -> Float[Tensor, ""]:
    """Width of the density, |beta| + its smallest value."""
    return beta[0].abs() + beta_min[0]
