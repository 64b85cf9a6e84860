"""The small networks of the field, and the closed-form derivative of the distance decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ponderv2.renderer.config import DecoderConfig

SOFTPLUS_BETA = 100.0
"""Of the softplus between the layers of the distance decoder: softplus(beta x) / beta."""
BLOCK_ELEMENTS = 2**17
"""Activations that are computed at once on a CPU, so that they stay in its cache."""

BLOCK_POINTS = 8192
"""Points that are decoded at once on a CPU."""


def in_blocks(
    run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, block: int = BLOCK_POINTS
) -> tuple[Tensor, ...]:
    """`run(*inputs)` by blocks of rows on a CPU, so that intermediate results stay in its cache.

    They are recomputed in the backward pass (checkpointing), which is cheaper than writing them to memory and
    reading them back. On other devices all rows are one block.
    """
    if inputs[0].device.type != "cpu" or len(inputs[0]) <= block:
        return run(*inputs)
    parts = list(_parts(run, inputs, block))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _parts(
    run: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], block: int
) -> Iterator[tuple[Tensor, ...]]:
    for part in zip(*(one.split(block) for one in inputs), strict=True):
        if torch.is_grad_enabled():
            yield checkpoint(run, *part, use_reentrant=False, preserve_rng_state=False)
        else:
            yield run(*part)


@dataclass(frozen=True)
class Layer:
    """One layer with the map before it multiplied in: W (x + C f + c) + b = W x + (W C) f + (W c + b)."""

    hidden: Float[Tensor, "out hidden"] | None
    feature: Float[Tensor, "out channel"]
    point: Float[Tensor, "out 3"] | None
    bias: Float[Tensor, " out"]

    def __call__(self, hidden: Tensor | None, feature: Tensor, point: Tensor | None) -> Tensor:
        value = F.linear(feature, self.feature, self.bias)
        if self.hidden is not None and hidden is not None:
            value = value + F.linear(hidden, self.hidden)
        if self.point is not None and point is not None:
            value = value + F.linear(point, self.point)
        return value

    def after(self, feature_map: Float[Tensor, "width row"] | None) -> Layer:
        """The layer for features that a linear map has still to make."""
        return self if feature_map is None else replace(self, feature=self.feature @ feature_map)

    def rows(self, then: Float[Tensor, "row out"]) -> Layer:
        """The layer followed by another linear map: only the sums of outputs that are asked for."""
        return Layer(
            None if self.hidden is None else then @ self.hidden,
            then @ self.feature,
            None if self.point is None else then @ self.point,
            then @ self.bias,
        )


class Decoder(nn.Module):
    """`n_blocks + 1` linear layers; the feature enters before each, the position before the first.

    State names are the published ones: `lin0`.., `fc_c.0`.., `fc_p`.
    """

    def __init__(self, config: DecoderConfig, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.n_layers = config.n_blocks + 1
        self.points_factor = config.points_factor
        sizes = [config.hidden] * self.n_layers + [n_outputs]
        for i in range(self.n_layers):
            self.add_module(f"lin{i}", nn.Linear(sizes[i], sizes[i + 1]))
        self.fc_c = nn.ModuleList(nn.Linear(n_channels, config.hidden) for _ in range(self.n_layers))
        self.fc_p = nn.Linear(3, config.hidden)

    @property
    def is_linear(self) -> bool:
        """No activation between input and output."""
        return self.n_layers == 1

    def layers(self) -> list[Layer]:
        """The layers with their feature and position maps multiplied in; exact up to rounding."""
        found = []
        for i, inject in enumerate(self.fc_c):
            linear = self.get_submodule(f"lin{i}")
            assert isinstance(linear, nn.Linear) and isinstance(inject, nn.Linear)
            before = inject.bias if i > 0 else inject.bias + self.fc_p.bias * self.points_factor
            point = linear.weight @ (self.fc_p.weight * self.points_factor) if i == 0 else None
            found.append(
                Layer(
                    linear.weight if i > 0 else None,
                    linear.weight @ inject.weight,
                    point if self.points_factor != 0.0 else None,
                    linear.weight @ before + linear.bias,
                )
            )
        return found

    def forward(
        self, feature: Float[Tensor, "point channel"], point: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point out"]:
        """ReLU between layers, nothing after the last."""
        hidden = None
        for layer in self.layers():
            hidden = layer(None if hidden is None else torch.relu(hidden), feature, point)
        assert hidden is not None
        return hidden


class _SoftplusWithSlope(torch.autograd.Function):
    """softplus(s x) / s and its derivative logistic(s x), which is all that the backward pass needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.empty_like(x), torch.empty_like(x)
        step = max(BLOCK_ELEMENTS // max(x.shape[-1], 1), 1)
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            # Numbers below 1e-38 take a CPU a hundred times as long; logistic(-40) is 4e-18.
            scaled = (x[rows] * SOFTPLUS_BETA).clamp_(min=-40.0)
            F.threshold(torch.sigmoid(scaled, out=slope[rows]), 1e-17, 0.0, inplace=True)
            torch.mul(F.softplus(scaled), 1.0 / SOFTPLUS_BETA, out=value[rows])
        ctx.save_for_backward(slope)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> Tensor:
        (slope,) = ctx.saved_tensors
        curvature = torch.addcmul(slope, slope, slope, value=-1.0).mul_(gradients[1]).mul_(SOFTPLUS_BETA)
        return curvature.addcmul_(gradients[0], slope)


def softplus_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """The activation of the distance decoder and its derivative; both carry gradients (once)."""
    return _SoftplusWithSlope.apply(x)


@dataclass(frozen=True)
class Decoded:
    """The distance decoder at points, before its last layer, with what its derivative needs."""

    hidden: Float[Tensor, "point hidden"] | None
    slopes: tuple[Float[Tensor, "point hidden"], ...]


def decode_hidden(
    layers: list[Layer], feature: Float[Tensor, "point channel"], point: Float[Tensor, "point 3"] | None
) -> Decoded:
    """All layers but the last, with softplus."""
    hidden, slopes = None, []
    for layer in layers[:-1]:
        hidden, slope = softplus_with_slope(layer(hidden, feature, point))
        slopes.append(slope)
    return Decoded(hidden, tuple(slopes))


def distance_derivative(
    layers: list[Layer], decoded: Decoded, n_points: int
) -> tuple[Float[Tensor, "point channel"], Float[Tensor, "point 3"] | None]:
    """d output 0 / d feature and / d position, by the chain rule from the last layer to the first."""
    last = layers[-1]
    by_feature = last.feature[:1].expand(n_points, -1)
    by_point = None if last.point is None else last.point[:1].expand(n_points, -1)
    weight = last.hidden
    upstream = None if weight is None else weight[:1]
    for layer, slope in zip(reversed(layers[:-1]), reversed(decoded.slopes), strict=True):
        assert upstream is not None
        inner = slope * upstream
        by_feature = torch.addmm(by_feature, inner, layer.feature)
        if layer.point is not None:
            by_point = inner @ layer.point
        upstream = None if layer.hidden is None else inner @ layer.hidden
    return by_feature, by_point
