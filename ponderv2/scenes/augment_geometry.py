"""Augmentations that move points; cameras move with them wherever the motion is a similarity."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.scenes.config import DropoutConfig, FlipConfig, JitterConfig, RotateConfig, ScaleConfig
from ponderv2.scenes.scene import PointCloud, Scene

AXES = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number drawn evenly between two limits."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def middle(coord: Float[Tensor, "point 3"]) -> Float[Tensor, "3"]:
    """Middle of the bounding box."""
    return (coord.amin(dim=0) + coord.amax(dim=0)) / 2


def translation_matrix(shift: Float[Tensor, "3"]) -> Float[Tensor, "4 4"]:
    """x' = x + shift."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = shift.double()
    return matrix


def rotation_matrix(
    angle: float, axis: Literal["x", "y", "z"], centre: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "4 4"]:
    """Right-handed rotation by `angle` radians about an axis through `centre` (the origin when None)."""
    first, second = AXES[axis]
    turn = torch.eye(4, dtype=torch.float64)
    turn[first, first] = turn[second, second] = math.cos(angle)
    turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
    if centre is None:
        return turn
    return translation_matrix(centre) @ turn @ translation_matrix(-centre)


def scale_matrix(factor: float) -> Float[Tensor, "4 4"]:
    """x' = factor x."""
    return torch.diag(torch.tensor([factor, factor, factor, 1.0], dtype=torch.float64))


def flip_matrix(x: bool, y: bool) -> Float[Tensor, "4 4"]:
    """Mirror the chosen axes."""
    return torch.diag(torch.tensor([-1.0 if x else 1.0, -1.0 if y else 1.0, 1.0, 1.0], dtype=torch.float64))


def centre_shift_matrix(coord: Float[Tensor, "point 3"], apply_z: bool) -> Float[Tensor, "4 4"]:
    """Middle of the bounding box to x = y = 0 and, with `apply_z`, the lowest point to z = 0."""
    shift = -middle(coord.double())
    shift[2] = -coord[:, 2].amin().double() if apply_z else 0.0
    return translation_matrix(shift)


def centre_shift(scene: Scene, apply_z: bool) -> Scene:
    """The scene with its middle at x = y = 0 and, with `apply_z`, its lowest point at z = 0."""
    return scene.moved(centre_shift_matrix(scene.cloud.coord, apply_z))


def random_rotation(scene: Scene, config: RotateConfig, generator: torch.Generator) -> Scene:
    """Turn about one axis, with the chance and the limits of the settings."""
    chance = uniform(0.0, 1.0, generator)
    angle = uniform(*config.half_turns, generator) * math.pi
    if chance >= config.probability:
        return scene
    centre = middle(scene.cloud.coord) if config.centre == "middle" else None
    return scene.moved(rotation_matrix(angle, config.axis, centre))


def random_scale(scene: Scene, config: ScaleConfig, generator: torch.Generator) -> Scene:
    """Multiply all lengths by one factor."""
    return scene.moved(scale_matrix(uniform(*config.limits, generator)))


def random_flip(scene: Scene, config: FlipConfig, generator: torch.Generator) -> Scene:
    """Mirror x and y, each with its own draw."""
    x, y = (uniform(0.0, 1.0, generator) < config.probability for _ in range(2))
    return scene.moved(flip_matrix(x, y)) if x or y else scene


def jitter(scene: Scene, config: JitterConfig, generator: torch.Generator) -> Scene:
    """Noise on every point, at most `clip` in each axis. Cameras stay."""
    noise = torch.randn(scene.cloud.coord.shape, generator=generator) * config.sigma
    return with_coord(scene, scene.cloud.coord + noise.clamp(-config.clip, config.clip))


def with_coord(scene: Scene, coord: Float[Tensor, "point 3"]) -> Scene:
    """The scene with its points elsewhere; cameras and normals stay."""
    return replace(scene, cloud=replace(scene.cloud, coord=coord))


def dropout(scene: Scene, config: DropoutConfig, generator: torch.Generator) -> Scene:
    """Keep int(n (1 - ratio)) random points, and every point of a label budget; at least one."""
    if uniform(0.0, 1.0, generator) >= config.probability:
        return scene
    n = len(scene.cloud)
    kept = torch.randperm(n, generator=generator)[: max(1, int(n * (1.0 - config.ratio)))]
    return replace(scene, cloud=scene.cloud.take(with_budget(kept, scene.cloud)))


def with_budget(kept: Int[Tensor, " kept"], cloud: PointCloud) -> Int[Tensor, " all"]:
    """The kept points and, after them, the points of a label budget that were not kept."""
    if "labelled" not in cloud.labels:
        return kept
    missing = cloud.labels["labelled"] > 0
    missing[kept] = False
    return torch.cat([kept, torch.nonzero(missing)[:, 0]])
