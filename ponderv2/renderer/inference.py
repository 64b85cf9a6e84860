"""Rays -> pictures and points -> distances without gradients: what `Renderer.forward` gives, much faster.

On a CPU four things make the difference. The work goes through in blocks whose arrays stay in the cache.
Every place is looked at once: the even samples are kept when the importance samples are sorted in. What
surrounds a place is found by plain arithmetic per axis. And whatever is linear in the volume, between its
cells and the distance or the colour, is multiplied out once per cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.renderer.compositing import composite
from ponderv2.renderer.config import NeusSamplerConfig
from ponderv2.renderer.field import FieldVolume, SdfField
from ponderv2.renderer.reading import DistanceReader, Read
from ponderv2.renderer.sampling import Interval, RaySamples, neus_samples
from ponderv2.renderer.surroundings import Placed, Surroundings, surroundings

IN_CACHE = 4096
"""Places whose features and activations, about 1 KB each, stay in the cache."""

LEAN = 16384
"""Places of which nothing wider than a colour is kept."""

DECODED = 1024
"""Places whose distances are decoded at once: about 4 KB each."""


def blocks(n_items: int, size: int, device: torch.device) -> list[slice]:
    """Pieces of at most `size` items on a CPU; everything at once elsewhere."""
    size = size if device.type == "cpu" else max(n_items, 1)
    return [slice(start, min(start + size, n_items)) for start in range(0, n_items, size)]


@dataclass(frozen=True)
class Seen:
    """The field at samples, `FieldSamples` with the inputs of linear semantics apart."""

    sdf: Float[Tensor, " place"]
    gradient: Float[Tensor, "place 3"]
    color: Float[Tensor, "place 3"] | None
    semantic: tuple[Float[Tensor, "place _"], ...] | None
    """The result alone, or what `ViewedField.semantic` is linear in."""


@dataclass(frozen=True)
class ViewedField:
    """A field and its volume, with everything that does not depend on where one looks."""

    field: SdfField
    prepared: FieldVolume
    rows: tuple[Float[Tensor, "cell _"], ...]
    """Features of all cells: of the distance, and of the heads that have their own; none if `_is_lean`."""
    distance: DistanceReader

    @staticmethod
    def of(field: SdfField, prepared: FieldVolume) -> ViewedField:
        """A few matrix products over all cells."""
        half = field.n_features
        parts = [slice(None)] if field.config.share_volume else [slice(0, half), slice(half, None)]
        rows = tuple(prepared.volume.rows(part).contiguous() for part in parts)
        layers = field.sdf_decoder.layers()
        if not _is_linear(field):
            return ViewedField(field, prepared, rows, DistanceReader.of(layers, layers[-1], rows[0]))
        bias = layers[-1].bias
        eye = torch.eye(1, len(bias), device=bias.device, dtype=bias.dtype)
        if field.rgb_decoder is None:
            reader = DistanceReader.of(layers, layers[-1].rows(eye), rows[0])
            return ViewedField(field, prepared, () if _is_lean(field) else rows, reader)
        color = field.rgb_decoder.layers()[0]
        _, of_feature, of_geometry, _ = field._columns(color.feature)
        outputs = layers[-1].rows(torch.cat([eye, F.pad(of_geometry, (1, 0))]))
        outputs = replace(outputs, bias=outputs.bias + F.pad(color.bias, (1, 0)))
        of_heads = F.pad(rows[-1] @ of_feature.T, (1, 0))
        reader = DistanceReader.of(layers, outputs, rows[0], of_heads)
        return ViewedField(field, prepared, () if _is_lean(field) else rows, reader)

    @property
    def n_places(self) -> int:
        """So many places `along` rays are best looked at in one call on a CPU."""
        return LEAN if _is_lean(self.field) else IN_CACHE

    def distances(
        self, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"]
    ) -> Float[Tensor, " point"]:
        """`SdfField.signed_distance`."""
        parts = [points.new_zeros(0)]
        for some in blocks(len(points), IN_CACHE, points.device):
            still = RayBundle(points[some], torch.zeros_like(points[some]), scene[some])
            position = self._clamped(Placed.of(self.prepared.volume, still).origin)
            around = surroundings(self.prepared.volume, position, scene[some], False)
            parts.append(self._read(around, position.T, False).outputs[:, 0])
        return torch.cat(parts)

    def color(
        self,
        points: Float[Tensor, "point 3"],
        directions: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
    ) -> Float[Tensor, "point 3"]:
        """`Renderer.color`: seen along unit directions, zero where the field has no colour."""
        parts = [points.new_zeros(0, 3)]
        for some in blocks(len(points), IN_CACHE, points.device):
            rays = RayBundle(points[some], directions[some], scene[some])
            here = self.along(rays, Placed.of(self.prepared.volume, rays), torch.zeros_like(points[some, :1]))
            parts.append(torch.zeros_like(rays.origins) if here.color is None else here.color)
        return torch.cat(parts)

    def along(self, rays: RayBundle, placed: Placed, starts: Float[Tensor, "ray sample"]) -> Seen:
        """What `SdfField.forward` gives at distances along rays, ray by ray."""
        position = self._clamped(placed.at(starts)).flatten(1)
        point, scene = position.T, rays.scene[:, None].expand_as(starts).reshape(-1)
        around = surroundings(self.prepared.volume, position, scene, True)
        read = self._read(around, point, not _is_lean(self.field))
        outputs, gradient = read.outputs, read.gradient
        if not self.field.config.gradient_in_volume_units:
            gradient = (gradient.view(*starts.shape, 3) / placed.edge.T[:, None]).flatten(0, 1)
        directions = rays.directions[:, None].expand(*starts.shape, 3).flatten(0, 1)
        if _is_linear(self.field):
            color = self._linear_color(outputs, gradient, directions, point)
            if self.field.semantic_decoder is None:
                return Seen(outputs[:, 0], gradient, color, None)
            feature = self._feature(around, 0)
            parts = [gradient, self._feature(around, -1), feature, point]
            parts += [] if read.hidden is None else [read.hidden]
            return Seen(outputs[:, 0], gradient, color, tuple(parts))
        common = [gradient] if self.field.config.use_gradient else []
        common += [self._feature(around, -1), outputs[:, 1:]]
        color, semantic = self.field.rgb_decoder, self.field.semantic_decoder
        return Seen(
            outputs[:, 0],
            gradient,
            None if color is None else color(torch.cat([*common, directions], dim=-1), point).sigmoid(),
            None if semantic is None else (semantic(torch.cat(common, dim=-1), point),),
        )

    def _read(self, around: Surroundings, point: Tensor, with_hidden: bool) -> Read:
        """By blocks, so that what happens inside stays in the cache."""
        parts = []
        for some in blocks(len(point), DECODED, point.device) or [slice(0, 0)]:
            read = self.distance(around.part(some), point[some])
            parts.append(read if with_hidden else replace(read, hidden=None))
        return Read.joined(parts)

    def _feature(self, around: Surroundings, part: int) -> Tensor:
        return around.mixed(self.rows[part], 1)[:, 0]

    def _linear_color(
        self, outputs: Tensor, gradient: Tensor, directions: Tensor, point: Tensor
    ) -> Float[Tensor, "place 3"] | None:
        if self.field.rgb_decoder is None:
            return None
        layer = self.field.rgb_decoder.layers()[0]
        of_gradient, _, _, of_direction = self.field._columns(layer.feature)
        logits = outputs[:, 1:] + directions @ of_direction.T
        if of_gradient is not None:
            logits = logits + gradient @ of_gradient.T
        return (logits if layer.point is None else logits + point @ layer.point.T).sigmoid()

    def semantic(
        self, mixed: tuple[Float[Tensor, "ray _"], ...], total: Float[Tensor, " ray"]
    ) -> Float[Tensor, "ray channel"]:
        """`SdfField.semantic`: once per ray, of weighted sums; `total` is the sum of the weights."""
        assert self.field.semantic_decoder is not None
        if len(mixed) == 1:
            return mixed[0]
        gradient, feature, sdf_feature, point = mixed[:4]
        layer, last = self.field.semantic_decoder.layers()[0], self.distance.layers[-1]
        of_gradient, of_feature, of_geometry, _ = self.field._columns(layer.feature)
        unbiased = replace(last, bias=torch.zeros_like(last.bias))
        outputs = unbiased(mixed[4] if len(mixed) > 4 else None, sdf_feature, point)
        outputs = outputs + total[:, None] * last.bias
        result = outputs[:, 1:] @ of_geometry.T + feature @ of_feature.T + total[:, None] * layer.bias
        if of_gradient is not None:
            result = result + gradient @ of_gradient.T
        return result if layer.point is None else result + point @ layer.point.T

    def _clamped(self, position: Tensor) -> Tensor:
        """Where the settings read places outside the box at its border, as `SdfField` does it."""
        if not self.field.config.clamp_points:
            return position
        return torch.where(position >= 1.0, 0.999, position).clamp(min=0.0)


def _is_lean(field: SdfField) -> bool:
    """Nothing wider than a colour is kept of a place."""
    return _is_linear(field) and field.semantic_decoder is None


def _is_linear(field: SdfField) -> bool:
    """Colour and semantics are linear in what they read."""
    return all(one is None or one.is_linear for one in (field.rgb_decoder, field.semantic_decoder))


@dataclass(frozen=True)
class Looks:
    """The field at all samples of some rays, in the order in which it was asked for."""

    parts: tuple[Seen, ...]
    order: Int[Tensor, "ray sample"]
    """Sorts the samples of all parts by their distance."""
    counts: tuple[int, ...]
    """Samples of a ray in each part."""

    def sorted(self, values: list[Tensor]) -> Float[Tensor, "ray sample value"]:
        """Values of the parts [ray * sample, value], along the rays."""
        n_rays = len(self.order)
        pairs = zip(values, self.counts, strict=True)
        joined = torch.cat([value.unflatten(0, (n_rays, count)) for value, count in pairs], dim=1)
        return joined.gather(1, self.order[:, :, None].expand(-1, -1, joined.shape[2]))

    @property
    def sdf(self) -> Float[Tensor, "ray sample"]:
        """Along the rays."""
        return self.sorted([part.sdf[:, None] for part in self.parts])[:, :, 0]

    @property
    def gradient(self) -> Float[Tensor, "ray sample 3"]:
        """Along the rays."""
        return self.sorted([part.gradient for part in self.parts])

    @property
    def color(self) -> Float[Tensor, "ray sample 3"] | None:
        """Along the rays."""
        colors = [part.color for part in self.parts if part.color is not None]
        return self.sorted(colors) if colors else None

    def semantic(self, weights: Float[Tensor, "ray sample"]) -> tuple[Tensor, ...] | None:
        """Weighted sums of `Seen.semantic`, [ray, channel] each; None where the field has no semantics."""
        unsorted = torch.empty_like(weights).scatter_(1, self.order, weights)
        sums: list[Tensor] = []
        for part, own in zip(self.parts, unsorted.split(self.counts, dim=1), strict=True):
            if part.semantic is None:
                return None
            found = [composite(own, value.unflatten(0, own.shape)) for value in part.semantic]
            sums = [one + other for one, other in zip(sums, found, strict=True)] if sums else found
        return tuple(sums)


def look_along(
    viewed: ViewedField, rays: RayBundle, interval: Interval, config: NeusSamplerConfig
) -> tuple[RaySamples, Looks]:
    """Even and importance samples, with the field evaluated once at each."""
    placed = Placed.of(viewed.prepared.volume, rays)
    parts: list[Seen] = []
    asked: list[Tensor] = []

    def look(starts: Tensor) -> Tensor:
        parts.append(viewed.along(rays, placed, starts))
        asked.append(starts)
        return parts[-1].sdf.view_as(starts)

    samples = neus_samples(config, interval, None, look)
    assert samples.new_starts is not None
    look(samples.new_starts)
    order = torch.cat(asked, dim=1).argsort(dim=1, stable=True)
    return samples, Looks(tuple(parts), order, tuple(starts.shape[1] for starts in asked))


def look_at(viewed: ViewedField, rays: RayBundle, samples: RaySamples) -> Looks:
    """The field at samples that were placed before."""
    found = viewed.along(rays, Placed.of(viewed.prepared.volume, rays), samples.starts)
    n_samples = samples.starts.shape[1]
    order = torch.arange(n_samples, device=samples.starts.device).expand_as(samples.starts)
    return Looks((found,), order, (n_samples,))
