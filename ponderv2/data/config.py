"""Settings of datasets, voxelisation and view sampling. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ponderv2.config import NO_EFFECT, SplitName, StrictConfig
from ponderv2.data.augment_config import (
    AugmentConfig,
    ElasticConfig,
    Probability,
    published_pretraining_augmentations,
    published_segmentation_augmentations,
)
from ponderv2.data.scan_config import ClipConfig, LidarRaysConfig, PointRangeConfig, SweepsConfig

FeatureName = Literal["color", "normal", "coord", "height", "offset", "ones"]

FEATURE_CHANNELS: dict[str, int] = {"color": 3, "normal": 3, "coord": 3, "height": 1, "offset": 3, "ones": 1}
"""Channels of each point feature, in the order in which `features` names them."""


class VoxelConfig(StrictConfig):
    """How points become voxels: one point represents each occupied cell."""

    size: PositiveFloat = 0.02
    """Side of a cell in scene units (metres before scaling)."""
    order: Literal["fnv", "ravel"] = "fnv"
    """Order of the voxels: by 64-bit FNV hash (indoor) or x-major (outdoor), as published."""


class SphereCropConfig(StrictConfig):
    """Keep the voxels nearest to a random one, so that a batch fits into memory."""

    n_points: PositiveInt | None = 100_000
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the voxels to keep, in place of a number."""

    @model_validator(mode="after")
    def _one_rule(self) -> SphereCropConfig:
        if (self.n_points is None) == (self.share is None):
            raise ValueError("give either n_points or share, and null for the other")
        return self


class LocalCropConfig(StrictConfig):
    """Keep what lies near a random point, and only the pixels that show it: cheap training steps."""

    shape: Literal["sphere", "box", "column"] = "column"
    """`column`: a box without limits in z."""
    radius: PositiveFloat = 1.5
    """Half side or radius, metres."""
    min_points: PositiveInt = 64
    """Centres with fewer points around them are drawn again."""


class ViewSamplingConfig(StrictConfig):
    """Which pixels are rendered in one training step."""

    n_views: PositiveInt = 5
    """Per scene. Fewer frames than that are used several times."""
    n_pixels: PositiveInt = 256
    """Per view, drawn among pixels with a depth; among all of a frame that has no depth image."""
    min_valid_pixels: PositiveInt = 1
    """Views with fewer usable pixels give way to others where there are others."""
    max_depth: PositiveFloat | None = None
    """Pixels farther away than this are not used, metres."""
    lidar: LidarRaysConfig | None = None
    """For scenes whose images have no depth: rays to the points of the LiDAR. No view is then used twice."""

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> ViewSamplingConfig:
        if self.lidar is not None and self.max_depth is not None:
            raise ValueError("max_depth goes by depth images: set lidar.farthest in place of it")
        if self.lidar is not None and self.min_valid_pixels > 1:
            raise ValueError("min_valid_pixels goes by depth images: set it to 1 with lidar")
        return self


class ImageAugmentConfig(StrictConfig):
    """Of each image that the encoder sees; its camera follows. Rendered pixels stay as they are."""

    zoom: tuple[Annotated[float, Field(ge=1.0)], Annotated[float, Field(ge=1.0)]] = (1.0, 1.0)
    """Limits of a factor by which an image is enlarged; a random part of its usual size is cropped."""
    flip: Probability = 0.0
    """Of exchanging left and right."""
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    """Each is multiplied by a factor between 1 minus and 1 plus this."""


class ImageInputConfig(StrictConfig):
    """Whole images for an image encoder."""

    n_views: PositiveInt = 4
    """Per scene, at random for training and evenly spread otherwise. Fewer frames are used several times."""
    width: PositiveInt = 320
    height: PositiveInt = 240
    """Images are resized to this, their intrinsics with them."""
    augment: ImageAugmentConfig | None = None
    """In training; null: images stay as they are."""
    depth: bool = False
    """Give their measured depths with them, for a lift that is supervised by depth (`depth.loss_weight`)."""
    held_out: bool = False
    """Pre-training: the encoder also sees the images of held-out frames. Neither their depths nor their
    pixels are trained on."""


class ImageFeaturesConfig(StrictConfig):
    """Features of a frozen 2D network, which pre-training renders: computed once per image, then read."""

    model: Annotated[str, Field(min_length=1)] = "efficientnet_lite0"
    """efficientnet_lite0, which a package brings; timm:NAME and hf:ORG/NAME, which are downloaded unless they
    are there; or a folder with config.json and weights in safetensors, of timm or transformers."""
    weights: Path | None = None
    """Of timm:NAME: a file of its weights (safetensors or .pth) in place of the published ones."""
    n_channels: PositiveInt = 48
    """To which a PCA reduces the outputs of the network."""
    whiten: Probability = 1.0
    """Power of its deviation that every channel is divided by: 1 makes all count alike, 0 leaves them
    as they are, so that the last ones, which hold more noise, hardly count."""
    layers: tuple[int, ...] | None = None
    """Blocks or stages whose outputs stand side by side, from 0 or, negative, from the end; by default those
    of the model."""
    longest_side: PositiveInt | None = None
    """Pixels of the image that the network receives, near this; by default that of the model."""
    cell: PositiveInt | None = None
    """Pixels of that image per stored cell and direction; by default those of the finest layer."""
    sample_images: PositiveInt = 256
    """Training images that the PCA is fitted on."""
    pool: PositiveFloat | None = None
    """Metres. A pixel is compared with the Gaussian mean, of this deviation, over what all images of a scene
    have around the place that it shows; where there is no depth, with nothing. Null: with its own image."""
    basis: Path | None = None
    """Folder of other features of the same network: their PCA is used, so that both can be compared."""
    space: str | None = None
    """Which features of these settings: of those, the ones that `ponder pretrain` found or computed."""
    batch_size: Annotated[PositiveInt, NO_EFFECT] = 8
    """Images that the network receives at once on a GPU."""
    device: Annotated[str, NO_EFFECT] = "auto"
    """Where the network runs: auto, cpu or cuda."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers besides weights and images; of a local model its name, not its place."""
        shaping = ("n_channels", "whiten", "layers", "longest_side", "cell", "sample_images")
        chosen = self.model_dump(mode="json", include=set(shaping))
        weights = None if self.weights is None else self.weights.name
        return {"model": self.model_name, "weights": weights, **chosen}

    @property
    def model_name(self) -> str:
        """The model without the folder that it lies in."""
        return self.model if self.model.startswith(("timm:", "hf:")) else PurePath(self.model).name


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"a box has a cell in its middle: expected an odd number of cells, got {size}")
    return size


BoxSize = Annotated[PositiveInt, AfterValidator(_odd)]
"""Edge of a box around a cell, in cells."""


class ClustersConfig(StrictConfig):
    """Clusters of what surrounds a point, found without labels: a target without any image network."""

    n_clusters: Annotated[int, Field(ge=2)] = 48
    cell: PositiveFloat = 0.15
    """Side of the cells whose surroundings are compared, metres."""
    sizes: Annotated[tuple[BoxSize, ...], Field(min_length=1)] = (3, 7, 15)
    """Edges of the boxes around a cell, in cells."""
    sample_cells: PositiveInt = 50_000
    """Cells of the training scenes, equally many of each, from which the centres are found."""
    sample_scenes: PositiveInt = 256
    """Training scenes of a data set that are read for that, evenly spread."""
    reach: PositiveFloat = 0.1
    """A pixel has the cluster of the point nearest to what it shows, and none where that is farther away than
    this, metres."""
    seed: NonNegativeInt = 0
    """Of the choice of cells and of k-means, independent of the seed of training."""


class LabelBudgetConfig(StrictConfig):
    """Limited annotation: all other labels are -1 in training. Evaluation uses every label."""

    points_per_scene: PositiveInt | None = None
    """Labelled points in every scene (limited annotation)."""
    scenes: PositiveInt | tuple[str, ...] | None = None
    """Labelled scenes, by number or by name (limited reconstruction); other scenes are left out."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the scenes that is labelled, in place of a number: 0.01 is one in a hundred; one at least."""
    drives: PositiveInt | None = None
    """Drives that labelled scenes are taken from: scenes whose names begin alike, up to the slash."""
    scenes_per_drive: PositiveInt | None = None
    """Labelled scenes of each of them."""
    points_file: Path | None = None
    """The labelled points of every scene as a published list: ScanNet's tasks/points/points20."""
    scenes_file: Path | None = None
    """The labelled scenes as a published list: ScanNet's tasks/scenes/1.txt."""
    seed: NonNegativeInt = 0
    """Chooses scenes and points where no list does, independently of the seed of training."""

    @model_validator(mode="after")
    def _one_rule_each(self) -> LabelBudgetConfig:
        if self.share is not None and (self.scenes is not None or self.scenes_file is not None):
            raise ValueError("give either share or scenes")
        for number, file in (("points_per_scene", "points_file"), ("scenes", "scenes_file")):
            if getattr(self, number) is not None and getattr(self, file) is not None:
                raise ValueError(f"give either {number} or {file}")
        return self

    @property
    def counts_points(self) -> bool:
        """Whether labels are single points of the cloud, so that images have none."""
        return self.points_per_scene is not None or self.points_file is not None


class PointDataConfig(StrictConfig):
    """What pre-training and fine-tuning data have in common."""

    voxel: VoxelConfig = VoxelConfig()
    features: tuple[FeatureName, ...] = ("color", "normal")
    """What the encoder sees of each point, concatenated in this order."""
    fields: tuple[str, ...] = ()
    """Per-point fields of the data set after them, such as intensity: a channel each. With `sweeps` also
    `time`."""
    scales: dict[str, float] = Field(default_factory=dict)
    """Factors on fields, by their names: `intensity: 255.0` gives the encoder 0..255 in place of 0..1."""
    centred: bool = True
    """The middle of the points comes to x = y = 0 and, where nothing is augmented, the lowest to z = 0.
    False: the frame of the scene stays, as a range around a LiDAR needs it."""
    clip: ClipConfig | None = None
    """Before anything else, in training and in evaluation; null: points stay where they are."""
    sweeps: SweepsConfig | None = None
    """Earlier sweeps of the LiDAR that are added to the points; null: the scan of the scene alone."""
    range: PointRangeConfig | None = None
    """Null: points are kept wherever they are."""
    shuffle: bool = True
    """Random order of the voxels of a training scene."""
    images: ImageInputConfig | None = None
    """Images that the encoder sees; null for an encoder of points."""
    label_field: str | None = None
    """Name of the label array; the scene store knows its usual one."""
    cache_megabytes: Annotated[NonNegativeInt, NO_EFFECT] = 1024
    """Memory for scenes and decoded images, half each, shared by the worker processes of one dataset."""

    @property
    def n_channels(self) -> int:
        """Length of a point feature."""
        return sum(FEATURE_CHANNELS[name] for name in self.features) + len(self.fields)


class PretrainDataConfig(PointDataConfig):
    """Scenes with frames, for pre-training by rendering."""

    augment: tuple[AugmentConfig, ...] = Field(default_factory=published_pretraining_augmentations)
    views: ViewSamplingConfig = ViewSamplingConfig()
    frames: Literal["all", "published"] = "all"
    """Frames of exported recordings that are read in place; prepared ones hold their choice already."""
    crop: LocalCropConfig | None = None
    validation_views: Annotated[PositiveInt, NO_EFFECT] = 4
    """Held-out frames per scene that validation renders."""
    held_out_sensors: tuple[str, ...] = ()
    """Cameras that are never trained on and that validation renders, beside the frames that the scenes hold
    out."""
    image_features: ImageFeaturesConfig | None = None
    """Features of images that are read with them; null: none."""
    clusters: ClustersConfig | None = None
    """For `model.targets.clusters`; null: the usual ones."""
    budget: LabelBudgetConfig = LabelBudgetConfig()
    """Of pre-training that renders classes. Scenes outside it stay, without labels; where points are counted,
    images have none."""

    @property
    def clusters_used(self) -> ClustersConfig:
        """Those that are set, or the usual ones."""
        return self.clusters or ClustersConfig()

    @model_validator(mode="after")
    def _cameras_follow(self) -> PretrainDataConfig:
        if any(isinstance(step, ElasticConfig) for step in self.augment):
            raise ValueError(
                "elastic distortion bends the points away from the images: remove it from augment"
            )
        if self.views.lidar is not None and self.crop is not None:
            raise ValueError("crop goes by depth images: set it to null with views.lidar")
        return self


class LabelledDataConfig(PointDataConfig):
    """Scenes with labels, for training and evaluating a task on points."""

    augment: tuple[AugmentConfig, ...] = Field(default_factory=published_segmentation_augmentations)
    sphere_crop: SphereCropConfig | None = SphereCropConfig()
    crop: LocalCropConfig | None = None
    mix_probability: Probability = 0.8
    """Of merging two neighbouring scenes of a batch into one (Mix3D), whichever processes they are for."""
    budget: LabelBudgetConfig = LabelBudgetConfig()
    class_balance: bool = False
    """Draw the scenes of training once so that each class of boxes is in as many (CBGS): a scene may be there
    several times, and one without boxes never."""

    @model_validator(mode="after")
    def _images_show_one_scene(self) -> LabelledDataConfig:
        if self.images is not None and self.mix_probability > 0:
            raise ValueError("scenes with images cannot be merged: set mix_probability to 0")
        if self.images is not None and self.images.held_out:
            raise ValueError("images.held_out is for pre-training: set it to false, all images are seen")
        return self


Data = TypeVar("Data", bound=PointDataConfig)

SHARED_TARGETS = ("image_features", "clusters")
COMMON = (
    "voxel",
    "features",
    "fields",
    "scales",
    "centred",
    "sweeps",
    "images",
    "cache_megabytes",
    "mix_probability",
    *SHARED_TARGETS,
)
"""Settings of `data` that all datasets of a run share."""


class DatasetPartConfig(StrictConfig):
    """One of several datasets: every batch comes from one of them."""

    scenes: Path
    """Folder of prepared scenes. `--data DIR` looks for a folder of the same name in DIR."""
    ratio: PositiveInt = 1
    """Consecutive steps of this dataset: 4, 2, 1 as published for Structured3D, ScanNet, S3DIS."""
    train_split: SplitName | None = None
    """By default that of the run."""
    val_split: SplitName | None = None
    label_field: str | None = None
    """Name of the label array; by default that of the run, or the usual one of the dataset."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Settings of `data` that differ for this dataset, such as augment, sphere_crop, views or budget."""


@dataclass(frozen=True)
class Part(Generic[Data]):
    """One dataset of a run, with all its settings."""

    scenes: Path
    ratio: int
    train_split: str
    val_split: str
    data: Data


def parts_of(whole: Part[Data], datasets: Sequence[DatasetPartConfig]) -> tuple[Part[Data], ...]:
    """Every dataset with its settings; `whole`, that of a run with one dataset, fills what they leave out.

    Raises:
        ValueError: a dataset has settings that do not exist or that all have to share.
    """
    if not datasets:
        return (whole,)
    share = whole.data.model_copy(update={"cache_megabytes": whole.data.cache_megabytes // len(datasets)})
    return tuple(
        Part(
            scenes=dataset.scenes,
            ratio=dataset.ratio,
            train_split=dataset.train_split or whole.train_split,
            val_split=dataset.val_split or whole.val_split,
            data=_data(share, dataset, f"datasets.{number}"),
        )
        for number, dataset in enumerate(datasets)
    )


def _data(data: Data, dataset: DatasetPartConfig, key: str) -> Data:
    fixed = [name for name in dataset.data if name in COMMON]
    if fixed:
        raise ValueError(f"{key}.data.{fixed[0]}: all datasets of a run share it; set data.{fixed[0]}")
    own = dict(dataset.data) | ({"label_field": dataset.label_field} if dataset.label_field else {})
    try:
        return type(data).model_validate(data.model_dump() | own)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = ".".join(map(str, first["loc"]))
        raise ValueError(f"{key}.data.{wrong}: {first['msg']}") from error
