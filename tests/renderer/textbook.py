"""The renderer written straight from its equations: grid_sample, autograd for gradients, heads per sample.

Slow and memory-hungry on purpose: what the package is compared with, in tests and in the benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.decoder import Decoder
from ponderv2.renderer.renderer import Renderer


@dataclass(frozen=True)
class TextbookOutput:
    sdf: Tensor
    gradients: Tensor
    color: Tensor
    distance: Tensor
    normal: Tensor
    semantic: Tensor | None
    weights: Tensor


def decode(decoder: Decoder, feature: Tensor, point: Tensor, activation: nn.Module) -> Tensor:
    """x = fc_p(p) factor; x = lin_l(x + fc_c_l(f)); activation between."""
    x = decoder.fc_p(point) * decoder.points_factor
    for i, inject in enumerate(decoder.fc_c):
        x = decoder.get_submodule(f"lin{i}")(x + inject(feature))
        if i < decoder.n_layers - 1:
            x = activation(x)
    return x


def sample_volume(values: Tensor, unit: Tensor, scene: Tensor, align: bool) -> Tensor:
    found = []
    for i, grid in enumerate(values):
        points = (2 * unit[scene == i] - 1)[None, :, None, None]
        padding = "zeros" if align else "border"
        found.append(
            F.grid_sample(grid[None], points, align_corners=align, padding_mode=padding)[0, :, :, 0, 0].T
        )
    return torch.cat(found)


def render(
    renderer: Renderer, volume: FeatureVolume, rays: RayBundle, starts: Tensor, steps: Tensor
) -> TextbookOutput:
    """Render given samples. Rays must be ordered by scene."""
    field, config = renderer.field, renderer.config.field
    n_rays, n_samples = starts.shape
    points = (rays.origins[:, None] + rays.directions[:, None] * starts[..., None]).reshape(-1, 3)
    directions = rays.directions.repeat_interleave(n_samples, 0)
    scene = rays.scene.repeat_interleave(n_samples)
    edge = (volume.upper - volume.lower)[scene]
    unit = ((points - volume.lower[scene]) / edge).detach().requires_grad_()
    feature = sample_volume(volume.values, unit, scene, volume.corners_are_centres)
    half = field.n_features
    head = feature if config.share_volume else feature[:, half:]
    hidden = decode(field.sdf_decoder, feature[:, :half], unit, nn.Softplus(100))
    sdf = hidden[:, 0]
    (gradient,) = torch.autograd.grad(sdf.sum(), unit, create_graph=True)
    if not config.gradient_in_volume_units:
        gradient = gradient / edge
    common = torch.cat([*([gradient] if config.use_gradient else []), head, hidden[:, 1:]], dim=-1)
    color = torch.zeros_like(points)
    if field.rgb_decoder is not None:
        color = decode(field.rgb_decoder, torch.cat([common, directions], -1), unit, nn.ReLU()).sigmoid()
    semantic = None
    if field.semantic_decoder is not None:
        semantic = decode(field.semantic_decoder, common, unit, nn.ReLU())
    weights = _weights(renderer, sdf.view(n_rays, n_samples), gradient, directions, steps)

    def summed(values: Tensor) -> Tensor:
        return (weights[..., None] * values.view(n_rays, n_samples, -1)).sum(1)

    return TextbookOutput(
        sdf=sdf.view(n_rays, n_samples),
        gradients=gradient.view(n_rays, n_samples, 3),
        color=summed(color),
        distance=(weights * starts).sum(-1) / (weights.sum(-1) + 1e-10),
        normal=summed(F.normalize(gradient, dim=-1)),
        semantic=None if semantic is None else summed(semantic),
        weights=weights,
    )


def _weights(renderer: Renderer, sdf: Tensor, gradient: Tensor, directions: Tensor, steps: Tensor) -> Tensor:
    if renderer.config.opacity.kind == "volsdf":
        beta = renderer.field.laplace_density.beta.abs() + renderer.field.laplace_density.beta_min
        density = torch.where(
            sdf >= 0, 0.5 * torch.exp(-sdf.abs() / beta), 1 - 0.5 * torch.exp(-sdf.abs() / beta)
        )
        optical = density / beta * steps
        light = torch.exp(-(optical.cumsum(-1) - optical))
        return (1 - torch.exp(-optical)) * light
    slope = (gradient * directions).sum(-1).view_as(sdf).clamp(max=0.0)
    inv_s = torch.exp(10 * renderer.field.deviation_network.variance)
    before = torch.sigmoid((sdf - slope * steps / 2) * inv_s)
    after = torch.sigmoid((sdf + slope * steps / 2) * inv_s)
    alpha = ((before - after + 1e-5) / (before + 1e-5)).clamp(0, 1)
    light = torch.cat([torch.ones_like(alpha[:, :1]), torch.cumprod(1 - alpha + 1e-7, -1)[:, :-1]], -1)
    return alpha * light
