"""Augmentation: a list of settings applied to a scene, with one source of randomness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import torch

from ponderv2.scenes import augment_color as color
from ponderv2.scenes import augment_geometry as geometry
from ponderv2.scenes.config import (
    AugmentConfig,
    AutoContrastConfig,
    CentreShiftConfig,
    ColorDropConfig,
    ColorJitterConfig,
    ColorTranslationConfig,
    DropoutConfig,
    ElasticConfig,
    FlipConfig,
    JitterConfig,
    RotateConfig,
    ScaleConfig,
)
from ponderv2.scenes.elastic import elastic_distortion, noise_shape
from ponderv2.scenes.scene import Scene

ColorStep = AutoContrastConfig | ColorTranslationConfig | ColorJitterConfig | ColorDropConfig
GeometryStep = (
    CentreShiftConfig | DropoutConfig | RotateConfig | ScaleConfig | FlipConfig | JitterConfig | ElasticConfig
)


def augment(scene: Scene, steps: Iterable[AugmentConfig], generator: torch.Generator) -> Scene:
    """The scene after all steps, in order. The scene that was given is not changed."""
    for step in steps:
        if isinstance(step, ColorStep):
            scene = _apply_color(scene, step, generator)
        else:
            scene = _apply_geometry(scene, step, generator)
    return scene


def _apply_geometry(scene: Scene, step: GeometryStep, generator: torch.Generator) -> Scene:
    match step:
        case CentreShiftConfig():
            return geometry.centre_shift(scene, step.apply_z)
        case DropoutConfig():
            return geometry.dropout(scene, step, generator)
        case RotateConfig():
            return geometry.random_rotation(scene, step, generator)
        case ScaleConfig():
            return geometry.random_scale(scene, step, generator)
        case FlipConfig():
            return geometry.random_flip(scene, step, generator)
        case JitterConfig():
            return geometry.jitter(scene, step, generator)
        case ElasticConfig():
            return random_elastic(scene, step, generator)
        case _:
            assert_never(step)


def _apply_color(scene: Scene, step: ColorStep, generator: torch.Generator) -> Scene:
    match step:
        case AutoContrastConfig():
            return color.random_auto_contrast(scene, step, generator)
        case ColorTranslationConfig():
            return color.random_color_translation(scene, step, generator)
        case ColorJitterConfig():
            return color.random_color_jitter(scene, step, generator)
        case ColorDropConfig():
            return color.random_color_drop(scene, step, generator)
        case _:
            assert_never(step)


def random_elastic(scene: Scene, config: ElasticConfig, generator: torch.Generator) -> Scene:
    """Bend the points with the chance of the settings; cameras and normals stay."""
    if geometry.uniform(0.0, 1.0, generator) >= config.probability:
        return scene
    coord = scene.cloud.coord
    for cell, magnitude in config.rounds:
        noise = torch.randn((3, *noise_shape(coord, cell)), generator=generator)
        coord = elastic_distortion(coord, noise, cell, magnitude)
    return geometry.with_coord(scene, coord)
