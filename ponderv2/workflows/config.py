"""The settings of each command, composed of the packages' settings. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.checks.config import CheckConfig
from ponderv2.config import NO_EFFECT, SplitName, StrictConfig
from ponderv2.data.config import (
    DatasetPartConfig,
    ImageFeaturesConfig,
    LabelledDataConfig,
    Part,
    PointDataConfig,
    PretrainDataConfig,
    parts_of,
)
from ponderv2.datasets.kinds import DatasetConfig
from ponderv2.encoder.kinds import EncoderConfig
from ponderv2.evaluation.config import LinearProbeConfig, NeighboursConfig, ProbeDataConfig, PurityConfig
from ponderv2.reconstruction.config import (
    CameraPathConfig,
    ImageKind,
    OwnCamerasConfig,
    RefineConfig,
    RenderedPointsConfig,
    TsdfConfig,
)
from ponderv2.tasks.kinds import DEFAULT, DownstreamModelConfig, PretrainModelConfig
from ponderv2.training.config import TrainingConfig


class PresetConfig(StrictConfig):
    """What every preset has besides its settings."""

    description: Annotated[str, NO_EFFECT] = ""
    """One sentence: what this run does."""
    needs: Annotated[str, NO_EFFECT] = ""
    """Data, memory and hardware that the run expects."""
    cost: Annotated[str, NO_EFFECT] = ""
    """Time and disk space that the run takes, and where that was measured."""


class PrepareConfig(PresetConfig):
    """`ponder prepare`."""

    source: DatasetConfig
    """The data set that the scenes are made of."""
    out: Path = Path("data/scenes")
    """Folder of the prepared scenes."""
    workers: PositiveInt | None = None
    """Scenes that are prepared at the same time; by default one per core, with a scheduler all of its own."""
    scheduler: str | None = None
    """A cluster that prepares the scenes: dask://host:port or ray://host:port; it must see the folders."""
    check_space: bool = True
    """Stop before the work starts when the scenes will not fit on the disk, by a rough estimate."""
    check: CheckConfig = CheckConfig()
    image_features: ImageFeaturesConfig | None = None
    """Also compute features of the images, which pre-training may render; null: none."""


class PretrainConfig(PresetConfig):
    """`ponder pretrain`."""

    scenes: Annotated[Path, NO_EFFECT] = Path("data/rooms")
    """Folder of prepared scenes, unless `--data` names another."""
    datasets: tuple[DatasetPartConfig, ...] = ()
    """Several datasets that alternate, in place of `scenes`; `--data` names the folder that holds theirs."""
    train_split: SplitName = "train"
    val_split: Annotated[SplitName, NO_EFFECT] = "val"
    """Scenes whose held-out views are rendered for validation."""
    seed: NonNegativeInt = 0
    """Of the weights, the order of the scenes, the augmentations and the rays."""
    data: PretrainDataConfig = PretrainDataConfig()
    model: PretrainModelConfig
    training: TrainingConfig = TrainingConfig()

    @property
    def parts(self) -> tuple[Part[PretrainDataConfig], ...]:
        """The datasets of the run: `datasets`, or `scenes` as the only one."""
        whole = Part(self.scenes, 1, self.train_split, self.val_split, self.data)
        return parts_of(whole, self.datasets)

    @model_validator(mode="after")
    def _datasets_are_complete(self) -> PretrainConfig:
        assert self.parts
        return self

    @model_validator(mode="after")
    def _channels_agree(self) -> PretrainConfig:
        _check_input(self.data, self.model.encoder)
        return self

    @model_validator(mode="after")
    def _depths_are_given(self) -> PretrainConfig:
        images = self.data.images
        if self.model.lift.supervises_depth and (images is None or not images.depth):
            raise ValueError(
                "depth.loss_weight of the lift compares with measured depths, and the images have none: "
                "set data.images.depth to true, or the weight to 0"
            )
        return self

    @model_validator(mode="after")
    def _targets_have_depth_images(self) -> PretrainConfig:
        if any(part.data.views.lidar is None for part in self.parts):
            return self
        wanted = self.model.targets
        if wanted is not None and wanted.normal is not None:
            raise ValueError("model.targets.normal goes by depth images: set it to null with views.lidar")
        features = self.data.image_features
        if features is not None and features.pool is not None:
            raise ValueError("data.image_features.pool goes by depth images: set it to null with views.lidar")
        return self


class FinetuneConfig(PresetConfig):
    """`ponder finetune`."""

    scenes: Annotated[Path, NO_EFFECT] = Path("data/rooms")
    """Folder of prepared scenes with labels, unless `--data` names another. Where neither is given: the one
    that the checkpoint was trained on."""
    datasets: tuple[DatasetPartConfig, ...] = ()
    """Several datasets that alternate, in place of `scenes`; `--data` names the folder that holds theirs."""
    train_split: SplitName = "train"
    val_split: Annotated[SplitName, NO_EFFECT] = "val"
    seed: NonNegativeInt = 0
    """Of the new weights, the order of the scenes and the augmentations."""
    data: LabelledDataConfig = LabelledDataConfig()
    model: DownstreamModelConfig = DEFAULT
    """The task, by its `kind`, with the settings of its model."""
    protocol: Literal["full", "decoder", "linear"] = "full"
    """What is trained: all; the decoding stages of the encoder and the head; or nothing, with a head that is
    fitted by logistic regression to the features of the frozen encoder (linear probe)."""
    training: TrainingConfig = TrainingConfig()

    @property
    def parts(self) -> tuple[Part[LabelledDataConfig], ...]:
        """The datasets of the run: `datasets`, or `scenes` as the only one."""
        whole = Part(self.scenes, 1, self.train_split, self.val_split, self.data)
        return parts_of(whole, self.datasets)

    @model_validator(mode="after")
    def _datasets_are_complete(self) -> FinetuneConfig:
        assert self.parts
        return self

    @model_validator(mode="after")
    def _channels_agree(self) -> FinetuneConfig:
        if self.model.encoder is not None:
            _check_input(self.data, self.model.encoder)
        return self


def _check_input(data: PointDataConfig, encoder: EncoderConfig) -> None:
    if encoder.needs != "points" and data.images is None:
        raise ValueError("the encoder reads images, but data.images is null")
    if encoder.needs != "images" and encoder.in_channels != data.n_channels:
        raise ValueError(
            f"data.features give {data.n_channels} channels, "
            f"but model.encoder.in_channels is {encoder.in_channels}"
        )
    unused = [name for name in data.scales if name not in data.fields]
    if unused:
        raise ValueError(f"data.scales has a factor for '{unused[0]}', which is none of data.fields")


class RenderConfig(PresetConfig):
    """`ponder render`."""

    scenes: Path = Path("data/rooms")
    """Folder of prepared scenes, unless `--data` names another. Where neither is given: the one that the
    checkpoint was trained on."""
    cameras: CameraPathConfig = OwnCamerasConfig()
    images: tuple[ImageKind, ...] = ("color", "depth", "normal", "semantic")
    """What is written per camera; semantic is left out where the model has no classes."""
    width: PositiveInt | None = None
    """Pixels; by default the width of the scene's frames. The height follows."""
    chunk: PositiveInt = 4096
    """Rays rendered at once. Halved automatically when memory runs out."""
    side_by_side: bool = False
    """Also write the rendered images beside the recorded frame."""
    video: Literal["none", "mp4", "gif"] = "none"
    frames_per_second: PositiveInt | None = None
    """Frames per second of the video; by default that of the camera file, else 15."""
    depth_range: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """Range of the colour map of depth images, metres; by default the range of the scene."""
    birds_eye: PositiveFloat | None = None
    """Metres per pixel of an image from above, of the highest points of the scan and of the rendered surface;
    null: none. For scenes without a ceiling."""
    refine: RefineConfig = RefineConfig()
    """Fit the scene's own frames first; those that are held out stay unseen."""
    device: str = "auto"
    """auto, cpu or cuda."""


class ReconstructConfig(PresetConfig):
    """`ponder reconstruct`."""

    scenes: Path = Path("data/rooms")
    """Folder of prepared scenes, unless `--data` names another. Where neither is given: the one that the
    checkpoint was trained on."""
    method: Literal["field", "tsdf", "points"] = "field"
    """field: the signed distance of a model. tsdf: fusion of the scene's depth frames, without a model.
    points: no mesh, but coloured points where the scene's cameras render a surface of the model."""
    resolution: PositiveInt = 256
    """Cells along the longest side of the scene."""
    refine: RefineConfig = RefineConfig()
    tsdf: TsdfConfig = TsdfConfig()
    points: RenderedPointsConfig = RenderedPointsConfig()
    crop_to_observed: bool = True
    """Drop surface that no frame could have seen."""
    crop_margin: NonNegativeFloat | None = None
    """Metres from what was measured within which surface is kept. None: 0.10; without depth images, where a
    LiDAR measured, at least the longest side of a cell of the model."""
    min_component_faces: NonNegativeInt = 100
    """Smaller connected components are dropped."""
    color: bool = True
    """Colour per vertex."""
    threshold: PositiveFloat = 0.05
    """Metres: the distance of precision, recall and F-score against a reference mesh."""
    compared_points: PositiveInt = 200_000
    """Points sampled on either surface for the comparison."""
    crop_reference: bool = True
    """Compare only with what the frames saw of the reference."""
    device: str = "auto"
    """auto, cpu or cuda."""


class ProtocolsConfig(StrictConfig):
    """`ponder eval --protocols`: how encoders are compared without training them."""

    data: ProbeDataConfig = ProbeDataConfig()
    knn: NeighboursConfig = NeighboursConfig()
    linear: LinearProbeConfig = LinearProbeConfig()
    purity: PurityConfig = PurityConfig()


CONFIG_OF_COMMAND: dict[str, type[PresetConfig]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "render": RenderConfig,
    "reconstruct": ReconstructConfig,
}
"""The settings of each command that takes a preset; the keys are the folders of `presets/`."""
