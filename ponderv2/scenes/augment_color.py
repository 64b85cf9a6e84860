"""Augmentations of the colours that the encoder sees, 0..255. Photographs keep theirs."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.scenes.augment_geometry import uniform
from ponderv2.scenes.config import (
    AutoContrastConfig,
    ColorDropConfig,
    ColorJitterConfig,
    ColorTranslationConfig,
)
from ponderv2.scenes.scene import Scene


def stretch_contrast(color: Float[Tensor, "point 3"], blend: float) -> Float[Tensor, "point 3"]:
    """Every channel stretched to 0..255, blended with the original. A constant channel stays as it is."""
    low, high = color.amin(dim=0), color.amax(dim=0)
    extent = high - low
    stretched = (color - low) * (255.0 / extent.clamp(min=1e-6))
    return torch.where(extent > 1e-6, (1.0 - blend) * color + blend * stretched, color)


def translate_color(color: Float[Tensor, "point 3"], shift: Float[Tensor, "3"]) -> Float[Tensor, "point 3"]:
    """One colour added to all points, clipped to 0..255."""
    return (color + shift).clamp(0.0, 255.0)


def random_auto_contrast(scene: Scene, config: AutoContrastConfig, generator: torch.Generator) -> Scene:
    """Stretch the contrast with the chance of the settings."""
    chance, drawn = uniform(0.0, 1.0, generator), uniform(0.0, 1.0, generator)
    if chance >= config.probability:
        return scene
    return with_color(
        scene, stretch_contrast(scene.cloud.color, drawn if config.blend is None else config.blend)
    )


def random_color_translation(
    scene: Scene, config: ColorTranslationConfig, generator: torch.Generator
) -> Scene:
    """Add one random colour with the chance of the settings."""
    chance = uniform(0.0, 1.0, generator)
    shift = (torch.rand(3, generator=generator) - 0.5) * 255.0 * 2.0 * config.ratio
    return (
        scene
        if chance >= config.probability
        else with_color(scene, translate_color(scene.cloud.color, shift))
    )


def random_color_jitter(scene: Scene, config: ColorJitterConfig, generator: torch.Generator) -> Scene:
    """Noise on the colour of every point with the chance of the settings."""
    if uniform(0.0, 1.0, generator) >= config.probability:
        return scene
    noise = torch.randn(scene.cloud.color.shape, generator=generator) * (config.std * 255.0)
    return with_color(scene, (scene.cloud.color + noise).clamp(0.0, 255.0))


def random_color_drop(scene: Scene, config: ColorDropConfig, generator: torch.Generator) -> Scene:
    """Hide the colours of the scene, or of single points."""
    everything = uniform(0.0, 1.0, generator) < config.probability
    hidden = torch.rand(len(scene.cloud), generator=generator) < (
        1.0 if everything else config.point_probability
    )
    return with_color(scene, scene.cloud.color.masked_fill(hidden[:, None], config.value))


def with_color(scene: Scene, color: Float[Tensor, "point 3"]) -> Scene:
    """The scene with other point colours."""
    return replace(scene, cloud=replace(scene.cloud, color=color))
