"""Settings of rendering paths, refinement and meshes. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import StrictConfig


class OwnCamerasConfig(StrictConfig):
    """The scene's own cameras, which have recorded images to compare with."""

    kind: Literal["own"] = "own"
    only: Literal["all", "held_out"] = "all"
    """held_out: the frames that neither training nor refinement uses."""
    stride: PositiveInt = 1
    """Every stride-th of them."""


class InterpolatedPathConfig(StrictConfig):
    """A smooth flight through the scene's own cameras."""

    kind: Literal["interpolated"] = "interpolated"
    n_frames: PositiveInt = 60
    """Of the whole flight."""
    n_keys: Annotated[int, Field(ge=2)] = 12
    """Own cameras, spread over the recording, that the flight passes."""


class OrbitPathConfig(StrictConfig):
    """A circle around the middle of the scene, looking at it."""

    kind: Literal["orbit"] = "orbit"
    n_frames: PositiveInt = 60
    radius: PositiveFloat | None = None
    """Metres; by default what keeps the camera inside the observed room."""
    height: float | None = None
    """Metres above the lowest point; by default the mean height of the scene's own cameras."""


class CameraFileConfig(StrictConfig):
    """Cameras read from a JSON file: our own, nerfstudio's camera_path.json, or a transforms.json."""

    kind: Literal["file"] = "file"
    path: Path
    """Described in docs/formats.md."""


CameraPathConfig = Annotated[
    OwnCamerasConfig | InterpolatedPathConfig | OrbitPathConfig | CameraFileConfig,
    Field(discriminator="kind"),
]

ImageKind = Literal["color", "depth", "normal", "semantic"]


class RefineConfig(StrictConfig):
    """Optimise the scene's own volume and decoder on the scene's own frames before they are used."""

    steps: NonNegativeInt = 0
    """0 = use the model as it is."""
    max_seconds: PositiveFloat | None = None
    """Stop after this time, whatever the number of steps."""
    n_rays: PositiveInt = 2048
    """Rays per step, drawn from all frames that are not held out."""
    max_frames: PositiveInt = 400
    """Frames held in memory; longer recordings are thinned to that many."""
    cell: PositiveFloat = 0.03
    """Metres between values of signed distance and colour feature near observed surfaces."""
    coarse_factor: PositiveInt = 4
    """Cells of the volume that covers everything are this much larger."""
    detail_cell: PositiveFloat | None = 0.015
    """Metres between values of fine colour; None = no finer than `cell`."""
    channels: Annotated[int, Field(ge=3)] = 12
    """Of the colour feature; the first three are colours before the logistic function."""
    detail_channels: Annotated[int, Field(ge=3)] = 6
    hidden: PositiveInt = 32
    """Width of the colour decoder."""
    truncation: PositiveFloat = 0.06
    """Metres around a measured depth in which the signed distance is compared with it."""
    n_near: PositiveInt = 12
    """Samples of a ray around its measured depth."""
    n_free: PositiveInt = 6
    """Samples of a ray in the free space before that."""
    learning_rate: PositiveFloat = 3.0e-3
    """Of the decoder and the exposure of each frame."""
    volume_learning_rate: PositiveFloat = 2.0e-2
    """Of the colour features of the cells."""
    distance_learning_rate: PositiveFloat = 4.0e-3
    """Of the signed distances of the cells, metres."""
    inv_s: tuple[PositiveFloat, PositiveFloat] = (20.0, 300.0)
    """1/metre: inverse steepness of NeuS at the beginning, and from two thirds on."""
    exposure: bool = True
    """Learn one brightness per colour and frame; images in between take the mean of their neighbours'."""
    color_weight: NonNegativeFloat = 5.0
    distance_weight: NonNegativeFloat = 5.0
    free_space_weight: NonNegativeFloat = 5.0
    depth_weight: NonNegativeFloat = 0.5
    opacity_weight: NonNegativeFloat = 0.01
    """Pulls the opacity of pixels with a measured depth to 1."""
    seed: NonNegativeInt = 0


class RenderedPointsConfig(StrictConfig):
    """Points where the cameras of a scene render a surface."""

    stride: PositiveInt = 4
    """Every n-th pixel of every n-th row."""
    max_frames: PositiveInt = 60
    """More frames are thinned to that many."""
    chunk: PositiveInt = 4096
    """Rays at once."""


class TsdfConfig(StrictConfig):
    """Fusion of depth frames into a truncated signed distance."""

    voxel_size: PositiveFloat = 0.02
    """Metres."""
    truncation: PositiveFloat = 0.08
    """Metres."""
    max_depth: PositiveFloat = 6.0
    """Metres; depth beyond it is not fused."""
    min_weight: NonNegativeFloat = 1.0
    """Cells observed in fewer frames give no surface."""
    stride: PositiveInt = 1
    """Every stride-th frame."""
    include_held_out: bool = True
    """Also fuse the frames that are held out."""
