"""Feature volume and rays -> colour, distance, normal and semantics per ray."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle, intersect_box
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.out_of_memory import in_chunks
from ponderv2.renderer.baked_field import BakedField, blocks
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
from ponderv2.renderer.field import FieldOutput, SdfField, VolumeField
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
    """Along the ray; meaningless where the opacity is 0."""
    normal: Float[Tensor, "ray 3"]
    """Weighted sum of unit gradients: as long as the ray is certain of it."""
    opacity: Float[Tensor, " ray"]
    """Sum of the weights, 0..1."""
    semantic: Float[Tensor, "ray channel"] | None = None

    @staticmethod
    def concatenated(parts: list[RenderedRays]) -> RenderedRays:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        semantic = [part.semantic for part in parts if part.semantic is not None]
        return RenderedRays(
            torch.cat([part.color for part in parts]),
            torch.cat([part.distance for part in parts]),
            torch.cat([part.normal for part in parts]),
            torch.cat([part.opacity for part in parts]),
            torch.cat(semantic) if semantic else None,
        )


@dataclass(frozen=True, kw_only=True)
class RenderOutput(RenderedRays):
    """What losses and tests need beside the rendered rays."""

    weights: Float[Tensor, "ray sample"]
    sdf: Float[Tensor, "ray sample"]
    gradients: Float[Tensor, "ray sample 3"]
    starts: Float[Tensor, "ray sample"]
    """Distance of each sample along the ray."""
    near: Float[Tensor, " ray"]
    far: Float[Tensor, " ray"]
    samples: RaySamples
    sample_color: Float[Tensor, "ray sample 3"] | None
    volume_feature: Float[Tensor, "ray width"] | None = None
    """sum_i w_i V(x_i) of all channels V of the volume: where they are the same all over the volume and the
    ray does not leave it, those times the opacity. None unless asked for."""
    encoder_feature: Float[Tensor, "ray inner"] | None = None
    """The encoder's own features along the ray, where the model adds them."""

    def rays(self) -> RenderedRays:
        """Without the samples."""
        return RenderedRays(self.color, self.distance, self.normal, self.opacity, self.semantic)


@dataclass(frozen=True)
class SampleOutputs:
    """The field at all samples of some rays, in the parts in which it was evaluated."""

    parts: tuple[FieldOutput, ...]
    counts: tuple[int, ...]
    """Samples of a ray in each part."""
    order: Int[Tensor, "ray sample"] | None = None
    """Sorts the samples of all parts by their distance; None: one part, which is sorted."""

    def along(self, values: list[Tensor]) -> Float[Tensor, "ray sample value"]:
        """Values of the parts [ray * sample, value], along the rays."""
        pairs = zip(values, self.counts, strict=True)
        shaped = [value.unflatten(0, (len(value) // count, count)) for value, count in pairs]
        if self.order is None:
            return shaped[0]
        index = self.order[:, :, None].expand(-1, -1, shaped[0].shape[2])
        return torch.cat(shaped, dim=1).gather(1, index)

    def sdf(self) -> Float[Tensor, "ray sample"]:
        """Along the rays."""
        return self.along([part.sdf[:, None] for part in self.parts])[:, :, 0]

    def gradients(self) -> Float[Tensor, "ray sample 3"]:
        """Along the rays."""
        return self.along([part.gradient for part in self.parts])

    def color(self) -> Float[Tensor, "ray sample 3"] | None:
        """Along the rays."""
        colors = [part.color for part in self.parts if part.color is not None]
        return self.along(colors) if colors else None

    def semantic_sums(self, weights: Float[Tensor, "ray sample"]) -> tuple[Tensor, ...] | None:
        """Weighted sums of `semantic_input`, [ray, channel] each; None where the field has no semantics."""
        return self._sums(weights, [part.semantic_input for part in self.parts])

    def volume_sums(self, weights: Float[Tensor, "ray sample"]) -> tuple[Tensor, ...] | None:
        """The same of `volume_input`; None where the field does not give it."""
        return self._sums(weights, [part.volume_input for part in self.parts])

    def _sums(
        self, weights: Float[Tensor, "ray sample"], inputs: list[tuple[Tensor, ...] | None]
    ) -> tuple[Tensor, ...] | None:
        own_weights: tuple[Tensor, ...] = (weights,)
        if self.order is not None:
            own_weights = torch.empty_like(weights).scatter_(1, self.order, weights).split(self.counts, dim=1)
        sums: list[Tensor] = []
        for values, own in zip(inputs, own_weights, strict=True):
            if values is None:
                return None
            found = [composite(own, value.unflatten(0, own.shape)) for value in values]
            sums = [one + other for one, other in zip(sums, found, strict=True)] if sums else found
        return tuple(sums)


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
        with_features: bool = False,
    ) -> RenderOutput:
        """Render with gradients. `noise` None means evaluation: no randomness, colours clamped to 0..1.

        `target_distance` (<= 0 where unknown) is used in training when the settings ask for guided samples.
        `with_features`: also composite the features of the volume.
        """
        with torch.autocast(volume.values.device.type, enabled=False):
            return self._render(self.over(volume, with_features), rays, noise, target_distance)

    def over(self, volume: FeatureVolume, with_features: bool = False) -> VolumeField:
        """The differentiable field over a volume. `with_features`: it also gives those of the volume."""
        return VolumeField.of(self.field, self._in_own_precision(volume), with_features)

    @torch.no_grad()
    def bake(self, volume: FeatureVolume) -> BakedField:
        """The field over a volume, for any number of calls of `render` and of its own methods."""
        with torch.autocast(volume.values.device.type, enabled=False):
            return BakedField.of(self.field, self._in_own_precision(volume))

    @torch.no_grad()
    def render(self, field: BakedField | FeatureVolume, rays: RayBundle, chunk: int = 8192) -> RenderedRays:
        """What `forward` gives in evaluation, of any number of rays, in bounded memory and much faster.

        A volume is baked first. When memory runs out the chunk is halved, down to 64 rays; then ResourceError
        """
        baked = field if isinstance(field, BakedField) else self.bake(field)
        with torch.autocast(rays.origins.device.type, enabled=False):
            parts = in_chunks(
                lambda part: self._render_chunk(baked, rays.part(part)), len(rays), chunk, "rays"
            )
            return RenderedRays.concatenated(parts)

    def _render_chunk(self, field: BakedField, rays: RayBundle) -> RenderedRays:
        """In blocks that stay in the cache of a CPU."""
        size = _rays_at_once(self.config.sampler, field.n_points, len(rays))
        parts = blocks(len(rays), size, rays.origins.device) or [slice(0, 0)]
        return RenderedRays.concatenated(
            [self._render(field, rays.part(part), None, None).rays() for part in parts]
        )

    def _in_own_precision(self, volume: FeatureVolume) -> FeatureVolume:
        return replace(volume, values=volume.values.to(self.field.laplace_density.beta.dtype))

    def _render(
        self,
        field: VolumeField | BakedField,
        rays: RayBundle,
        noise: RayNoise | None,
        target_distance: Tensor | None,
    ) -> RenderOutput:
        near, far = self._limits(field.volume, rays)
        samples, outputs = self._evaluate(field, rays, Interval(near, far), noise, target_distance)
        sdf, gradients = outputs.sdf(), outputs.gradients()
        weights = self._weights(sdf, gradients, rays, samples)
        sample_color, sums = outputs.color(), outputs.semantic_sums(weights)
        opacity = weights.sum(-1)
        color = weights.new_zeros(len(weights), 3)
        if sample_color is not None:
            color = composite(weights, sample_color)
        normal = composite(weights, F.normalize(gradients, dim=-1))
        semantic = None if sums is None else field.semantic(sums, opacity)
        feature = None
        if isinstance(field, VolumeField) and (parts := outputs.volume_sums(weights)) is not None:
            feature = field.volume_feature(parts)
        scene = rays.scene if self.config.clip_distance_per_scene else None
        return RenderOutput(
            color=color.clamp(0.0, 1.0) if noise is None else color,
            distance=mean_distance(weights, samples.starts, scene),
            normal=normal,
            opacity=opacity,
            semantic=semantic,
            weights=weights,
            sdf=sdf,
            gradients=gradients,
            starts=samples.starts,
            near=near,
            far=far,
            samples=samples,
            sample_color=sample_color,
            volume_feature=feature,
        )

    def _evaluate(
        self,
        field: VolumeField | BakedField,
        rays: RayBundle,
        interval: Interval,
        noise: RayNoise | None,
        target_distance: Tensor | None,
    ) -> tuple[RaySamples, SampleOutputs]:
        """Samples, and the field there. Baked, the outputs at the even samples are not computed twice."""
        sampler = self.config.sampler
        if (
            isinstance(field, BakedField)
            and isinstance(sampler, NeusSamplerConfig)
            and sampler.normalise_points
        ):
            return _evaluate_once(field, rays, interval, sampler)
        with torch.no_grad():
            samples = self._sample(field, rays, interval, noise, target_distance)
        return samples, SampleOutputs(
            (field.evaluate_along(rays, samples.starts),), (samples.starts.shape[1],)
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
        field: VolumeField | BakedField,
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
            return field.signed_distance(points.reshape(-1, 3), scene, normalise_points).view_as(starts)

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
                inv_s = neus_inv_s(self.field.deviation_network.variance)
                return weights_from_alpha(neus_alpha(sdf, slope, samples.steps, inv_s))
            case VolsdfConfig():
                density = self.field.laplace_density
                width = volsdf_width(density.beta, density.beta_min)
                return weights_from_density(laplace_density(sdf, width), samples.steps)[0]
            case _:
                assert_never(self.config.opacity)


def _evaluate_once(
    field: BakedField, rays: RayBundle, interval: Interval, config: NeusSamplerConfig
) -> tuple[RaySamples, SampleOutputs]:
    """Even and importance samples, with the field evaluated once at each."""
    parts: list[FieldOutput] = []
    asked: list[Tensor] = []

    def sdf_at(starts: Tensor) -> Tensor:
        parts.append(field.evaluate_along(rays, starts))
        asked.append(starts)
        return parts[-1].sdf.view_as(starts)

    samples = neus_samples(config, interval, None, sdf_at)
    assert samples.new_starts is not None
    sdf_at(samples.new_starts)
    order = torch.cat(asked, dim=1).argsort(dim=1, stable=True)
    return samples, SampleOutputs(tuple(parts), tuple(starts.shape[1] for starts in asked), order)


def _rays_at_once(sampler: SamplerConfig, n_points: int, n_rays: int) -> int:
    match sampler:
        case NeusSamplerConfig() as neus:
            n_samples = neus.initial.n_samples + neus.n_importance
        case UniformSamplerConfig() as even:
            n_samples = even.n_samples
        case ErrorBoundedSamplerConfig():  # its rounds end when every ray of the call is done
            return max(n_rays, 1)
    return max(n_points // n_samples, 1)
