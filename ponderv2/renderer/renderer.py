"""Feature volume and rays -> colour, distance, normal and semantics per ray."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle, intersect_box
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.out_of_memory import in_chunks
from ponderv2.renderer.baked_field import ViewedField, blocks, look_along, look_at
from ponderv2.renderer.compositing import (
    composite,
    laplace_density,
    mean_distance,
    neus_alpha,
    neus_inv_s,
    volsdf_width,
    weights_from_alpha,
    weights_from_density,
)
from ponderv2.renderer.config import (
    BoxLimitsConfig,
    ErrorBoundedSamplerConfig,
    FixedLimitsConfig,
    NeusConfig,
    NeusSamplerConfig,
    RendererConfig,
    SamplerConfig,
    UniformSamplerConfig,
    VolsdfConfig,
    VolumeLimitsConfig,
)
from ponderv2.renderer.error_bounded import error_bounded_samples
from ponderv2.renderer.field import FieldVolume, SdfField
from ponderv2.renderer.sampling import (
    Interval,
    RayNoise,
    RaySamples,
    guided_samples,
    neus_samples,
    uniform_samples,
)


@dataclass(frozen=True)
class RenderedRays:
    """One value of each kind per ray; the light that passes everything is black and has no distance."""

    color: Float[Tensor, "ray 3"]
    """0..1 in evaluation. Zero where the field has no colour."""
    distance: Float[Tensor, " ray"]
    """Along the ray."""
    normal: Float[Tensor, "ray 3"]
    """Weighted sum of unit gradients: as long as the ray is sure of it."""
    semantic: Float[Tensor, "ray channel"] | None
    opacity: Float[Tensor, " ray"]
    """Sum of the weights."""


@dataclass(frozen=True)
class RenderOutput(RenderedRays):
    """What losses and tests need beside the pictures."""

    weights: Float[Tensor, "ray sample"]
    sdf: Float[Tensor, "ray sample"]
    gradients: Float[Tensor, "ray sample 3"]
    starts: Float[Tensor, "ray sample"]
    """Distance of each sample along the ray."""
    near: Float[Tensor, " ray"]
    far: Float[Tensor, " ray"]
    samples: RaySamples
    sample_color: Float[Tensor, "ray sample 3"] | None


@dataclass(frozen=True)
class _Lit:
    """What is composited along rays."""

    weights: Float[Tensor, "ray sample"]
    gradients: Float[Tensor, "ray sample 3"]
    color: Float[Tensor, "ray sample 3"] | None
    semantic_input: tuple[Float[Tensor, "ray _"], ...] | None
    """Composited already."""
    feature_mix: Float[Tensor, "width read"] | None = None
    """That of the samples."""


class Renderer(nn.Module):
    """Renders rays of all scenes of a batch as one flat set. Always in the precision of its parameters."""

    def __init__(self, config: RendererConfig, n_channels: int, n_semantic: int = 0) -> None:
        super().__init__()
        self.config = config
        self.n_semantic = n_semantic
        self.field = SdfField(config.field, n_channels, n_semantic)
        uses_density = isinstance(config.opacity, VolsdfConfig)
        self.field.laplace_density.beta.requires_grad_(uses_density)
        self.field.deviation_network.variance.requires_grad_(not uses_density)

    def forward(
        self,
        volume: FeatureVolume,
        rays: RayBundle,
        noise: RayNoise | None = None,
        target_distance: Float[Tensor, " ray"] | None = None,
    ) -> RenderOutput:
        """Render. `noise` None means evaluation: no randomness, colours clamped to 0..1.

        `target_distance` (<= 0 where unknown) is used in training when the settings ask for guided samples.
        """
        with torch.autocast(volume.values.device.type, enabled=False):
            prepared = self._prepare(volume)
            return self._render(prepared, rays, noise, target_distance)

    def _prepare(self, volume: FeatureVolume) -> FieldVolume:
        dtype = self.field.laplace_density.beta.dtype
        return self.field.prepare(replace(volume, values=volume.values.to(dtype)))

    def _render(
        self,
        prepared: FieldVolume,
        rays: RayBundle,
        noise: RayNoise | None,
        target_distance: Tensor | None = None,
    ) -> RenderOutput:
        near, far = self._limits(prepared.volume, rays)
        with torch.no_grad():
            samples = self._sample(prepared, rays, Interval(near, far), noise, target_distance)
        n_rays, n_samples = samples.starts.shape
        points = rays.origins[:, None] + rays.directions[:, None] * samples.starts[..., None]
        directions = rays.directions[:, None].expand_as(points)
        scene = rays.scene[:, None].expand(-1, n_samples).reshape(-1)
        found = self.field(prepared, points.reshape(-1, 3), scene, directions.reshape(-1, 3))
        sdf = found.sdf.view(n_rays, n_samples)
        gradients = found.gradient.view(n_rays, n_samples, 3)
        weights = self._weights(sdf, gradients, rays, samples)
        color = None if found.color is None else found.color.view(n_rays, n_samples, 3)
        mixed = None
        if found.semantic_input is not None:
            shape = (n_rays, n_samples)
            mixed = tuple(composite(weights, part.unflatten(0, shape)) for part in found.semantic_input)
        lit = _Lit(weights, gradients, color, mixed, found.feature_mix)
        pictures = self._pictures(lit, samples, rays, noise is None)
        return RenderOutput(
            **{field.name: getattr(pictures, field.name) for field in fields(pictures)},
            weights=weights,
            sdf=sdf,
            gradients=gradients,
            starts=samples.starts,
            near=near,
            far=far,
            samples=samples,
            sample_color=color,
        )

    def _limits(self, volume: FeatureVolume, rays: RayBundle) -> tuple[Tensor, Tensor]:
        match self.config.limits:
            case BoxLimitsConfig() as box:
                lower, upper = rays.origins.new_tensor([box.lower]), rays.origins.new_tensor([box.upper])
                return intersect_box(rays, lower, upper, box.near)
            case VolumeLimitsConfig() as limits:
                return intersect_box(rays, volume.lower, volume.upper, limits.near)
            case FixedLimitsConfig() as fixed:
                ones = torch.ones_like(rays.origins[:, 0])
                return ones * fixed.near, ones * fixed.far
            case _:
                assert_never(self.config.limits)

    def _sample(
        self,
        prepared: FieldVolume,
        rays: RayBundle,
        interval: Interval,
        noise: RayNoise | None,
        target_distance: Tensor | None,
    ) -> RaySamples:
        guided = self.config.guided
        if guided is not None and noise is not None and target_distance is not None:
            if noise.guided is None:
                raise ValueError("guided samples need the random numbers of draw_noise")
            return guided_samples(guided, interval, target_distance, noise.guided)

        def sdf_at(starts: Tensor, normalise_points: bool) -> Tensor:
            points = rays.origins[:, None] + rays.directions[:, None] * starts[..., None]
            scene = rays.scene[:, None].expand_as(starts).reshape(-1)
            found = self.field.signed_distance(prepared, points.reshape(-1, 3), scene, normalise_points)
            return found.view_as(starts)

        match self.config.sampler:
            case UniformSamplerConfig() as config:
                return uniform_samples(config, interval, noise)[1]
            case NeusSamplerConfig() as neus:
                return neus_samples(neus, interval, noise, lambda t: sdf_at(t, neus.normalise_points))
            case ErrorBoundedSamplerConfig() as bounded:
                density = self.field.laplace_density
                width = volsdf_width(density.beta, density.beta_min)
                return error_bounded_samples(
                    bounded, interval, noise, lambda t: sdf_at(t, bounded.normalise_points), width
                )
            case _:
                assert_never(self.config.sampler)

    def _weights(self, sdf: Tensor, gradients: Tensor, rays: RayBundle, samples: RaySamples) -> Tensor:
        match self.config.opacity:
            case NeusConfig():
                slope = torch.bmm(gradients, rays.directions[:, :, None])[:, :, 0]
                sharpness = neus_inv_s(self.field.deviation_network.variance)
                return weights_from_alpha(neus_alpha(sdf, slope, samples.steps, sharpness))
            case VolsdfConfig():
                density = self.field.laplace_density
                width = volsdf_width(density.beta, density.beta_min)
                return weights_from_density(laplace_density(sdf, width), samples.steps)[0]
            case _:
                assert_never(self.config.opacity)

    def _pictures(self, lit: _Lit, samples: RaySamples, rays: RayBundle, evaluating: bool) -> RenderedRays:
        weights, opacity = lit.weights, lit.weights.sum(-1)
        color = weights.new_zeros(len(weights), 3)
        if lit.color is not None:
            color = composite(weights, lit.color)
        normal = composite(weights, F.normalize(lit.gradients, dim=-1))
        semantic = None
        if lit.semantic_input is not None:
            semantic = self.field.semantic(lit.semantic_input, opacity, lit.feature_mix)
        scene = rays.scene if self.config.clip_distance_per_scene else None
        distance = mean_distance(weights, samples.starts, scene)
        return RenderedRays(
            color.clamp(0.0, 1.0) if evaluating else color, distance, normal, semantic, opacity
        )

    def _view(self, viewed: ViewedField, rays: RayBundle) -> RenderedRays:
        """The pictures of `_render` without noise and gradients, and several times faster."""
        size = _rays_at_once(self.config.sampler, viewed.n_places, len(rays))
        parts = blocks(len(rays), size, rays.origins.device)
        return _joined([self._block(viewed, rays.part(part)) for part in parts or [slice(0, 0)]])

    def _block(self, viewed: ViewedField, rays: RayBundle) -> RenderedRays:
        interval = Interval(*self._limits(viewed.prepared.volume, rays))
        sampler = self.config.sampler
        if isinstance(sampler, NeusSamplerConfig) and sampler.normalise_points:
            samples, looks = look_along(viewed, rays, interval, sampler)
        else:
            samples = self._sample(viewed.prepared, rays, interval, None, None)
            looks = look_at(viewed, rays, samples)
        gradients = looks.gradient
        weights = self._weights(looks.sdf, gradients, rays, samples)
        pictures = self._pictures(_Lit(weights, gradients, looks.color, None), samples, rays, True)
        mixed = looks.semantic(weights)
        return (
            pictures
            if mixed is None
            else replace(pictures, semantic=viewed.semantic(mixed, pictures.opacity))
        )

    @torch.no_grad()
    def render_chunked(self, volume: FeatureVolume, rays: RayBundle, chunk: int = 8192) -> RenderedRays:
        """Evaluate any number of rays in bounded memory; the chunk is halved when memory runs out.

        Raises ResourceError when not even 64 rays fit.
        """
        return self.view(self.viewed(volume), rays, chunk)

    @torch.no_grad()
    def viewed(self, volume: FeatureVolume) -> ViewedField:
        """A volume made ready for any number of calls of `view` and `ViewedField.distances`."""
        with torch.autocast(volume.values.device.type, enabled=False):
            return ViewedField.of(self.field, self._prepare(volume))

    @torch.no_grad()
    def view(self, viewed: ViewedField, rays: RayBundle, chunk: int = 8192) -> RenderedRays:
        """`render_chunked` for a volume that was made ready before."""
        with torch.autocast(rays.origins.device.type, enabled=False):
            parts = in_chunks(lambda part: self._view(viewed, rays.part(part)), len(rays), chunk, "rays")
            return _joined(parts)

    def signed_distance(
        self, volume: FeatureVolume, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
    ) -> Float[Tensor, " point"]:
        """Signed distance at points of the rays' frame, positive in free space."""
        with torch.autocast(volume.values.device.type, enabled=False):
            return self.field.signed_distance(self._prepare(volume), points, scene)

    def color(
        self,
        volume: FeatureVolume,
        points: Float[Tensor, "point 3"],
        directions: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 at points seen along unit directions; zero where the field has no colour."""
        with torch.autocast(volume.values.device.type, enabled=False):
            found = self.field(self._prepare(volume), points, scene, directions)
        return torch.zeros_like(points) if found.color is None else found.color


def _joined(parts: list[RenderedRays]) -> RenderedRays:
    if len(parts) == 1:
        return parts[0]
    semantic = [part.semantic for part in parts if part.semantic is not None]
    return RenderedRays(
        torch.cat([part.color for part in parts]),
        torch.cat([part.distance for part in parts]),
        torch.cat([part.normal for part in parts]),
        torch.cat(semantic) if semantic else None,
        torch.cat([part.opacity for part in parts]),
    )


def _rays_at_once(sampler: SamplerConfig, n_places: int, n_rays: int) -> int:
    match sampler:
        case NeusSamplerConfig() as neus:
            n_samples = neus.initial.n_samples + neus.n_importance
        case UniformSamplerConfig() as even:
            n_samples = even.n_samples
        case ErrorBoundedSamplerConfig():  # its rounds end when every ray of the call is done
            return max(n_rays, 1)
    return max(n_places // n_samples, 1)
