"""The distance decoder without gradients of its own: outputs and slope at places of a volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.renderer.decoder import SHARPNESS, Decoded, Layer, distance_derivative
from ponderv2.renderer.surroundings import Surroundings


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
