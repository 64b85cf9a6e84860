"""Where rays are in a volume, and the cells around each place, by plain arithmetic per axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.compositing import composite
from ponderv2.renderer.config import NeusSamplerConfig
from ponderv2.renderer.decoder import SHARPNESS, Decoded, Layer, distance_derivative
from ponderv2.renderer.field import FieldVolume, SdfField
from ponderv2.renderer.sampling import Interval, RaySamples, neus_samples


@dataclass(frozen=True)
class Placed:
    """Rays in the coordinates of their volume: position = origin + direction * distance, 0..1 inside."""

    origin: Float[Tensor, "3 ray"]
    direction: Float[Tensor, "3 ray"]
    edge: Float[Tensor, "3 ray"]
    """Of the volume's box, in the frame of the rays."""
    scene: Int[Tensor, " ray"]

    @staticmethod
    def of(volume: FeatureVolume, rays: RayBundle) -> Placed:
        """As the volume's box lies in the frame of the rays."""
        lower, edge = volume.lower.to(rays.origins), (volume.upper - volume.lower).to(rays.origins)
        lower, edge = lower[rays.scene], edge[rays.scene]
        return Placed(((rays.origins - lower) / edge).T, (rays.directions / edge).T, edge.T, rays.scene)

    def at(self, starts: Float[Tensor, "ray sample"]) -> Float[Tensor, "3 ray sample"]:
        """Positions at distances along the rays."""
        return torch.addcmul(self.origin[:, :, None], self.direction[:, :, None], starts)


@dataclass(frozen=True)
class Surroundings:
    """The 8 cells around each place, with the coefficients of the value and of its three derivatives."""

    index: Int[Tensor, "place 8"]
    coefficient: Float[Tensor, "place sum 8"]
    """First of the value, then (where asked for) of d / d x, y, z per edge of the box."""

    def part(self, places: slice) -> Surroundings:
        """Of some of the places."""
        return Surroundings(self.index[places], self.coefficient[places])

    def mixed(
        self, rows: Float[Tensor, "cell channel"], n_sums: int | None = None
    ) -> Float[Tensor, "place sum channel"]:
        """The first sums over the cells' rows, or all."""
        n_sums = self.coefficient.shape[1] if n_sums is None else n_sums
        coefficient = self.coefficient[:, :n_sums].flatten(0, 1)
        bags = self.index[:, None].expand(-1, n_sums, -1).flatten(0, 1)
        found = F.embedding_bag(bags, rows, mode="sum", per_sample_weights=coefficient)
        return found.unflatten(0, (len(self.index), n_sums))


def surroundings(
    volume: FeatureVolume,
    position: Float[Tensor, "3 place"],
    scene: Int[Tensor, " place"],
    with_slope: bool,
) -> Surroundings:
    """What `corners_at` finds, for positions 0..1 in the volume's box."""
    size = position.new_tensor(tuple(reversed(volume.values.shape[2:])))[:, None]  # x, y, z
    if volume.corners_are_centres:
        place = position * (size - 1)
        first = place.floor().clamp(min=-2).minimum(size + 1)
        low_exists, high_exists = _within(first, size - 1), _within(first + 1, size - 1)
        varies = size - 1
    else:
        place = position * size - 0.5
        box = _within(position, 1.0)
        low_exists = box[0] * box[1] * box[2]
        high_exists = low_exists * (size > 1)
        varies = _within(place, size - 1) * size
        place = place.clamp(min=0).minimum(size - 1)
        first = place.floor().minimum((size - 2).clamp(min=0))
    fraction = place - first
    mix = torch.stack([(1.0 - fraction) * low_exists, fraction * high_exists])
    coefficient = [_products(mix[:, 0], mix[:, 1], mix[:, 2])]
    if with_slope:
        slope = torch.stack([varies * -low_exists, varies * high_exists])
        coefficient += [_products(slope[:, 0], mix[:, 1], mix[:, 2])]
        coefficient += [_products(mix[:, 0], slope[:, 1], mix[:, 2])]
        coefficient += [_products(mix[:, 0], mix[:, 1], slope[:, 2])]
    every = torch.cat(coefficient).T.contiguous().unflatten(1, (len(coefficient), 8))
    return Surroundings(_cells(volume, first, size, scene), every)


def _within(value: Tensor, largest: Tensor | float) -> Tensor:
    """1 where 0 <= value <= largest, else 0, without comparisons, which are several times slower."""
    return (value * (largest - value)).sign_().add_(1.0).clamp_(max=1.0)


def _products(x: Tensor, y: Tensor, z: Tensor) -> Float[Tensor, "8 place"]:
    """Of the two factors per axis, x fastest."""
    return ((z[:, None] * y)[:, :, None] * x).flatten(0, 2)


def _cells(volume: FeatureVolume, first: Tensor, size: Tensor, scene: Tensor) -> Int[Tensor, "place 8"]:
    whole = torch.int32 if volume.n_cells < 2**31 else torch.int64
    ends = torch.stack([first, first + 1]).clamp(min=0).minimum(size - 1).to(whole)
    size_z, size_y, size_x = volume.values.shape[2:]
    x, y, z = ends[:, 0], ends[:, 1] * size_x, ends[:, 2] * (size_x * size_y)
    if len(volume.values) > 1:
        z = z + scene.to(whole) * (size_x * size_y * size_z)
    return ((z[:, None] + y)[:, :, None] + x).flatten(0, 2).T.contiguous()


@dataclass(frozen=True)
class Read:
    """The distance decoder at places."""

    outputs: Float[Tensor, "place output"]
    gradient: Float[Tensor, "place 3"]
    """d output 0 / d position; zero where the surroundings have no slopes."""
    hidden: Float[Tensor, "place hidden"] | None
    """Before the last layer."""

    @staticmethod
    def joined(parts: list[Read]) -> Read:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        hidden = [part.hidden for part in parts if part.hidden is not None]
        return Read(
            torch.cat([part.outputs for part in parts]),
            torch.cat([part.gradient for part in parts]),
            torch.cat(hidden) if hidden else None,
        )


@dataclass(frozen=True)
class DistanceReader:
    """The decoder with what is linear in the volume multiplied out once per cell.

    That is what a cell adds to the outputs and, with one hidden layer, to the values before its activation:
    then neither way through the first matrix is left to be gone at a place.
    """

    layers: list[Layer]
    """Of the decoder, with softplus(x) in between instead of softplus(s x) / s."""
    outputs: Layer
    """Comes in place of the last layer; output 0 is the distance."""
    rows: Float[Tensor, "cell channel"] | None
    """Features of all cells, unless `table` has all that is read of them."""
    table: Float[Tensor, "cell value"]
    """What a cell adds: to the hidden layer if it is the only one, to the outputs; then zeros."""

    @staticmethod
    def of(
        layers: list[Layer],
        outputs: Layer,
        rows: Float[Tensor, "cell channel"],
        more: Float[Tensor, "cell output"] | None = None,
    ) -> DistanceReader:
        """`outputs`: what to compute by the last layer; `more`: what cells add to it besides."""
        layers = _sharp(layers)
        outputs = _sharp([*layers[:-1], outputs])[-1]
        added = rows @ outputs.feature.T
        if more is not None:
            added += more
        if len(layers) != 2:
            return DistanceReader(layers, outputs, rows, added)
        width, n_outputs = len(layers[0].bias), len(outputs.bias)
        table = rows.new_zeros(len(rows), -(-(width + n_outputs) // 8) * 8)  # rows that begin at 32 bytes
        torch.mm(rows, layers[0].feature.T, out=table[:, :width])
        table[:, width : width + n_outputs] = added
        return DistanceReader(layers, outputs, None, table)

    def __call__(self, around: Surroundings, point: Float[Tensor, "place 3"]) -> Read:
        """At places with these surroundings and positions 0..1."""
        if self.rows is None:
            return self._by_table(around, point)
        return self._by_layers(self.rows, around, point)

    def _by_table(self, around: Surroundings, point: Tensor) -> Read:
        first, last = self.layers[0], self.outputs
        assert last.hidden is not None
        mixed = around.mixed(self.table)
        width = len(first.bias)
        value = mixed[:, 0, :width] + first.bias
        hidden, slope = _activated(value if first.point is None else value.addmm_(point, first.point.T))
        outputs = self._last(mixed[:, 0, width : width + len(last.bias)], hidden, point)
        if mixed.shape[1] == 1:
            return Read(outputs, torch.zeros_like(point), hidden)
        inner = slope.mul_(last.hidden[0])
        gradient = mixed[:, 1:, :width].mul_(inner[:, None]).sum(-1).add_(mixed[:, 1:, width])
        return Read(outputs, gradient if first.point is None else gradient + inner @ first.point, hidden)

    def _by_layers(self, rows: Tensor, around: Surroundings, point: Tensor) -> Read:
        both = around.mixed(rows)
        feature = both[:, 0].contiguous()
        decoded = _decoded(self.layers, feature, point)
        outputs = self._last(around.mixed(self.table, 1)[:, 0], decoded.hidden, point)
        if both.shape[1] == 1:
            return Read(outputs, torch.zeros_like(point), decoded.hidden)
        by_feature, by_point = distance_derivative(self.layers, decoded, len(point))
        gradient = torch.linalg.vecdot(both[:, 1:], by_feature[:, None])
        return Read(outputs, gradient if by_point is None else gradient + by_point, decoded.hidden)

    def _last(self, added: Tensor, hidden: Tensor | None, point: Tensor) -> Tensor:
        value = added + self.outputs.bias
        if self.outputs.hidden is not None and hidden is not None:
            value = torch.addmm(value, hidden, self.outputs.hidden.T)
        return value if self.outputs.point is None else value + point @ self.outputs.point.T


def _activated(value: Tensor) -> tuple[Tensor, Tensor]:
    """softplus and its slope, in place: softplus(x) = max(x, 0) - log logistic(|x|)."""
    # Below 1e-38 a CPU takes a hundred times as long for a number; logistic(-40) is 4e-18.
    slope = torch.sigmoid(value.clamp_(min=-40.0))
    logarithm = (slope - 0.5).abs_().add_(0.5).log_()
    return value.clamp_(min=0.0).sub_(logarithm), slope


def _sharp(layers: list[Layer]) -> list[Layer]:
    """Layers that do the same with softplus(x) in between instead of softplus(s x) / s."""
    found = []
    for layer in layers[:-1]:
        point = None if layer.point is None else layer.point * SHARPNESS
        found.append(Layer(layer.hidden, layer.feature * SHARPNESS, point, layer.bias * SHARPNESS))
    last = layers[-1]
    return [*found, replace(last, hidden=None if last.hidden is None else last.hidden / SHARPNESS)]


def _decoded(layers: list[Layer], feature: Tensor, point: Tensor) -> Decoded:
    hidden, slopes = None, []
    for layer in layers[:-1]:
        hidden, slope = _activated(layer(hidden, feature, point))
        slopes.append(slope)
    return Decoded(hidden, tuple(slopes))


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
        """Points `along` rays that are best evaluated in one call on a CPU."""
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
