"""Signed distance, its gradient, colour and semantic feature at points of a feature volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponderv2.geometry.interpolation import Corners, RowIndex, contracted_sum, corners_at, weighted_sum
from ponderv2.geometry.volumes import FeatureVolume, used_rows
from ponderv2.renderer.config import FieldConfig
from ponderv2.renderer.decoder import Decoder, Layer, decode_hidden, distance_derivative, in_blocks


class LaplaceDensity(nn.Module):
    """Holds the learned width of the VolSDF density; the maths is `opacity.laplace_density`."""

    def __init__(self, beta_init: float) -> None:
        super().__init__()
        self.beta_min = nn.Parameter(torch.tensor([1e-4]), requires_grad=False)
        self.beta = nn.Parameter(torch.tensor([beta_init]))


class DeviationNetwork(nn.Module):
    """Holds the learned sharpness of the NeuS rule; the maths is `opacity.neus_sharpness`."""

    def __init__(self, beta_init: float) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.tensor([beta_init]))


@dataclass(frozen=True)
class FieldVolume:
    """A volume made ready for many lookups: one row per cell."""

    volume: FeatureVolume
    parts: tuple[slice, ...]
    """Channels that feed the distance and those that feed the heads, or all for both."""
    rows: tuple[Float[Tensor, "cell _"], ...]
    """The parts, or before the last map of the volume its values. No gradient."""

    @property
    def mixes(self) -> tuple[Float[Tensor, "width read"] | None, Float[Tensor, "width read"] | None]:
        """What makes the features of the distance and of the heads of what is read; None: they are that.

        The last map of the volume is linear and so is the lookup: it is left to the decoders' matrices.
        """
        last = self.volume.last
        if last is None:
            return None, None
        mixes = [torch.cat([last.weight[part], last.bias[part, None]], dim=1) for part in self.parts]
        return mixes[0], mixes[-1]

    def used(self, index: RowIndex) -> tuple[RowIndex, tuple[Float[Tensor, "used _"], ...]]:
        """The rows of the cells that are read, and the same index into them alone."""
        used, inner = index.compact
        return inner, used_rows(self.volume.values, self.rows, used)

    def read(self, rows: Float[Tensor, "row channel"], corners: Corners) -> Float[Tensor, "point read"]:
        """The mixture of rows at each point; before a last map also the share that lies in the volume."""
        found = weighted_sum(rows, corners.weight, corners.index)[:, 0]
        if self.volume.last is None:
            return found
        return torch.cat([found, corners.weight.sum(-1)], dim=1)

    def slope(
        self, rows: Float[Tensor, "row channel"], corners: Corners, vector: Float[Tensor, "point read"]
    ) -> Float[Tensor, "point 3"]:
        """The derivative of `read` by the position, times a vector over what is read."""
        if self.volume.last is None:
            return contracted_sum(rows, corners.slope, corners.index, vector)
        found, share = vector.split([rows.shape[1], 1], dim=1)
        along = contracted_sum(rows, corners.slope, corners.index, found.contiguous())
        return along + corners.slope.sum(-1) * share.clone()  # a copy, so that `vector` can be forgotten


@dataclass(frozen=True)
class FieldSamples:
    """The field at points."""

    sdf: Float[Tensor, " point"]
    gradient: Float[Tensor, "point 3"]
    """Of the signed distance; per length of the rays' frame, or per volume edge (see FieldConfig)."""
    color: Float[Tensor, "point 3"] | None
    """0..1."""
    semantic_input: tuple[Float[Tensor, "point _"], ...] | None
    """What the semantic decoder's linear map is applied to, here or after compositing."""
    feature_mix: Float[Tensor, "width read"] | None = None
    """As in `FieldVolume.mixes`, for the feature in `semantic_input`."""


@dataclass(frozen=True)
class _Inputs:
    """What colour and semantics may read at each point."""

    gradient: Tensor
    feature: Tensor
    mix: Tensor | None
    """Makes the feature of `feature`; None: it is the feature."""
    outputs: Tensor
    """Of the distance decoder: the distance, then what `_last` says."""
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

    def prepare(self, volume: FeatureVolume) -> FieldVolume:
        """One row per cell, shared by all lookups of a rendering call."""
        half = self.n_features
        parts = (slice(None),) if self.config.share_volume else (slice(0, half), slice(half, None))
        stored = parts if volume.last is None else (slice(None),)
        with torch.no_grad():
            rows = tuple(volume.value_rows(part).contiguous() for part in stored)
        return FieldVolume(volume, parts, rows)

    def signed_distance(
        self,
        prepared: FieldVolume,
        points: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
        normalise_points: bool = True,
    ) -> Float[Tensor, " point"]:
        """Signed distance alone. `normalise_points` False reads points as positions 0..1 (published)."""
        layers = [layer.reading(prepared.mixes[0]) for layer in self.sdf_decoder.layers()]
        bias = layers[-1].bias
        first = layers[-1].rows(torch.eye(1, len(bias), device=bias.device, dtype=bias.dtype))
        volume = prepared.volume
        if not normalise_points:
            volume = replace(
                volume, lower=torch.zeros_like(volume.lower), upper=torch.ones_like(volume.upper)
            )
        elif self.config.clamp_points:
            points = _clamped(volume, points, scene)
        corners = corners_at(volume, points, scene)
        rows = prepared.rows
        if torch.is_grad_enabled():
            index, rows = prepared.used(corners.index)
            corners = replace(corners, index=index)
        feature = prepared.read(rows[0], corners)

        def decode(feature: Tensor, position: Tensor) -> tuple[Tensor]:
            hidden = decode_hidden(layers, feature, position).hidden
            return (first(hidden, feature, position)[:, 0],)

        return in_blocks(decode, feature, self._position(volume, points, scene))[0]

    def _position(self, volume: FeatureVolume, points: Tensor, scene: Tensor) -> Tensor:
        lower, upper = volume.lower.to(points.dtype), volume.upper.to(points.dtype)
        return (points - lower[scene]) / (upper - lower)[scene]

    def forward(
        self,
        prepared: FieldVolume,
        points: Float[Tensor, "point 3"],
        scene: Int[Tensor, " point"],
        directions: Float[Tensor, "point 3"],
    ) -> FieldSamples:
        """Everything that is composited, at points seen along unit `directions`."""
        if self.config.clamp_points:
            points = _clamped(prepared.volume, points, scene)
        corners = corners_at(prepared.volume, points, scene)
        position = self._position(prepared.volume, points, scene)
        index, rows = prepared.used(corners.index)
        corners = replace(corners, index=index)
        sdf_feature = prepared.read(rows[0], corners)
        mix, head_mix = prepared.mixes
        decoded = self._decode(sdf_feature, mix, position)
        gradient = prepared.slope(rows[0], corners, decoded.by_feature)
        gradient = self._in_units(gradient, decoded.by_position, prepared.volume, scene)

        feature = sdf_feature if len(rows) == 1 else self._head_feature(rows[1], corners)
        inputs = _Inputs(gradient, feature, head_mix, decoded.outputs, position)
        return self._heads(inputs, directions)

    def _decode(self, feature: Tensor, mix: Tensor | None, position: Tensor) -> _Decoded:
        """Distance decoder and its derivative."""
        layers = [layer.reading(mix) for layer in self.sdf_decoder.layers()]
        last = self._last(layers[-1])

        def decode(feature: Tensor, position: Tensor) -> tuple[Tensor, ...]:
            decoded = decode_hidden(layers, feature, position)
            by_feature, by_position = distance_derivative(layers, decoded, len(feature))
            outputs = last(decoded.hidden, feature, position)
            return (outputs, by_feature) if by_position is None else (outputs, by_feature, by_position)

        found = in_blocks(decode, feature, position)
        return _Decoded(found[0], found[1], found[2] if len(found) > 2 else None)

    @property
    def _needs_geometry(self) -> bool:
        """Whether a head reads the geometry feature itself; a linear colour is multiplied into it at once."""
        return self.semantic_decoder is not None or not (
            self.rgb_decoder is None or self.rgb_decoder.is_linear
        )

    def _last(self, last: Layer) -> Layer:
        """The last layer of the distance decoder: the distance, then the geometry feature or its colour."""
        if self._needs_geometry:
            return last
        eye = torch.eye(len(last.bias), device=last.bias.device, dtype=last.bias.dtype)
        if self.rgb_decoder is None:
            return last.rows(eye[:1])
        of_geometry = self._columns(self.rgb_decoder.layers()[0].feature)[2]
        return last.rows(torch.cat([eye[:1], torch.nn.functional.pad(of_geometry, (1, 0))]))

    def _head_feature(self, rows: Tensor, corners: Corners) -> Tensor:
        if self.rgb_decoder is None and self.semantic_decoder is None:
            return rows.new_zeros(corners.weight.shape[0], rows.shape[1])
        return weighted_sum(rows, corners.weight, corners.index)[:, 0]

    def _in_units(
        self, gradient: Tensor, by_position: Tensor | None, volume: FeatureVolume, scene: Tensor
    ) -> Tensor:
        edge = (volume.upper - volume.lower).to(gradient.dtype)[scene]
        if self.config.gradient_in_volume_units:
            gradient = gradient * edge
            return gradient if by_position is None else gradient + by_position
        return gradient if by_position is None else gradient + by_position / edge

    def _heads(self, inputs: _Inputs, directions: Tensor) -> FieldSamples:
        """Distance, colour and what the semantic feature is made of."""
        semantic = None
        if self.semantic_decoder is not None and self.semantic_decoder.is_linear:
            semantic = (inputs.gradient, inputs.feature, inputs.outputs, inputs.point)
        elif self.semantic_decoder is not None:
            semantic = (self.semantic_decoder(self._common(inputs), inputs.point),)
        color = None if self.rgb_decoder is None else self._color(self.rgb_decoder, inputs, directions)
        return FieldSamples(inputs.outputs[:, 0], inputs.gradient, color, semantic, inputs.mix)

    def _common(self, inputs: _Inputs) -> Tensor:
        parts = [inputs.gradient] if self.config.use_gradient else []
        feature = inputs.feature if inputs.mix is None else inputs.feature @ inputs.mix.T
        return torch.cat([*parts, feature, inputs.outputs[:, 1:]], dim=-1)

    def _color(self, decoder: Decoder, inputs: _Inputs, directions: Tensor) -> Tensor:
        if not decoder.is_linear:
            return decoder(torch.cat([self._common(inputs), directions], dim=-1), inputs.point).sigmoid()
        layer = decoder.layers()[0]
        of_gradient, of_feature, of_geometry, of_direction = self._columns(layer.feature)
        logits = inputs.outputs[:, 1:]
        if self._needs_geometry:
            logits = inputs.outputs @ torch.nn.functional.pad(of_geometry, (1, 0)).T
        of_feature = of_feature if inputs.mix is None else of_feature @ inputs.mix
        logits = logits + inputs.feature @ of_feature.T + directions @ of_direction.T + layer.bias
        if of_gradient is not None:
            logits = logits + inputs.gradient @ of_gradient.T
        if layer.point is not None:
            logits = logits + inputs.point @ layer.point.T
        return logits.sigmoid()

    def _columns(self, weight: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """A head's first matrix, cut at the borders of its inputs: gradient, feature, geometry, direction."""
        n_gradient = 3 if self.config.use_gradient else 0
        n_geometry = self.config.geometry_channels
        sizes = [n_gradient, self.n_features, n_geometry]
        gradient, feature, geometry, direction = weight.split([*sizes, weight.shape[1] - sum(sizes)], dim=1)
        return (gradient if n_gradient else None), feature, geometry, direction

    def semantic(
        self,
        mixed: tuple[Float[Tensor, "ray _"], ...],
        total: Float[Tensor, " ray"],
        mix: Float[Tensor, "width read"] | None = None,
    ) -> Float[Tensor, "ray channel"]:
        """The semantic feature of weighted sums of `semantic_input`, `total` being the sum of the weights.

        `mix` is the `feature_mix` of the samples.

        A linear decoder commutes with the sum, so it runs once per ray instead of once per sample.
        """
        assert self.semantic_decoder is not None
        if len(mixed) == 1:
            return mixed[0]
        gradient, feature, outputs, point = mixed
        layer = self.semantic_decoder.layers()[0]
        of_gradient, of_feature, of_geometry, _ = self._columns(layer.feature)
        of_feature = of_feature if mix is None else of_feature @ mix
        result = outputs[:, 1:] @ of_geometry.T + feature @ of_feature.T + total[:, None] * layer.bias
        if of_gradient is not None:
            result = result + gradient @ of_gradient.T
        return result if layer.point is None else result + point @ layer.point.T


def _clamped(volume: FeatureVolume, points: Tensor, scene: Tensor) -> Tensor:
    lower, upper = volume.lower.to(points.dtype)[scene], volume.upper.to(points.dtype)[scene]
    points = torch.where(points >= upper, lower + 0.999 * (upper - lower), points)
    return torch.where(points < lower, lower, points)
