"""The published outdoor renderer ray by ray in double precision, from its description alone: a slow twin.

Everything lies in the range scaled to 0..1 along each axis. Nothing of `ponderv2` is used.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class TwinRay:
    """What is rendered of one ray."""

    depth: Tensor
    normal: Tensor
    rgb: Tensor | None
    semantic: Tensor | None
    z_vals: Tensor
    sdf: Tensor
    weights: Tensor
    gradients: Tensor


def scattered(
    coord: Tensor, feature: Tensor, scene: list[int], box: list[float], cells: tuple[int, int, int]
) -> Tensor:
    """Mean feature of the points of a cell, [scene, channel, z, y, x]."""
    n_scenes = max(scene) + 1
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for point, values, of in zip(coord.double().tolist(), feature.double(), scene, strict=True):
        size = [(box[3 + axis] - box[axis]) / cells[axis] for axis in range(3)]
        x, y, z = (int((point[axis] - box[axis]) / size[axis]) for axis in range(3))
        found.setdefault((of, z, y, x), []).append(values)
    volume = feature.new_zeros((n_scenes, *cells[::-1], feature.shape[1]), dtype=torch.float64)
    for place, rows in found.items():
        volume[place] = torch.stack(rows).mean(0)
    return volume.permute(0, 4, 1, 2, 3)


def convolved(volume: Tensor, state: State, train: bool) -> Tensor:
    """Conv3d 3x3x3 with bias, batch normalisation (eps 1e-5), ReLU."""
    weight = state["proj_net.conv.0.weight"].double()
    padded = torch.nn.functional.pad(volume, (1, 1, 1, 1, 1, 1))
    n_z, n_y, n_x = volume.shape[2:]
    total = state["proj_net.conv.0.bias"].double()[None, :, None, None, None]
    for k, j, i in itertools.product(range(3), repeat=3):
        part = padded[:, :, k : k + n_z, j : j + n_y, i : i + n_x]
        total = total + torch.einsum("oc,bczyx->bozyx", weight[:, :, k, j, i], part)
    mean, var = (state[f"proj_net.conv.1.running_{name}"].double() for name in ("mean", "var"))
    if train:
        mean = total.mean(dim=(0, 2, 3, 4))
        var = ((total - mean[None, :, None, None, None]) ** 2).mean(dim=(0, 2, 3, 4))
    weight, bias = (state[f"proj_net.conv.1.{name}"].double() for name in ("weight", "bias"))
    shaped = [one[None, :, None, None, None] for one in (mean, var, weight, bias)]
    return ((total - shaped[0]) / (shaped[1] + 1e-5).sqrt() * shaped[2] + shaped[3]).clamp(min=0)


def read(volume: Tensor, point: Tensor) -> Tensor:
    """Trilinear: 0 is the first cell, 1 the last, nothing outside. One scene [channel, z, y, x]."""
    index = [point[axis] * (volume.shape[3 - axis] - 1) for axis in range(3)]
    total = volume.new_zeros(len(volume))
    for corner in itertools.product((0, 1), repeat=3):
        place = [int(torch.floor(one.detach())) + more for one, more in zip(index, corner, strict=True)]
        if any(not 0 <= one < volume.shape[3 - axis] for axis, one in enumerate(place)):
            continue
        weight = volume.new_ones(())
        for one, whole in zip(index, place, strict=True):
            weight = weight * (1 - (one - whole).abs())
        total = total + weight * volume[:, place[2], place[1], place[0]]
    return total


def decoded(state: State, name: str, n_blocks: int, point: Tensor, feature: Tensor) -> Tensor:
    """The decoder that adds its input before every layer; softplus(100) for the SDF, else ReLU."""
    prefix = f"renderer.field.{name}_decoder."

    def linear(layer: str, x: Tensor) -> Tensor:
        return state[f"{prefix}{layer}.weight"].double() @ x + state[f"{prefix}{layer}.bias"].double()

    x = linear("fc_p", point)
    for layer in range(n_blocks + 1):
        x = linear(f"lin{layer}", x + linear(f"fc_c.{layer}", feature))
        if layer < n_blocks:
            x = torch.nn.functional.softplus(x, beta=100) if name == "sdf" else x.clamp(min=0)
    return torch.sigmoid(x) if name == "rgb" else x


def transmitted(alpha: Tensor) -> Tensor:
    """Weights of compositing."""
    found, light = [], alpha.new_ones(())
    for one in alpha:
        found.append(one * light)
        light = light * (1 - one + 1e-7)
    return torch.stack(found)


@dataclass(frozen=True)
class Twin:
    """A renderer with weights under their official names, and the volume of one scene."""

    config: dict[str, Any]
    """Of the renderer, official names."""
    state: State
    volume: Tensor

    def ray(self, origin: Tensor, direction: Tensor, uniform: Tensor | None, pdf: Tensor | None) -> TwinRay:
        """Origin and unit direction; the random numbers of a training step, or None in evaluation."""
        near, far = self._near_far(origin, direction)
        bins = self._spread(origin, direction, near, far, uniform, pdf)
        edges = near + bins * (far - near)
        starts, delta = edges[:-1], edges[1:] - edges[:-1]
        fields = [self._field(origin + direction * one, direction) for one in starts]
        sdf, gradients = torch.stack([one[0] for one in fields]), torch.stack([one[1] for one in fields])
        inv_s = torch.exp(10 * self.state["renderer.field.deviation_network.variance"].double()[0])
        slope = (gradients @ direction).clamp(max=0)
        before = torch.sigmoid((sdf - slope * delta / 2) * inv_s)
        after = torch.sigmoid((sdf + slope * delta / 2) * inv_s)
        weights = transmitted(((before - after + 1e-5) / (before + 1e-5)).clamp(0, 1))
        depth = (weights * starts).sum() / (weights.sum() + 1e-10)
        normals = gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
        colors = [one[2] for one in fields if one[2] is not None]
        semantics = [one[3] for one in fields if one[3] is not None]
        rgb, semantic = (weights @ torch.stack(found) if found else None for found in (colors, semantics))
        return TwinRay(depth, weights @ normals, rgb, semantic, starts, sdf, weights, gradients)

    def _near_far(self, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        inverse = 1 / (direction + 1e-6)
        sides = torch.stack([-origin * inverse, (1 - origin) * inverse])
        near, far = sides.amin(0).amax(), sides.amax(0).amin()
        near = near.clamp(min=self.config["collider"]["near_plane"])
        assert near < far, "a ray that misses the range"
        return near, far

    def _spread(
        self, origin: Tensor, direction: Tensor, near: Tensor, far: Tensor, uniform: Tensor | None, pdf: Any
    ) -> Tensor:
        """Edges of the samples, near = 0 and far = 1: even ones, and one round around the surface."""
        sampler = self.config["sampler"]
        n, n_new = sampler["num_samples"], sampler["num_samples_importance"] + 1
        edges = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        if uniform is not None:
            middle = (edges[1:] + edges[:-1]) / 2
            lower, upper = torch.cat([edges[:1], middle]), torch.cat([middle, edges[-1:]])
            edges = lower + (upper - lower) * uniform.double()
        t = near + edges * (far - near)
        sdf = [self._field(origin + direction * one, direction)[0].detach() for one in t[:-1]]
        alpha, last = [], 0.0
        for j in range(n - 1):
            delta = t[j + 1] - t[j]
            own = float((sdf[j + 1] - sdf[j]) / (delta + 1e-5))
            slope, last = max(min(own, last), -1000.0), own
            slope = min(slope, 0.0)
            middle = (sdf[j] + sdf[j + 1]) / 2
            first, second = (torch.sigmoid(64 * (middle + sign * slope * delta / 2)) for sign in (-1, 1))
            alpha.append((first - second + 1e-5) / (first + 1e-5))
        weights = torch.cat([transmitted(torch.stack(alpha)), torch.zeros(1, dtype=torch.float64)])
        weights = weights + (1e-5 - weights.sum()).clamp(min=0) / n
        cdf = torch.cat([edges.new_zeros(1), (weights / weights.sum()).cumsum(0).clamp(max=1)])
        new = []
        for i in range(n_new):
            u = i / n_new + (1 / (2 * n_new) if pdf is None else float(pdf[i]) / n_new)
            above = int((cdf <= u).sum())
            low, high = min(max(above - 1, 0), n), min(max(above, 0), n)
            span = float(cdf[high] - cdf[low])
            share = min(max((u - float(cdf[low])) / (span if span >= 1e-5 else 1.0), 0.0), 1.0)
            new.append(edges[low] + share * (edges[high] - edges[low]))
        merged = torch.cat([edges[:-1], torch.stack(new[:-1])]).sort().values
        return torch.cat([merged, torch.maximum(edges[-1], new[-1])[None]])

    def _field(self, point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """SDF, its gradient, colour and semantics."""
        field = self.config["field"]
        point = point.detach().requires_grad_()
        feature = read(self.volume, point)
        found = decoded(self.state, "sdf", field["sdf_decoder"]["n_blocks"], point, feature)
        (gradient,) = torch.autograd.grad(found[0], point)
        rest = {"rgb": [gradient, feature, found[1:], direction], "semantic": [gradient, feature, found[1:]]}
        color, semantic = (
            decoded(self.state, name, field[f"{name}_decoder"]["n_blocks"], point, torch.cat(rest[name]))
            if field.get(f"{name}_decoder")
            else None
            for name in ("rgb", "semantic")
        )
        return found[0].detach(), gradient.detach(), color, semantic
