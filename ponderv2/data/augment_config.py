"""Settings of the steps that augment a scene, and the published pipelines of them. Never imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from ponderv2.config import StrictConfig

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class CentreShiftConfig(StrictConfig):
    """Put the middle of the points at x = y = 0 and, with `apply_z`, the lowest point at z = 0."""

    kind: Literal["centre_shift"] = "centre_shift"
    apply_z: bool = True


class DropoutConfig(StrictConfig):
    """Drop a random share of the points, but none of a label budget."""

    kind: Literal["dropout"] = "dropout"
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of the points that is dropped."""
    probability: Probability = 0.2


class RotateConfig(StrictConfig):
    """Rotate the scene about one axis by a uniformly drawn angle."""

    kind: Literal["rotate"] = "rotate"
    axis: Literal["x", "y", "z"] = "z"
    half_turns: tuple[float, float] = (-1.0, 1.0)
    """Limits of the angle, in units of pi."""
    centre: Literal["origin", "middle"] = "origin"
    """About the origin or the middle of the bounding box."""
    probability: Probability = 0.5


class ScaleConfig(StrictConfig):
    """Multiply all lengths by one uniformly drawn factor. Depth images stay in metres."""

    kind: Literal["scale"] = "scale"
    limits: tuple[PositiveFloat, PositiveFloat] = (0.9, 1.1)


class ShiftConfig(StrictConfig):
    """Move the scene by a normally distributed vector."""

    kind: Literal["shift"] = "shift"
    sigma: NonNegativeFloat = 0.5
    """Standard deviation of each coordinate, metres (scene units)."""


class FlipConfig(StrictConfig):
    """Mirror x, and independently y."""

    kind: Literal["flip"] = "flip"
    probability: Probability = 0.5


class JitterConfig(StrictConfig):
    """Move every point by clipped Gaussian noise, metres."""

    kind: Literal["jitter"] = "jitter"
    sigma: NonNegativeFloat = 0.005
    clip: PositiveFloat = 0.02


class ElasticConfig(StrictConfig):
    """Displace the points by smooth noise. Cameras cannot follow, so it is refused for pre-training."""

    kind: Literal["elastic"] = "elastic"
    rounds: tuple[tuple[PositiveFloat, PositiveFloat], ...] = ((0.2, 0.4), (0.8, 1.6))
    """Pairs of noise cell and magnitude, metres."""
    probability: Probability = 0.95


class AutoContrastConfig(StrictConfig):
    """Stretch every colour channel to 0..255 and blend the result with the original."""

    kind: Literal["auto_contrast"] = "auto_contrast"
    probability: Probability = 0.2
    blend: Probability | None = None
    """Share of the stretched colours; drawn uniformly when not given."""


class ColorTranslationConfig(StrictConfig):
    """Add one random colour to all points."""

    kind: Literal["color_translation"] = "color_translation"
    probability: Probability = 0.95
    ratio: NonNegativeFloat = 0.05
    """Largest shift of a channel, as a share of 255."""


class ColorJitterConfig(StrictConfig):
    """Add Gaussian noise to the colour of every point."""

    kind: Literal["color_jitter"] = "color_jitter"
    probability: Probability = 0.95
    std: NonNegativeFloat = 0.05
    """Standard deviation, as a share of 255."""


class ColorDropConfig(StrictConfig):
    """Hide the colours of the whole scene or of single points from the encoder; images keep theirs."""

    kind: Literal["color_drop"] = "color_drop"
    probability: Probability = 0.2
    """Of hiding all colours of a scene."""
    point_probability: Probability = 0.0
    """Of hiding the colour of each point, independently."""
    value: Annotated[float, Field(ge=0.0, le=255.0)] = 127.5
    """The colour that stands for 'hidden'; 127.5 becomes feature 0."""


class NormalDropConfig(StrictConfig):
    """Hide the normals of the whole scene or of single points from the encoder: their feature is 0."""

    kind: Literal["normal_drop"] = "normal_drop"
    probability: Probability = 0.2
    """Of hiding all normals of a scene."""
    point_probability: Probability = 0.0
    """Of hiding the normal of each point, independently."""


class IntensityDropConfig(StrictConfig):
    """Hide the intensities of the whole scene or of single points from the encoder: their feature is 0."""

    kind: Literal["intensity_drop"] = "intensity_drop"
    probability: Probability = 0.2
    """Of hiding all intensities of a scene."""
    point_probability: Probability = 0.0
    """Of hiding the intensity of each point, independently."""


GeometryStep = (
    CentreShiftConfig
    | DropoutConfig
    | RotateConfig
    | ScaleConfig
    | ShiftConfig
    | FlipConfig
    | JitterConfig
    | ElasticConfig
)
ColorStep = AutoContrastConfig | ColorTranslationConfig | ColorJitterConfig | ColorDropConfig
AugmentConfig = Annotated[
    GeometryStep | ColorStep | NormalDropConfig | IntensityDropConfig, Field(discriminator="kind")
]


def _published_geometry() -> tuple[AugmentConfig, ...]:
    return (
        RotateConfig(axis="z", half_turns=(-1.0, 1.0), centre="origin"),
        RotateConfig(axis="x", half_turns=(-1 / 64, 1 / 64), centre="middle"),
        RotateConfig(axis="y", half_turns=(-1 / 64, 1 / 64), centre="middle"),
        ScaleConfig(),
        FlipConfig(),
    )


def published_pretraining_augmentations() -> tuple[AugmentConfig, ...]:
    """The published indoor pre-training pipeline up to voxelisation: a fifth of the points, moved rigidly."""
    return (CentreShiftConfig(), DropoutConfig(ratio=0.8, probability=1.0), *_published_geometry())


def published_segmentation_augmentations(
    dropout_probability: float = 0.2, color_ratio: float = 0.05
) -> tuple[AugmentConfig, ...]:
    """The published indoor fine-tuning pipeline up to voxelisation."""
    return (
        CentreShiftConfig(),
        DropoutConfig(ratio=0.2, probability=dropout_probability),
        *_published_geometry(),
        JitterConfig(),
        ElasticConfig(),
        AutoContrastConfig(),
        ColorTranslationConfig(ratio=color_ratio),
        ColorJitterConfig(),
    )
