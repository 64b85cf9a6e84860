"""Signed distance, its gradient, colour and semantic feature at points of a feature volume.

`SdfField` holds the decoders. Over a volume it is evaluated in one of two modes with the same methods:
`VolumeField` carries gradients and is trained, `BakedField` (baked_field.py) renders and meshes without them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.interpolation import (
    RowIndex,
    TrilinearCorners,
    contracted_sum,
    corners_at,
    weighted_sum,
)
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume, used_rows
from ponderv2.renderer.config import FieldConfig
from ponderv2.renderer.decoder import Decoder, Layer, decode_hidden, distance_derivative, in_blocks


class LaplaceDensity(nn.Module):
    """Holds the learned width of the VolSDF density; the maths is `compositing.laplace_density`."""

    def __init__(self, beta_init: float) -> None:
        super().__init__()
        self.beta_min = nn.Parameter(torch.tensor([1e-4]), requires_grad=False)
        self.beta = nn.Parameter(torch.tensor([beta_init]))


class DeviationNetwork(nn.Module):
    """Holds the learned inverse deviation of NeuS; the maths is `compositing.neus_inv_s`."""

    def __init__(self, beta_init: float) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.tensor([beta_init]))


@dataclass(frozen=True)
class FieldOutput:
    """The field at points."""

    sdf: Float[Tensor, " point"]
    gradient: Float[Tensor, "point 3"]
    """Of the signed distance; per length of the rays' frame, or per volume edge (see FieldConfig)."""
    color: Float[Tensor, "point 3"] | None
    """0..1."""
    semantic_input: tuple[Float[Tensor, "point _"], ...] | None
    """The semantic feature alone or, where it is linear in them, what `semantic` makes it of."""
    volume_input: tuple[Float[Tensor, "point _"], ...] | None = None
    """What `volume_feature` makes the features of the volume of; None unless they were asked for."""


@dataclass(frozen=True)
class ShadingInput:
    """What colour and semantics may read at each point."""

    gradient: Tensor
    feature: Tensor
    feature_map: Tensor | None
    """A linear map still to be applied to `feature`; None: none."""
    outputs: Tensor
    """Of the distance decoder: the distance, then the outputs of `VolumeField._last`."""
    point: Tensor
    """Position in the volume, 0..1."""


@dataclass(frozen=True)
class _Decoded:
    """The distance decoder at points, and its derivative."""

    outputs: Tensor
    by_feature: Tensor
    by_position: Tensor | None


class SdfField(nn.Module):
    """The decoders over a feature volume. State names are the published ones."""

    def __init__(self, config: FieldConfig, n_channels: int, n_semantic: int) -> None:
        super().__init__()
        if not config.share_volume and n_channels % 2:
            raise ValueError(f"expected an even number of channels to share out, got {n_channels}")
        self.config = config
        self.n_features = n_channels if config.share_volume else n_channels // 2
        n_geometry = config.geometry_channels
        self.sdf_decoder = Decoder(config.sdf, self.n_features, 1 + n_geometry)
        n_inputs = self.n_features + n_geometry + (3 if config.use_gradient else 0)
        self.rgb_decoder = None if config.color is None else Decoder(config.color, n_inputs + 3, 3)
        self.semantic_decoder = Decoder(config.semantic, n_inputs, n_semantic) if n_semantic > 0 else None
        self.laplace_density = LaplaceDensity(config.beta_init)
        self.deviation_network = DeviationNetwork(config.beta_init)
        with torch.no_grad():
            last = self.sdf_decoder.get_submodule(f"lin{self.sdf_decoder.n_layers - 1}")
            assert isinstance(last, nn.Linear)
            last.bias[0] += config.initial_distance

    @property
    def channel_parts(self) -> tuple[slice, ...]:
        """Channels of the volume that feed the distance and those that feed the heads, or all for both."""
        half = self.n_features
        return (slice(None),) if self.config.share_volume else (slice(0, half), slice(half, None))

    @property
    def has_linear_heads(self) -> bool:
        """Colour and semantics are linear in what they read."""
        return all(one is None or one.is_linear for one in (self.rgb_decoder, self.semantic_decoder))

    def columns(self, weight: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """A head's first matrix, cut at the borders of its inputs: gradient, feature, geometry, direction."""
        n_gradient = 3 if self.config.use_gradient else 0
        n_geometry = self.config.geometry_channels
        sizes = [n_gradient, self.n_features, n_geometry]
        gradient, feature, geometry, direction = weight.split([*sizes, weight.shape[1] - sum(sizes)], dim=1)
        return (gradient if n_gradient else None), feature, geometry, direction

    def shade(self, inputs: ShadingInput, directions: Float[Tensor, "point 3"]) -> FieldOutput:
        """Distance, colour for unit viewing directions, and the input of semantics."""
        semantic = None
        if self.semantic_decoder is not None and self.semantic_decoder.is_linear:
            semantic = (inputs.gradient, inputs.feature, inputs.outputs, inputs.point)
        elif self.semantic_decoder is not None:
            semantic = (self.semantic_decoder(self._common(inputs), inputs.point),)
        color = None if self.rgb_decoder is None else self._color(self.rgb_decoder, inputs, directions)
        return FieldOutput(inputs.outputs[:, 0], inputs.gradient, color, semantic)

    def _common(self, inputs: ShadingInput) -> Tensor:
        parts = [inputs.gradient] if self.config.use_gradient else []
        feature = inputs.feature if inputs.feature_map is None else inputs.feature @ inputs.feature_map.T
        return torch.cat([*parts, feature, inputs.outputs[:, 1:]], dim=-1)

    def _color(self, decoder: Decoder, inputs: ShadingInput, directions: Tensor) -> Tensor:
        if not decoder.is_linear:
            return decoder(torch.cat([self._common(inputs), directions], dim=-1), inputs.point).sigmoid()
        layer = decoder.layers()[0]
        of_gradient, of_feature, of_geometry, of_direction = self.columns(layer.feature)
        logits = inputs.outputs[:, 1:]
        if self.needs_geometry:
            logits = inputs.outputs @ F.pad(of_geometry, (1, 0)).T
        of_feature = of_feature if inputs.feature_map is None else of_feature @ inputs.feature_map
        logits = logits + inputs.feature @ of_feature.T + directions @ of_direction.T + layer.bias
        if of_gradient is not None:
            logits = logits + inputs.gradient @ of_gradient.T
        if layer.point is not None:
            logits = logits + inputs.point @ layer.point.T
        return logits.sigmoid()

    @property
    def needs_geometry(self) -> bool:
        """Whether a head reads the geometry feature itself; a linear colour is multiplied into it at once."""
        return self.semantic_decoder is not None or not (
            self.rgb_decoder is None or self.rgb_decoder.is_linear
        )

    def clamped(self, volume: FeatureVolume, points: Tensor, scene: Tensor) -> Tensor:
        """Points outside the box at its border, where the settings ask for that."""
        if not self.config.clamp_points:
            return points
        lower, upper = volume.lower.to(points.dtype)[scene], volume.upper.to(points.dtype)[scene]
        points = torch.where(points >= upper, lower + 0.999 * (upper - lower), points)
        return torch.where(points < lower, lower, points)


@dataclass(frozen=True)
class VolumeField:
    """The field over a volume, differentiable: one row per cell, shared by all look-ups of a call."""

    field: SdfField
    volume: FeatureVolume
    rows: tuple[Float[Tensor, "cell _"], ...]
    """The parts of the channels or, before the last map of the volume, its values. No gradient."""
    feature_maps: tuple[Float[Tensor, "width row"] | None, Float[Tensor, "width row"] | None]
    """What makes the features of the distance and of the heads of interpolated rows; None: they are that.

    The last map of the volume is linear and so is the interpolation: it is left to the decoders' matrices."""
    gives_features: bool = False
    """Whether `evaluate` also gives `volume_input`."""

    @staticmethod
    def of(field: SdfField, volume: FeatureVolume, gives_features: bool = False) -> VolumeField:
        """Copies the features into rows."""
        parts, last = field.channel_parts, volume.last
        with torch.no_grad():
            stored = parts if last is None else (slice(None),)
            rows = tuple(volume.value_rows(part).contiguous() for part in stored)
        if last is None:
            return VolumeField(field, volume, rows, (None, None), gives_features)
        maps = [torch.cat([last.weight[part], last.bias[part, None]], dim=1) for part in parts]
        return VolumeField(field, volume, rows, (maps[0], maps[-1]), gives_features)

    def signed_distance(
        self, points: Float[Tensor, "point 3"], scene: Int[Tensor, " point"], normalise_points: bool = True
    ) -> Float[Tensor, " point"]:
        """Signed distance alone. `normalise_points` False reads points as positions 0..1 (published)."""
        layers = [layer.after(self.feature_maps[0]) for layer in self.field.sdf_decoder.layers()]
        bias = layers[-1].bias
        first = layers[-1].rows(torch.eye(1, len(bias), device=bias.device, dtype=bias.dtype))
        volume = self.volume
        if not normalise_points:
            volume = replace(
                volume, lower=torch.zeros_like(volume.lower), upper=torch.ones_like(volume.upper)
            )
        else:
            points = self.field.clamped(volume, points, scene)
        corners = corners_at(volume, points, scene)
        rows = self.rows
        if torch.is_grad_enabled():
            index, rows = self._used(corners.index)
            corners = replace(corners, index=index)
        feature = self._interpolate(rows[0], corners)

        def decode(feature: Tensor, position: Tensor) -> tuple[Tensor]:
            hidden = decode_hidden(layers, feature, position).hidden
            return (first(hidden, feature, position)[:, 0],)

        return in_blocks(decode, feature, _position(volume, points, scene))[0]

    def evaluate(
        self,
        points: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
        directions: Float[Tensor, "point 3"],
    ) -> FieldOutput:
        """Everything that is composited, for unit viewing `directions`."""
        points = self.field.clamped(self.volume, points, scene)
        corners = corners_at(self.volume, points, scene)
        position = _position(self.volume, points, scene)
        index, rows = self._used(corners.index)
        corners = replace(corners, index=index)
        sdf_feature = self._interpolate(rows[0], corners)
        feature_map, head_map = self.feature_maps
        decoded = self._decode(sdf_feature, feature_map, position)
        gradient = self._derivative(rows[0], corners, decoded.by_feature)
        gradient = self._in_units(gradient, decoded.by_position, scene)
        feature = sdf_feature if len(rows) == 1 else self._head_feature(rows[1], corners)
        inputs = ShadingInput(gradient, feature, head_map, decoded.outputs, position)
        output = self.field.shade(inputs, directions)
        if not self.gives_features:
            return output
        return replace(output, volume_input=(sdf_feature,) if len(rows) == 1 else (sdf_feature, feature))

    def evaluate_along(self, rays: RayBundle, starts: Float[Tensor, "ray sample"]) -> FieldOutput:
        """`evaluate` at distances along rays, ray by ray."""
        points = rays.origins[:, None] + rays.directions[:, None] * starts[..., None]
        directions = rays.directions[:, None].expand_as(points)
        scene = rays.scene[:, None].expand_as(starts).reshape(-1)
        return self.evaluate(points.reshape(-1, 3), scene, directions.reshape(-1, 3))

    def semantic(
        self, sums: tuple[Float[Tensor, "ray _"], ...], total: Float[Tensor, " ray"]
    ) -> Float[Tensor, "ray channel"]:
        """The semantic feature of weighted sums of `semantic_input`, `total` being the sum of the weights.

        A linear decoder commutes with the sum, so it runs once per ray instead of once per sample.
        """
        assert self.field.semantic_decoder is not None
        if len(sums) == 1:
            return sums[0]
        gradient, feature, outputs, point = sums
        layer, head_map = self.field.semantic_decoder.layers()[0], self.feature_maps[1]
        of_gradient, of_feature, of_geometry, _ = self.field.columns(layer.feature)
        of_feature = of_feature if head_map is None else of_feature @ head_map
        result = outputs[:, 1:] @ of_geometry.T + feature @ of_feature.T + total[:, None] * layer.bias
        if of_gradient is not None:
            result = result + gradient @ of_gradient.T
        return result if layer.point is None else result + point @ layer.point.T

    def volume_feature(self, sums: tuple[Float[Tensor, "ray _"], ...]) -> Float[Tensor, "ray channel"]:
        """All channels of the volume, of weighted sums of `volume_input`: sum_i w_i V(x_i).

        The interpolation has been done for the decoders and the last map of the volume commutes with the sum,
        so the cost is one product with the weights per sample, and one with that map per ray.
        """
        if self.volume.last is None:
            return torch.cat(sums, dim=1)
        parts = [one for one in self.feature_maps[: len(self.field.channel_parts)] if one is not None]
        return sums[0] @ torch.cat(parts).T

    def _used(self, index: RowIndex) -> tuple[RowIndex, tuple[Float[Tensor, "used _"], ...]]:
        """The rows of the cells that are read, and the same index into them alone."""
        used, inner = index.compact
        return inner, used_rows(self.volume.values, self.rows, used)

    def _interpolate(
        self, rows: Float[Tensor, "row channel"], corners: TrilinearCorners
    ) -> Float[Tensor, "point width"]:
        """Rows at each point; before a last map also the share of the weights that lies in the volume."""
        found = weighted_sum(rows, corners.weight, corners.index)[:, 0]
        if self.volume.last is None:
            return found
        return torch.cat([found, corners.weight.sum(-1)], dim=1)

    def _derivative(
        self,
        rows: Float[Tensor, "row channel"],
        corners: TrilinearCorners,
        vector: Float[Tensor, "point width"],
    ) -> Float[Tensor, "point 3"]:
        """The derivative of `_interpolate` by the position, times a vector over its channels."""
        if self.volume.last is None:
            return contracted_sum(rows, corners.slope, corners.index, vector)
        found, share = vector.split([rows.shape[1], 1], dim=1)
        along = contracted_sum(rows, corners.slope, corners.index, found.contiguous())
        return along + corners.slope.sum(-1) * share.clone()  # a copy, so that `vector` can be forgotten

    def _decode(self, feature: Tensor, feature_map: Tensor | None, position: Tensor) -> _Decoded:
        """Distance decoder and its derivative."""
        layers = [layer.after(feature_map) for layer in self.field.sdf_decoder.layers()]
        last = self._last(layers[-1])

        def decode(feature: Tensor, position: Tensor) -> tuple[Tensor, ...]:
            decoded = decode_hidden(layers, feature, position)
            by_feature, by_position = distance_derivative(layers, decoded, len(feature))
            outputs = last(decoded.hidden, feature, position)
            return (outputs, by_feature) if by_position is None else (outputs, by_feature, by_position)

        found = in_blocks(decode, feature, position)
        return _Decoded(found[0], found[1], found[2] if len(found) > 2 else None)

    def _last(self, last: Layer) -> Layer:
        """The last layer of the distance decoder: the distance, then the geometry feature or its colour."""
        field = self.field
        if field.needs_geometry:
            return last
        eye = torch.eye(len(last.bias), device=last.bias.device, dtype=last.bias.dtype)
        if field.rgb_decoder is None:
            return last.rows(eye[:1])
        of_geometry = field.columns(field.rgb_decoder.layers()[0].feature)[2]
        return last.rows(torch.cat([eye[:1], F.pad(of_geometry, (1, 0))]))

    def _head_feature(self, rows: Tensor, corners: TrilinearCorners) -> Tensor:
        heads = (self.field.rgb_decoder, self.field.semantic_decoder)
        if all(head is None for head in heads) and not self.gives_features:
            return rows.new_zeros(corners.weight.shape[0], rows.shape[1])
        return weighted_sum(rows, corners.weight, corners.index)[:, 0]

    def _in_units(self, gradient: Tensor, by_position: Tensor | None, scene: Tensor) -> Tensor:
        edge = (self.volume.upper - self.volume.lower).to(gradient.dtype)[scene]
        if self.field.config.gradient_in_volume_units:
            gradient = gradient * edge
            return gradient if by_position is None else gradient + by_position
        return gradient if by_position is None else gradient + by_position / edge


def _position(volume: FeatureVolume, points: Tensor, scene: Tensor) -> Tensor:
    """0..1 in the box of the volume."""
    lower, upper = volume.lower.to(points.dtype), volume.upper.to(points.dtype)
    return (points - lower[scene]) / (upper - lower)[scene]
