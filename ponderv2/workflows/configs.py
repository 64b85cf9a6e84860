"""What a preset may say, per command. Composed of the packages' settings; never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig
from ponderv2.models.config import PretextConfig
from ponderv2.scenes.config import PretrainDataConfig
from ponderv2.training.config import TrainingConfig


class PresetConfig(StrictConfig):
    """What every preset says about itself."""

    description: str = ""
    """One sentence: what this run does."""
    needs: str = ""
    """Data, memory and hardware that the run expects."""
    cost: str = ""
    """Time and disk space that the run takes, and where that was measured."""


class PretrainConfig(PresetConfig):
    """`ponder pretrain`."""

    scenes: Path = Path("data/rooms")
    """Folder of prepared scenes, unless `--data` names another."""
    train_split: str = "train"
    val_split: str = "val"
    """Scenes whose held-out views are rendered for validation."""
    seed: NonNegativeInt = 0
    """Of the weights, the order of the scenes, the augmentations and the rays."""
    data: PretrainDataConfig = PretrainDataConfig()
    model: PretextConfig
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _channels_agree(self) -> PretrainConfig:
        if self.model.encoder.in_channels != self.data.n_channels:
            raise ValueError(
                f"data.features give {self.data.n_channels} channels, "
                f"but model.encoder.in_channels is {self.model.encoder.in_channels}"
            )
        return self


class OwnCamerasConfig(StrictConfig):
    """The scene's own cameras, which have real pictures to compare with."""

    kind: Literal["own"] = "own"
    stride: PositiveInt = 1
    """Every stride-th frame."""


class InterpolatedPathConfig(StrictConfig):
    """A smooth flight through the scene's own cameras."""

    kind: Literal["interpolated"] = "interpolated"
    n_frames: PositiveInt = 60
    """Pictures of the whole flight."""


class OrbitPathConfig(StrictConfig):
    """A circle around the middle of the scene, looking at it."""

    kind: Literal["orbit"] = "orbit"
    n_frames: PositiveInt = 60
    radius: PositiveFloat | None = None
    """Metres; by default what keeps the camera inside the observed room."""
    height: float | None = None
    """Metres above the lowest point; by default the mean height of the scene's own cameras."""


class CameraFileConfig(StrictConfig):
    """Cameras read from a JSON file."""

    kind: Literal["file"] = "file"
    path: Path
    """Frames with `camera_to_world` 4x4, and `intrinsics` 3x3 with `width` and `height` per file or frame."""


CameraPathConfig = Annotated[
    OwnCamerasConfig | InterpolatedPathConfig | OrbitPathConfig | CameraFileConfig,
    Field(discriminator="kind"),
]

Picture = Literal["color", "depth", "normal", "semantic"]


class RenderConfig(PresetConfig):
    """`ponder render`."""

    cameras: CameraPathConfig = OwnCamerasConfig()
    pictures: tuple[Picture, ...] = ("color", "depth", "normal", "semantic")
    """What is written per camera; semantic is left out where the model has no classes."""
    width: PositiveInt | None = None
    """Pixels; by default the width of the scene's frames. The height follows."""
    chunk: PositiveInt = 4096
    """Rays rendered at once. Halved by itself when memory runs out."""
    side_by_side: bool = False
    """Also write the rendered picture beside the real frame."""
    video: Literal["none", "mp4", "gif"] = "none"
    frames_per_second: PositiveInt = 15
    depth_range: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """Metres that the colours of depth pictures span; by default the range of the scene."""
    device: str = "auto"
    """auto, cpu or cuda."""


class RefineConfig(StrictConfig):
    """Optimise the volume and the decoders on the scene's own frames before they are used."""

    steps: NonNegativeInt = 0
    """0 = use the model as it is."""
    learning_rate: PositiveFloat = 1.0e-3
    """Of the decoders."""
    volume_learning_rate: PositiveFloat = 1.0e-2
    """Of the cells of the volume."""
    n_rays: PositiveInt = 1024
    """Rays per step, drawn from all frames of the scene."""
    max_seconds: PositiveFloat | None = None
    """Stop after this time, whatever the number of steps."""
    seed: NonNegativeInt = 0


class TsdfConfig(StrictConfig):
    """Fusion of depth frames into a truncated signed distance."""

    voxel_size: PositiveFloat = 0.02
    """Metres."""
    truncation: PositiveFloat = 0.08
    """Metres."""
    max_depth: PositiveFloat = 6.0
    """Metres; depth beyond it is not fused."""
    min_weight: NonNegativeFloat = 1.0
    """Cells seen less often than this give no surface."""
    stride: PositiveInt = 1
    """Every stride-th frame."""


class ReconstructConfig(PresetConfig):
    """`ponder reconstruct`."""

    method: Literal["field", "tsdf"] = "field"
    """field: the signed distance of a model. tsdf: fusion of the scene's depth frames, without a model."""
    resolution: PositiveInt = 256
    """Cells along the longest side of the scene."""
    refine: RefineConfig = RefineConfig()
    tsdf: TsdfConfig = TsdfConfig()
    crop_to_observed: bool = True
    """Drop surface that no frame could have seen."""
    crop_margin: NonNegativeFloat = 0.10
    """Metres from the scene's points within which surface is kept."""
    min_component_faces: NonNegativeInt = 100
    """Smaller separate pieces of surface are dropped."""
    color: bool = True
    """Colour per vertex."""
    threshold: PositiveFloat = 0.05
    """Metres: the distance of precision, recall and F-score against a reference mesh."""
    device: str = "auto"
    """auto, cpu or cuda."""


CONFIG_OF_COMMAND: dict[str, type[PresetConfig]] = {
    "pretrain": PretrainConfig,
    "render": RenderConfig,
    "reconstruct": ReconstructConfig,
}
"""The settings of each command that takes a preset; the keys are the folders of `presets/`."""
