"""Opacity along rays -> weights -> one value per ray."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
