"""Augmentation of scenes.

Frames, sweeps and boxes move with the points wherever the motion is a similarity. Jitter and elastic
distortion move points alone: they are small, and cameras and boxes cannot follow. Colours are those that the
encoder sees, 0..255; images keep theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.data.augment_config import (
    AugmentConfig,
    AutoContrastConfig,
    CentreShiftConfig,
    ColorDropConfig,
    ColorJitterConfig,
    ColorStep,
    ColorTranslationConfig,
    DropoutConfig,
    ElasticConfig,
    FlipConfig,
    GeometryStep,
    IntensityDropConfig,
    JitterConfig,
    NormalDropConfig,
    RotateConfig,
    ScaleConfig,
    ShiftConfig,
)
from ponderv2.data.label_budget import with_budget
from ponderv2.errors import SceneError
from ponderv2.geometry.transforms import flip_matrix, rotation_matrix, scale_matrix, translation_matrix
from ponderv2.scenes.scene import Scene

Color = Float[Tensor, "point 3"]
"""Colours of points, 0..255."""


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number drawn uniformly between two limits."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def middle(coord: Float[Tensor, "point 3"]) -> Float[Tensor, "3"]:
    """Middle of the bounding box; the origin where there are no points."""
    if len(coord) == 0:
        return coord.new_zeros(3)
    return (coord.amin(dim=0) + coord.amax(dim=0)) / 2


def centre_shift_matrix(coord: Float[Tensor, "point 3"], apply_z: bool) -> Float[Tensor, "4 4"]:
    """Middle of the bounding box to x = y = 0 and, with `apply_z`, the lowest point to z = 0."""
    shift = -middle(coord.double())
    shift[2] = -coord[:, 2].amin().double() if apply_z and len(coord) else 0.0
    return translation_matrix(shift)


def centre_shift(scene: Scene, apply_z: bool) -> Scene:
    """The scene with its middle at x = y = 0 and, with `apply_z`, its lowest point at z = 0."""
    return scene.moved(centre_shift_matrix(scene.cloud.coord, apply_z))


def random_rotation(scene: Scene, config: RotateConfig, generator: torch.Generator) -> Scene:
    """Rotate about one axis, with the configured probability and range.

    Raises:
        SceneError: the scene has boxes, which turn about z only.
    """
    if scene.boxes is not None and config.axis != "z":
        raise SceneError(
            f"scene '{scene.name}' has boxes, which cannot turn about {config.axis}",
            fix="leave the rotations about x and y out of data.augment",
        )
    chance = uniform(0.0, 1.0, generator)
    angle = uniform(*config.half_turns, generator) * math.pi
    if chance >= config.probability:
        return scene
    centre = middle(scene.cloud.coord) if config.centre == "middle" else None
    return scene.moved(rotation_matrix(angle, config.axis, centre))


def random_scale(scene: Scene, config: ScaleConfig, generator: torch.Generator) -> Scene:
    """Multiply all lengths by one factor."""
    return scene.moved(scale_matrix(uniform(*config.limits, generator)))


def random_shift(scene: Scene, config: ShiftConfig, generator: torch.Generator) -> Scene:
    """Move by a normally distributed vector."""
    return scene.moved(translation_matrix(torch.randn(3, generator=generator).double() * config.sigma))


def random_flip(scene: Scene, config: FlipConfig, generator: torch.Generator) -> Scene:
    """Mirror x and y, each with its own draw."""
    x, y = (uniform(0.0, 1.0, generator) < config.probability for _ in range(2))
    return scene.moved(flip_matrix(x, y)) if x or y else scene


def jitter(scene: Scene, config: JitterConfig, generator: torch.Generator) -> Scene:
    """Noise on every point, at most `clip` in each axis. Cameras and boxes stay."""
    noise = torch.randn(scene.cloud.coord.shape, generator=generator) * config.sigma
    coord = scene.cloud.coord + noise.clamp(-config.clip, config.clip)
    return replace(scene, cloud=replace(scene.cloud, coord=coord))


def dropout(scene: Scene, config: DropoutConfig, generator: torch.Generator) -> Scene:
    """Keep int(n (1 - ratio)) random points, and every point of a label budget; at least one."""
    if uniform(0.0, 1.0, generator) >= config.probability:
        return scene
    n = len(scene.cloud)
    kept = torch.randperm(n, generator=generator)[: max(1, int(n * (1.0 - config.ratio)))]
    return scene.take(with_budget(kept, scene.cloud))


def stretch_contrast(color: Float[Tensor, "point 3"], blend: float) -> Float[Tensor, "point 3"]:
    """Every channel stretched to 0..255, blended with the original. A constant channel stays as it is."""
    low, high = color.amin(dim=0), color.amax(dim=0)
    extent = high - low
    stretched = (color - low) * (255.0 / extent.clamp(min=1e-6))
    return torch.where(extent > 1e-6, (1.0 - blend) * color + blend * stretched, color)


def translate_color(color: Float[Tensor, "point 3"], shift: Float[Tensor, "3"]) -> Float[Tensor, "point 3"]:
    """One colour added to all points, clipped to 0..255."""
    return (color + shift).clamp(0.0, 255.0)


def random_auto_contrast(color: Color, config: AutoContrastConfig, generator: torch.Generator) -> Color:
    """Stretch the contrast with the configured probability."""
    chance, drawn = uniform(0.0, 1.0, generator), uniform(0.0, 1.0, generator)
    if chance >= config.probability:
        return color
    return stretch_contrast(color, drawn if config.blend is None else config.blend)


def random_color_translation(
    color: Color, config: ColorTranslationConfig, generator: torch.Generator
) -> Color:
    """Add one random colour with the configured probability."""
    chance = uniform(0.0, 1.0, generator)
    shift = (torch.rand(3, generator=generator) - 0.5) * 255.0 * 2.0 * config.ratio
    return color if chance >= config.probability else translate_color(color, shift)


def random_color_jitter(color: Color, config: ColorJitterConfig, generator: torch.Generator) -> Color:
    """Noise on the colour of every point with the configured probability."""
    if uniform(0.0, 1.0, generator) >= config.probability:
        return color
    noise = torch.randn(color.shape, generator=generator) * (config.std * 255.0)
    return (color + noise).clamp(0.0, 255.0)


def random_color_drop(color: Color, config: ColorDropConfig, generator: torch.Generator) -> Color:
    """Hide the colours of the scene, or of single points."""
    everything = uniform(0.0, 1.0, generator) < config.probability
    hidden = torch.rand(len(color), generator=generator) < (1.0 if everything else config.point_probability)
    return color.masked_fill(hidden[:, None], config.value)


def random_normal_drop(
    normal: Float[Tensor, "point 3"], config: NormalDropConfig, generator: torch.Generator
) -> Float[Tensor, "point 3"]:
    """Hide the normals of the scene, or of single points: zero."""
    everything = uniform(0.0, 1.0, generator) < config.probability
    hidden = torch.rand(len(normal), generator=generator) < (1.0 if everything else config.point_probability)
    return normal.masked_fill(hidden[:, None], 0.0)


def smooth_noise(noise: Float[Tensor, "3 x y z"]) -> Float[Tensor, "3 x y z"]:
    """Two rounds of averaging over 3 cells along x, y and z, zeros outside."""
    value = noise[:, None]
    for _ in range(2):
        for axis in range(3):
            shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
            shape[2 + axis], padding[axis] = 3, 1
            value = F.conv3d(value, value.new_full(shape, 1.0 / 3.0), padding=padding)
    return value[:, 0]


def noise_shape(coord: Float[Tensor, "point 3"], cell: float) -> tuple[int, int, int]:
    """Nodes of the noise grid along x, y, z."""
    extent = coord.amax(dim=0) - coord.amin(dim=0)
    x, y, z = (torch.floor(extent.double() / cell).long() + 3).tolist()
    return x, y, z


def elastic_distortion(
    coord: Float[Tensor, "point 3"], noise: Float[Tensor, "3 x y z"], cell: float, magnitude: float
) -> Float[Tensor, "point 3"]:
    """Points moved by smoothed noise, interpolated linearly.

    `noise` has the shape of `noise_shape`; its first node lies one cell below the lowest corner of the
    points, and nodes are one cell apart.
    """
    smooth = smooth_noise(noise)
    lower = coord.amin(dim=0) - cell
    nodes = coord.new_tensor(noise.shape[1:])
    upper = coord.amin(dim=0) + cell * (nodes - 2)
    position = 2.0 * (coord - lower) / (upper - lower) - 1.0
    # grid_sample takes (z, y, x) of a volume [channel, x, y, z].
    moved = F.grid_sample(smooth[None], position.flip(-1)[None, None, None], align_corners=True)
    return coord + moved[0, :, 0, 0].T * magnitude


def random_elastic(scene: Scene, config: ElasticConfig, generator: torch.Generator) -> Scene:
    """Bend the points with the configured probability; cameras, boxes and normals stay."""
    if uniform(0.0, 1.0, generator) >= config.probability or len(scene.cloud) == 0:
        return scene
    coord = scene.cloud.coord
    for cell, magnitude in config.rounds:
        noise = torch.randn((3, *noise_shape(coord, cell)), generator=generator)
        coord = elastic_distortion(coord, noise, cell, magnitude)
    return replace(scene, cloud=replace(scene.cloud, coord=coord))


def augment(scene: Scene, steps: Iterable[AugmentConfig], generator: torch.Generator) -> Scene:
    """The scene after all steps, in order. The scene that was given is not changed."""
    for step in steps:
        if isinstance(step, NormalDropConfig):
            scene = _without_normals(scene, step, generator)
        elif isinstance(step, IntensityDropConfig):
            scene = _without_intensities(scene, step, generator)
        elif not isinstance(step, ColorStep):
            scene = _moved(scene, step, generator)
        elif scene.cloud.color is not None:
            color = _augmented_color(scene.cloud.color, step, generator)
            scene = replace(scene, cloud=replace(scene.cloud, color=color))
    return scene


def _without_normals(scene: Scene, step: NormalDropConfig, generator: torch.Generator) -> Scene:
    if scene.cloud.normal is None:
        return scene
    normal = random_normal_drop(scene.cloud.normal, step, generator)
    return replace(scene, cloud=replace(scene.cloud, normal=normal))


def _without_intensities(scene: Scene, step: IntensityDropConfig, generator: torch.Generator) -> Scene:
    known = scene.cloud.fields.get("intensity")
    if known is None:
        return scene
    everything = uniform(0.0, 1.0, generator) < step.probability
    hidden = torch.rand(len(known), generator=generator) < (1.0 if everything else step.point_probability)
    fields = {**scene.cloud.fields, "intensity": known.masked_fill(hidden, 0.0)}
    return replace(scene, cloud=replace(scene.cloud, fields=fields))


def _moved(scene: Scene, step: GeometryStep, generator: torch.Generator) -> Scene:
    match step:
        case CentreShiftConfig():
            return centre_shift(scene, step.apply_z)
        case DropoutConfig():
            return dropout(scene, step, generator)
        case RotateConfig():
            return random_rotation(scene, step, generator)
        case ScaleConfig():
            return random_scale(scene, step, generator)
        case ShiftConfig():
            return random_shift(scene, step, generator)
        case FlipConfig():
            return random_flip(scene, step, generator)
        case JitterConfig():
            return jitter(scene, step, generator)
        case ElasticConfig():
            return random_elastic(scene, step, generator)
        case _:
            assert_never(step)


def _augmented_color(color: Color, step: ColorStep, generator: torch.Generator) -> Color:
    match step:
        case AutoContrastConfig():
            return random_auto_contrast(color, step, generator)
        case ColorTranslationConfig():
            return random_color_translation(color, step, generator)
        case ColorJitterConfig():
            return random_color_jitter(color, step, generator)
        case ColorDropConfig():
            return random_color_drop(color, step, generator)
        case _:
            assert_never(step)
