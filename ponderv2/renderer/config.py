"""Settings of the renderer: field, samplers, opacity and losses.

Lengths are in the frame of the rays (with a unit cube per scene: cube edges). Where the published code
behaves in a way that its checkpoints depend on, a named setting chooses; defaults are the correct behaviour.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from ponderv2.config import StrictConfig

Point = tuple[float, float, float]


class DecoderConfig(StrictConfig):
    """A small network that reads the feature again before each of its `n_blocks + 1` layers."""

    hidden: PositiveInt = 128
    n_blocks: NonNegativeInt = 1
    """0 makes the decoder linear (up to the logistic function of colours): it is then much cheaper."""
    points_factor: float = 0.0
    """How much of the position in the volume (0..1) enters too. Published: 0 indoors, 1 outdoors."""


class FieldConfig(StrictConfig):
    """Signed distance, colour and semantic feature at a point."""

    sdf: DecoderConfig = DecoderConfig(n_blocks=1)
    color: DecoderConfig | None = DecoderConfig(n_blocks=0)
    semantic: DecoderConfig = DecoderConfig(n_blocks=0)
    """Built only when the renderer is given a number of semantic channels."""
    geometry_channels: PositiveInt = 64
    """Outputs of the distance decoder beside the distance; they feed colour and semantics."""
    share_volume: bool = False
    """False: the first half of the channels feeds the distance, the second half colour and semantics."""
    use_gradient: bool = True
    """The gradient of the distance enters colour and semantics."""
    beta_init: PositiveFloat = 0.3
    """Start of the learned width: NeuS slope exp(10 * beta_init), VolSDF width beta_init."""
    initial_distance: float = 0.0
    """Added to the distance at the start of training: 0 as published; above 0 the space starts empty."""
    gradient_in_volume_units: bool = False
    """True: gradients are per edge of the volume's box instead of per unit of the rays' frame, so that the
    eikonal target of 1 and the opacity use other units than the distances (published)."""
    clamp_points: bool = False
    """True: points outside the volume's box are read at its border, at 0 or 0.999 (published where points are
    normalised). False: the feature is zero there."""


Spacing = Literal["uniform", "linear_disparity", "sqrt", "log", "piecewise"]


class UniformSamplerConfig(StrictConfig):
    """Even steps; while training each edge moves at random between its neighbours."""

    kind: Literal["uniform"] = "uniform"
    n_samples: PositiveInt = 96
    spacing: Spacing = "uniform"
    """What the steps are even in: distance, 1/distance, its root, its logarithm, or distance below 1 and
    1/distance above (`piecewise`)."""
    stratified: bool = True
    single_jitter: bool = False
    """One random number per ray instead of one per edge."""


class NeusSamplerConfig(StrictConfig):
    """Even steps, then importance samples near the surface of the signed distance (NeuS)."""

    kind: Literal["neus"] = "neus"
    initial: UniformSamplerConfig = UniformSamplerConfig()
    n_importance: PositiveInt = 36
    """Over all rounds."""
    n_rounds: PositiveInt = 1
    base_inv_s: PositiveFloat = 64.0
    """Inverse steepness 1/s of the logistic function in the first round; doubled each round."""
    normalise_points: bool = True
    """False: the distance is looked up as if points were positions 0..1 in the volume (published)."""


class ErrorBoundedSamplerConfig(StrictConfig):
    """Samples until the error of the opacity is bounded (VolSDF, algorithm 1)."""

    kind: Literal["error_bounded"] = "error_bounded"
    n_samples: PositiveInt = 64
    n_evaluated: PositiveInt = 128
    """Samples at the start, and added in every round."""
    n_extra: NonNegativeInt = 32
    """Even samples added at the end."""
    error: PositiveFloat = 0.1
    n_bisections: PositiveInt = 10
    n_rounds: PositiveInt = 5
    stratified: bool = True
    single_jitter: bool = False
    normalise_points: bool = True
    """False: the distance is looked up as if points were positions 0..1 in the volume (published)."""


SamplerConfig = Annotated[
    UniformSamplerConfig | NeusSamplerConfig | ErrorBoundedSamplerConfig, Field(discriminator="kind")
]


class GuidedSamplerConfig(StrictConfig):
    """Training samples around a measured distance, and some in the free space before it: few are enough."""

    n_free: PositiveInt = 16
    n_near: PositiveInt = 16
    width: PositiveFloat = 0.05
    """The near samples cover this much before and behind the measurement."""


class NeusConfig(StrictConfig):
    """Opacity from the drop of a logistic function along the ray (NeuS)."""

    kind: Literal["neus"] = "neus"


class VolsdfConfig(StrictConfig):
    """Opacity from a density that is a Laplace distribution function of the distance (VolSDF)."""

    kind: Literal["volsdf"] = "volsdf"


OpacityConfig = Annotated[NeusConfig | VolsdfConfig, Field(discriminator="kind")]


class BoxLimitsConfig(StrictConfig):
    """Rays are followed inside one box, the same for all scenes. The default is the published indoor box."""

    kind: Literal["box"] = "box"
    lower: Point = (-0.55, -0.55, -0.55)
    upper: Point = (0.55, 0.55, 0.55)
    near: NonNegativeFloat = 0.01


class VolumeLimitsConfig(StrictConfig):
    """Rays are followed inside the box that their scene's volume covers."""

    kind: Literal["volume"] = "volume"
    near: NonNegativeFloat = 0.01


class FixedLimitsConfig(StrictConfig):
    """Rays are followed between two distances."""

    kind: Literal["fixed"] = "fixed"
    near: NonNegativeFloat = 0.01
    far: PositiveFloat = 2.0


LimitsConfig = Annotated[
    BoxLimitsConfig | VolumeLimitsConfig | FixedLimitsConfig, Field(discriminator="kind")
]


class RendererConfig(StrictConfig):
    """Feature volume and rays -> colour, distance, normal and semantics per ray."""

    field: FieldConfig = FieldConfig()
    limits: LimitsConfig = VolumeLimitsConfig()
    sampler: SamplerConfig = NeusSamplerConfig()
    guided: GuidedSamplerConfig | None = None
    """Replaces the sampler in training where the distance of the surface is known."""
    opacity: OpacityConfig = NeusConfig()
    clip_distance_per_scene: bool = False
    """True: a distance is clipped to all samples of its scene (published). False: to its own ray's."""


class ContrastiveConfig(StrictConfig):
    """Rendered features are pulled towards the text embedding of their class, away from the others'."""

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = 0.01


class ClassesConfig(StrictConfig):
    """Rendered features are class scores, compared with labels by cross-entropy."""

    kind: Literal["classes"] = "classes"


SemanticLossConfig = Annotated[ContrastiveConfig | ClassesConfig, Field(discriminator="kind")]


class RenderLossConfig(StrictConfig):
    """Weights of the terms (0 switches one off) and what they compare."""

    color: NonNegativeFloat = 10.0
    depth: NonNegativeFloat = 1.0
    sdf: NonNegativeFloat = 10.0
    free_space: NonNegativeFloat = 1.0
    eikonal: NonNegativeFloat = 0.01
    semantic: NonNegativeFloat = 0.1
    truncation: PositiveFloat = 0.05
    """Half width of the band around the measured distance in which the signed distance is supervised."""
    semantic_target: SemanticLossConfig = ContrastiveConfig()
    supervise_class_zero: bool = True
    """False: rays of class 0 have no semantic target (published)."""
    color_of_misses: bool = False
    """True: rays that miss the box are pulled to black (published). False: they have no colour target."""


class ImageFeatureTargetConfig(StrictConfig):
    """Features of a frozen image network at the pixel, from the features of the volume along the ray."""

    loss: Literal["cosine", "smooth_l1"] = "cosine"
    """1 - cosine, or the Huber loss of each channel."""
    weight: NonNegativeFloat = 1.0
    n_channels: PositiveInt | None = None
    """Channels per pixel. None: as many as `data.image_features` stores."""


class ClusterTargetConfig(StrictConfig):
    """The cluster of the surroundings of what the pixel shows (`data.clusters`), by cross-entropy."""

    weight: NonNegativeFloat = 1.0
    n_clusters: PositiveInt | None = None
    """None: as many as `data.clusters` finds."""


class NormalTargetConfig(StrictConfig):
    """The normal of the measured depth: |n - m|_1 + |1 - n m| of unit vectors (MonoSDF, equation 12)."""

    weight: NonNegativeFloat = 0.1
    radius: PositiveInt | None = None
    """The normal at a pixel is that of the plane through the pixels at most N columns and rows away. None:
    half a degree, at least 2 pixels."""
    steepest: Annotated[float, Field(gt=0.0, lt=90.0)] = 80.0
    """Degrees between normal and ray. A neighbour that no flatter surface reaches is on another one."""


class TargetsConfig(StrictConfig):
    """What rays are compared with beside colour, depth and class. All of it needs no labels; null = off."""

    image_features: ImageFeatureTargetConfig | None = None
    clusters: ClusterTargetConfig | None = None
    normal: NormalTargetConfig | None = None
    source: Literal["volume", "encoder"] = "volume"
    """What image features and clusters are composited of: the features of the volume, or the encoder's own.
    The network that makes the volume may learn a target in the place of the encoder, whose features are then
    worse than with `encoder`."""
    cells: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """With `source: encoder`: cells of the frame along x, y, z that hold the encoder's features, finer than
    those of the volume where voxels are. None: those of the volume."""

    @model_validator(mode="after")
    def _cells_are_of_the_encoder(self) -> TargetsConfig:
        if self.cells is not None and self.source != "encoder":
            raise ValueError("cells hold features of the encoder: set source to encoder, or leave them out")
        return self

    @property
    def n_outputs(self) -> dict[str, int]:
        """Channels that are made of the composited features of the volume, by target."""
        found: dict[str, int | None] = {}
        if self.image_features is not None:
            found["image_features"] = self.image_features.n_channels
        if self.clusters is not None:
            found["clusters"] = self.clusters.n_clusters
        unknown = [name for name, number in found.items() if number is None]
        if unknown:
            raise ValueError(f"the size of the target '{unknown[0]}' is not known: the data has it")
        return {name: number for name, number in found.items() if number is not None}
