"""The field over a volume without gradients: what `VolumeField` gives, several times faster.

On a CPU three things make the difference. Points go through in blocks whose arrays stay in the cache.
Whatever is linear in the volume, between its cells and the distance or the colour, is multiplied out once per
cell (baked). And positions are affine in the distance along a ray, so that a point costs few operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.interpolation import TrilinearCorners, corners_in_box
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.decoder import SOFTPLUS_BETA, Decoded, Layer, distance_derivative
from ponderv2.renderer.field import FieldOutput, SdfField, ShadingInput

POINTS_IN_CACHE = 4096
"""Points whose features and activations, about 1 KB each, stay in the cache."""
POINTS_WITHOUT_FEATURES = 16384
"""Points of which nothing wider than a colour is stored."""
POINTS_DECODED = 1024
"""Points whose distances are decoded at once: about 4 KB each."""


def blocks(n_items: int, size: int, device: torch.device) -> list[slice]:
    """Slices of at most `size` items on a CPU; everything at once elsewhere."""
    size = size if device.type == "cpu" else max(n_items, 1)
    return [slice(start, min(start + size, n_items)) for start in range(0, n_items, size)]


@dataclass(frozen=True)
class SdfOutput:
    """The distance decoder at points."""

    outputs: Float[Tensor, "point output"]
    gradient: Float[Tensor, "point 3"]
    """d output 0 / d position; zero where the corners have no slopes."""
    hidden: Float[Tensor, "point hidden"] | None
    """Before the last layer."""

    @staticmethod
    def concatenated(parts: list[SdfOutput]) -> SdfOutput:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        hidden = [part.hidden for part in parts if part.hidden is not None]
        return SdfOutput(
            torch.cat([part.outputs for part in parts]),
            torch.cat([part.gradient for part in parts]),
            torch.cat(hidden) if hidden else None,
        )


@dataclass(frozen=True)
class BakedDecoder:
    """The distance decoder with what is linear in the volume multiplied out once per cell.

    That is what a cell adds to the outputs and, with one hidden layer, to the values before its activation:
    then a point needs neither of the products with the first matrix.
    """

    layers: list[Layer]
    """Of the decoder, with softplus(x) in between instead of softplus(beta x) / beta."""
    outputs: Layer
    """Replaces the last layer; output 0 is the distance."""
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
    ) -> BakedDecoder:
        """`outputs`: what to compute by the last layer; `more`: what cells add to it besides."""
        layers = _without_beta(layers)
        outputs = _without_beta([*layers[:-1], outputs])[-1]
        added = rows @ outputs.feature.T
        if more is not None:
            added += more
        if len(layers) != 2:
            return BakedDecoder(layers, outputs, rows, added)
        width, n_outputs = len(layers[0].bias), len(outputs.bias)
        table = rows.new_zeros(len(rows), -(-(width + n_outputs) // 8) * 8)  # rows that begin at 32 bytes
        torch.mm(rows, layers[0].feature.T, out=table[:, :width])
        table[:, width : width + n_outputs] = added
        return BakedDecoder(layers, outputs, None, table)

    def __call__(self, corners: TrilinearCorners, point: Float[Tensor, "point 3"]) -> SdfOutput:
        """At points with these corners and positions 0..1."""
        if self.rows is None:
            return self._by_table(corners, point)
        return self._by_layers(self.rows, corners, point)

    def _by_table(self, corners: TrilinearCorners, point: Tensor) -> SdfOutput:
        first, last = self.layers[0], self.outputs
        assert last.hidden is not None
        found = corners.interpolate(self.table)
        width = len(first.bias)
        value = found[:, 0, :width] + first.bias
        hidden, slope = _softplus_(value if first.point is None else value.addmm_(point, first.point.T))
        outputs = self._last(found[:, 0, width : width + len(last.bias)], hidden, point)
        if found.shape[1] == 1:
            return SdfOutput(outputs, torch.zeros_like(point), hidden)
        inner = slope.mul_(last.hidden[0])
        gradient = found[:, 1:, :width].mul_(inner[:, None]).sum(-1).add_(found[:, 1:, width])
        if first.point is not None:
            gradient = gradient + inner @ first.point
        return SdfOutput(outputs, gradient, hidden)

    def _by_layers(self, rows: Tensor, corners: TrilinearCorners, point: Tensor) -> SdfOutput:
        both = corners.interpolate(rows)
        feature = both[:, 0].contiguous()
        decoded = _decode(self.layers, feature, point)
        outputs = self._last(corners.interpolate(self.table, 1)[:, 0], decoded.hidden, point)
        if both.shape[1] == 1:
            return SdfOutput(outputs, torch.zeros_like(point), decoded.hidden)
        by_feature, by_point = distance_derivative(self.layers, decoded, len(point))
        gradient = torch.linalg.vecdot(both[:, 1:], by_feature[:, None])
        return SdfOutput(outputs, gradient if by_point is None else gradient + by_point, decoded.hidden)

    def _last(self, added: Tensor, hidden: Tensor | None, point: Tensor) -> Tensor:
        value = added + self.outputs.bias
        if self.outputs.hidden is not None and hidden is not None:
            value = torch.addmm(value, hidden, self.outputs.hidden.T)
        return value if self.outputs.point is None else value + point @ self.outputs.point.T


@dataclass(frozen=True)
class BakedField:
    """A field and its volume, with everything that does not depend on the points precomputed."""

    field: SdfField
    volume: FeatureVolume
    rows: tuple[Float[Tensor, "cell _"], ...]
    """Features of all cells: of the distance, and of the heads that have their own; none if colour needs
    none of them."""
    decoder: BakedDecoder

    @staticmethod
    def of(field: SdfField, volume: FeatureVolume) -> BakedField:
        """A few matrix products over all cells."""
        rows = tuple(volume.rows(part).contiguous() for part in field.channel_parts)
        layers = field.sdf_decoder.layers()
        if not field.has_linear_heads:
            return BakedField(field, volume, rows, BakedDecoder.of(layers, layers[-1], rows[0]))
        bias = layers[-1].bias
        eye = torch.eye(1, len(bias), device=bias.device, dtype=bias.dtype)
        if field.rgb_decoder is None:
            decoder = BakedDecoder.of(layers, layers[-1].rows(eye), rows[0])
        else:
            color = field.rgb_decoder.layers()[0]
            _, of_feature, of_geometry, _ = field.columns(color.feature)
            outputs = layers[-1].rows(torch.cat([eye, F.pad(of_geometry, (1, 0))]))
            outputs = replace(outputs, bias=outputs.bias + F.pad(color.bias, (1, 0)))
            decoder = BakedDecoder.of(layers, outputs, rows[0], F.pad(rows[-1] @ of_feature.T, (1, 0)))
        return BakedField(field, volume, () if _needs_no_features(field) else rows, decoder)

    @property
    def n_points(self) -> int:
        """Points along rays that are best evaluated in one call on a CPU."""
        return POINTS_WITHOUT_FEATURES if _needs_no_features(self.field) else POINTS_IN_CACHE

    def signed_distance(
        self, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"], normalise_points: bool = True
    ) -> Float[Tensor, " point"]:
        """Signed distance alone. `normalise_points` False reads points as positions 0..1 (published)."""
        parts = [points.new_zeros(0)]
        for some in blocks(len(points), POINTS_IN_CACHE, points.device):
            position = points[some].T
            if normalise_points:
                still = RayBundle(points[some], torch.zeros_like(points[some]), scene[some])
                position = self._clamped(_RaysInBox.of(self.volume, still).origin)
            corners = corners_in_box(self.volume, position, scene[some], with_slope=False)
            parts.append(self._decode(corners, position.T, False).outputs[:, 0])
        return torch.cat(parts)

    def color(
        self,
        points: Float[Tensor, "point 3"],
        directions: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 for unit viewing directions, zero where the field has no colour."""
        parts = [points.new_zeros(0, 3)]
        for some in blocks(len(points), POINTS_IN_CACHE, points.device):
            rays = RayBundle(points[some], directions[some], scene[some])
            color = self.evaluate_along(rays, torch.zeros_like(points[some, :1])).color
            parts.append(torch.zeros_like(rays.origins) if color is None else color)
        return torch.cat(parts)

    def evaluate_along(self, rays: RayBundle, starts: Float[Tensor, "ray sample"]) -> FieldOutput:
        """What `VolumeField.evaluate_along` gives; the input of linear semantics differs."""
        in_box = _RaysInBox.of(self.volume, rays)
        position = self._clamped(in_box.at(starts)).flatten(1)
        point, scene = position.T, rays.scene[:, None].expand_as(starts).reshape(-1)
        corners = corners_in_box(self.volume, position, scene, with_slope=True)
        decoded = self._decode(corners, point, not _needs_no_features(self.field))
        outputs, gradient = decoded.outputs, decoded.gradient
        if not self.field.config.gradient_in_volume_units:
            gradient = (gradient.view(*starts.shape, 3) / in_box.edge.T[:, None]).flatten(0, 1)
        directions = rays.directions[:, None].expand(*starts.shape, 3).flatten(0, 1)
        if not self.field.has_linear_heads:
            inputs = ShadingInput(gradient, self._feature(corners, -1), None, outputs, point)
            return self.field.shade(inputs, directions)
        color = self._linear_color(outputs, gradient, directions, point)
        if self.field.semantic_decoder is None:
            return FieldOutput(outputs[:, 0], gradient, color, None)
        parts = [gradient, self._feature(corners, -1), self._feature(corners, 0), point]
        parts += [] if decoded.hidden is None else [decoded.hidden]
        return FieldOutput(outputs[:, 0], gradient, color, tuple(parts))

    def semantic(
        self, sums: tuple[Float[Tensor, "ray _"], ...], total: Float[Tensor, " ray"]
    ) -> Float[Tensor, "ray channel"]:
        """As `VolumeField.semantic`: once per ray, of weighted sums; `total` is the sum of the weights."""
        assert self.field.semantic_decoder is not None
        if len(sums) == 1:
            return sums[0]
        gradient, feature, third, point = sums[:4]
        layer, last = self.field.semantic_decoder.layers()[0], self.decoder.layers[-1]
        of_gradient, of_feature, of_geometry, _ = self.field.columns(layer.feature)
        if self.field.has_linear_heads:  # `third` is the feature of the distance
            unbiased = replace(last, bias=torch.zeros_like(last.bias))
            outputs = unbiased(sums[4] if len(sums) > 4 else None, third, point) + total[:, None] * last.bias
        else:
            outputs = third
        result = outputs[:, 1:] @ of_geometry.T + feature @ of_feature.T + total[:, None] * layer.bias
        if of_gradient is not None:
            result = result + gradient @ of_gradient.T
        return result if layer.point is None else result + point @ layer.point.T

    def _decode(self, corners: TrilinearCorners, point: Tensor, with_hidden: bool) -> SdfOutput:
        """By blocks, so that intermediate results stay in the cache."""
        parts = []
        for some in blocks(len(point), POINTS_DECODED, point.device) or [slice(0, 0)]:
            found = self.decoder(corners.part(some), point[some])
            parts.append(found if with_hidden else replace(found, hidden=None))
        return SdfOutput.concatenated(parts)

    def _feature(self, corners: TrilinearCorners, part: int) -> Tensor:
        return corners.interpolate(self.rows[part], 1)[:, 0]

    def _linear_color(
        self, outputs: Tensor, gradient: Tensor, directions: Tensor, point: Tensor
    ) -> Float[Tensor, "point 3"] | None:
        if self.field.rgb_decoder is None:
            return None
        layer = self.field.rgb_decoder.layers()[0]
        of_gradient, _, _, of_direction = self.field.columns(layer.feature)
        logits = outputs[:, 1:] + directions @ of_direction.T
        if of_gradient is not None:
            logits = logits + gradient @ of_gradient.T
        return (logits if layer.point is None else logits + point @ layer.point.T).sigmoid()

    def _clamped(self, position: Tensor) -> Tensor:
        """`SdfField.clamped` for positions 0..1 in the box."""
        if not self.field.config.clamp_points:
            return position
        return torch.where(position >= 1.0, 0.999, position).clamp(min=0.0)


@dataclass(frozen=True)
class _RaysInBox:
    """Rays in the coordinates of the box of their volume: position = origin + direction * distance, 0..1."""

    origin: Float[Tensor, "3 ray"]
    direction: Float[Tensor, "3 ray"]
    edge: Float[Tensor, "3 ray"]
    """Of the box, in the frame of the rays."""

    @staticmethod
    def of(volume: FeatureVolume, rays: RayBundle) -> _RaysInBox:
        """As the volume's box lies in the frame of the rays."""
        lower, edge = volume.lower.to(rays.origins), (volume.upper - volume.lower).to(rays.origins)
        lower, edge = lower[rays.scene], edge[rays.scene]
        return _RaysInBox(((rays.origins - lower) / edge).T, (rays.directions / edge).T, edge.T)

    def at(self, starts: Float[Tensor, "ray sample"]) -> Float[Tensor, "3 ray sample"]:
        """Positions at distances along the rays."""
        return torch.addcmul(self.origin[:, :, None], self.direction[:, :, None], starts)


def _needs_no_features(field: SdfField) -> bool:
    """Nothing wider than a colour is stored of a point."""
    return field.has_linear_heads and field.semantic_decoder is None


def _softplus_(value: Tensor) -> tuple[Tensor, Tensor]:
    """Softplus and its derivative, in place: softplus(x) = max(x, 0) - log logistic(|x|)."""
    # Below 1e-38 a CPU takes a hundred times as long for a number; logistic(-40) is 4e-18.
    slope = torch.sigmoid(value.clamp_(min=-40.0))
    logarithm = (slope - 0.5).abs_().add_(0.5).log_()
    return value.clamp_(min=0.0).sub_(logarithm), slope


def _without_beta(layers: list[Layer]) -> list[Layer]:
    """Layers that do the same with softplus(x) in between instead of softplus(beta x) / beta."""
    found = []
    for layer in layers[:-1]:
        point = None if layer.point is None else layer.point * SOFTPLUS_BETA
        found.append(Layer(layer.hidden, layer.feature * SOFTPLUS_BETA, point, layer.bias * SOFTPLUS_BETA))
    last = layers[-1]
    return [*found, replace(last, hidden=None if last.hidden is None else last.hidden / SOFTPLUS_BETA)]


def _decode(layers: list[Layer], feature: Tensor, point: Tensor) -> Decoded:
    hidden, slopes = None, []
    for layer in layers[:-1]:
        hidden, slope = _softplus_(layer(hidden, feature, point))
        slopes.append(slope)
    return Decoded(hidden, tuple(slopes))
