"""A trained model in three calls: encode a point cloud, render a camera, extract a mesh."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from ponderv2.data.config import PointDataConfig
from ponderv2.data.missing_inputs import HiddenInputs, HideableInput, with_all_inputs
from ponderv2.data.preprocess import (
    Preprocessed,
    clipped,
    inside_range,
    preprocess,
    whole_scene_shift,
    with_near_points,
)
from ponderv2.data.pretrain_dataset import training_frames
from ponderv2.data.views import decode_color, image_batch, sample_images
from ponderv2.errors import CheckpointError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.meshes import Mesh
from ponderv2.models.config import TextTargetConfig
from ponderv2.models.encoder_model import EncoderModel, rows_of_points
from ponderv2.models.pretext import EncodedScenes, PretextModel
from ponderv2.models.voxel_features import BlockSettings, VoxelFeatures, encode_voxels
from ponderv2.reconstruction.marching_cubes import Lattice, extract_surface
from ponderv2.reconstruction.meshes import colored, cropped, near_cloud
from ponderv2.reconstruction.scene_field import ModelField, RenderedImages, render_camera
from ponderv2.scenes.scene import PointCloud, Scene


@dataclass(frozen=True)
class EncodedCloud:
    """A point cloud as a model sees it."""

    cloud: PointCloud
    feature: Float[Tensor, "point channel"]
    """Of every point of the cloud, on the CPU."""
    field: ModelField | None
    """Signed distance and colour, on the device of the model; None for models that do not render."""

    def render(self, camera: Camera, chunk: int = 4096) -> RenderedImages:
        """What a camera in the frame of the cloud sees. `chunk`: rays at once.

        Raises:
            CheckpointError: the model cannot render.
        """
        return render_camera(self._field(), camera, chunk)

    @torch.no_grad()
    def mesh(self, resolution: int = 128, margin: float | None = 0.1) -> Mesh:
        """The coloured surface within `margin` metres of the cloud (None: everywhere).

        Args:
            resolution: Cells along the longest side of the model's volume.
            margin: Metres.

        Raises:
            CheckpointError: the model cannot render.
            SceneError: there is no surface.
        """
        field = self._field()
        cell = float((field.upper - field.lower).amax()) / resolution
        mesh = extract_surface(field.signed_distance, Lattice.covering(field.lower, field.upper, cell))
        if margin is not None:
            mesh = cropped(mesh, near_cloud(mesh, self.cloud, margin))
        return colored(mesh, field.color)

    def _field(self) -> ModelField:
        if self.field is None:
            raise CheckpointError("this model gives classes and cannot render", fix="load a pre-trained one")
        return self.field


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode on its device, and what its file says beside the weights."""

    model: EncoderModel
    data: PointDataConfig
    """How its points are prepared."""
    path: Path = Path()
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved settings of the run that wrote it: `data`, `model`, `training`, `scenes`. Of published
    files `model` and `data`."""
    classes: Mapping[str, Any] = field(default_factory=dict)
    """Names, colours and label field, where the task has classes."""
    digest: str = ""
    """SHA-256 of the file."""
    notes: tuple[str, ...] = ()
    """What the file does not say and what is therefore assumed, one sentence each."""

    @property
    def device(self) -> torch.device:
        """Where it computes. Clouds are taken there, results come back to the CPU."""
        return next(self.model.parameters()).device

    def completed(
        self, cloud: PointCloud, hide: Collection[HideableInput] = ()
    ) -> tuple[PointCloud, tuple[str, ...]]:
        """The cloud with all inputs of the encoder, and what has to be said about those that it lacks.

        Missing colours, and what `hide` names, are hidden as in training; missing normals are estimated.
        """
        data = self.config.get("data")
        steps = data.get("augment") if isinstance(data, Mapping) else None
        hidden = HiddenInputs.of_augmentation(steps)
        if "time" in self.data.fields and "time" not in cloud.fields:  # a scan without earlier ones
            cloud = replace(cloud, fields={**cloud.fields, "time": torch.zeros(len(cloud))})
        return with_all_inputs(cloud, (*self.data.features, *self.data.fields), hidden, hide)

    def features(
        self,
        cloud: PointCloud,
        condition: str | None = None,
        blocks: BlockSettings = BlockSettings(),
        hide: Collection[HideableInput] = (),
    ) -> Float[Tensor, "point channel"]:
        """Features of all points, without the volume that rendering needs. Metres, z up.

        Missing colours are hidden from the encoder, missing normals estimated.

        Args:
            cloud: Of any size: what does not fit into memory is encoded in overlapping blocks.
            condition: Dataset prompt (condition); None: ScanNet, or the first that it knows.
            blocks: When and how the cloud is cut.
            hide: `color`, `normal`, `intensity`: hidden from the encoder although they are known or could be
                estimated.

        Raises:
            CheckpointError: the encoder takes other features, or does not know the condition.
            ResourceError: not even small blocks fit into memory.
        """
        return self.voxel_features(cloud, condition, blocks, hide).of_points()

    def voxel_features(
        self,
        cloud: PointCloud,
        condition: str | None = None,
        blocks: BlockSettings = BlockSettings(),
        hide: Collection[HideableInput] = (),
        only: Int[Tensor, " chosen"] | None = None,
    ) -> VoxelFeatures:
        """As `features`, one for every occupied voxel, with the way back to the points.

        `only`: points whose voxels are asked for, at least one.
        """
        name = self.model.prompts.choose(condition)
        return encode_voxels(self.model, self.completed(cloud, hide)[0], self.data, name, blocks, only=only)

    @torch.no_grad()
    def encode(
        self, cloud: PointCloud, condition: str | None = None, dataset: str | None = None
    ) -> EncodedCloud:
        """Features of all points, and a field that can be rendered. Metres, z up.

        Of models trained within a range (`data.range`) the field is that of the points in the range;
        the features are those of the whole cloud, as `features` gives them.

        `condition`: as for `features`. `dataset`: the cloud's, prompted where no condition is given and the
        model knows it.

        Raises:
            SceneError: no point lies in the range.
        """
        if not isinstance(self.model, PretextModel):
            return EncodedCloud(cloud, self.features(cloud, condition), None)
        name = self.model.prompts.choose(condition, dataset)
        if self.model.encoder_config.needs != "points":
            raise CheckpointError(
                f"the encoder of {self.path} sees images, and a cloud alone has none",
                fix="ponder render and ponder reconstruct take a scene with its images",
            )
        cloud, _ = self.completed(cloud)
        encoded, done, field = self._built(self.model, Scene("cloud", cloud), name)
        if len(done.voxels.inverse) == len(cloud):
            feature = rows_of_points(encoded.features).cpu()[done.voxels.inverse]
        else:
            feature = encode_voxels(self.model, cloud, self.data, name).of_points()
        return EncodedCloud(cloud, feature, field)

    @torch.no_grad()
    def scene_field(
        self, scene: Scene, condition: str | None = None, dataset: str | None = None
    ) -> ModelField:
        """What can be rendered of a scene, by its points, its images or both, as the encoder takes them.

        Of the images those that are not held out, where there are such; with `data.images.held_out` all. Of
        the points those in the range that the model was trained within (`data.range`).
        `condition`, `dataset`: as for `encode`.

        Raises:
            CheckpointError: the model cannot render, or takes what the scene does not have.
            SceneError: an image is missing or damaged, or no point lies in the range.
        """
        if not isinstance(self.model, PretextModel):
            raise CheckpointError("this model cannot render", fix="load a pre-trained one")
        name = self.model.prompts.choose(condition, dataset)
        cloud, _ = self.completed(scene.cloud)
        if self.model.encoder_config.needs == "points":
            return self._built(self.model, Scene(scene.name, cloud), name)[2]
        images = self.data.images
        seen = scene.frames if images is not None and images.held_out else training_frames(scene)
        frames = tuple(frame for frame in seen or scene.frames if frame.has_color)
        if not frames or images is None:
            raise CheckpointError(
                f"the encoder of {self.path} sees images, and scene '{scene.name}' has none",
                fix="a scene with colour images, or a model of points",
            )
        inputs = sample_images(frames, images)
        return self._built(self.model, Scene(scene.name, cloud, inputs), name)[2]

    def _built(
        self, model: PretextModel, scene: Scene, condition: str
    ) -> tuple[EncodedScenes, Preprocessed, ModelField]:
        """The volume of a scene by its points in the range of the settings, and its images."""
        inside = inside_range(clipped(scene, self.data), self.data)
        scene = scene if bool(inside.all()) else scene.take(inside)
        scene = clipped(with_near_points(scene), self.data)
        shift = whole_scene_shift(scene.cloud.coord, self.data)
        done = preprocess(scene.moved(shift), self.data, condition, "segment")
        check_inputs(model, self.data, self.path)
        batch = done.batch
        if scene.frames and self.data.images is not None:
            images = self.data.images.model_copy(update={"depth": False})
            batch = replace(batch, images=image_batch(done.scene.frames, images, decode_color))
        encoded = model.build_volume(batch.to(self.device))
        to_volume = encoded.frame.world_to_volume[0].cpu().double() @ done.shift.double() @ shift.double()
        rows = _class_rows(model, condition)
        return encoded, done, ModelField(model.renderer, encoded.volume, to_volume, rows)


def with_options(note: str) -> str:
    """A note on what was assumed, with the options of the command that say otherwise."""
    return f"{note} (--inputs NAMES and --voxel-size METRES say otherwise)"


def _class_rows(model: PretextModel, condition: str) -> Float[Tensor, "class channel"] | None:
    """Text embedding of each class, where the model renders features in place of scores.

    A condition without classes of its own has those of the first one.
    """
    semantic = model.config.semantic
    index = semantic.valid_index if isinstance(semantic, TextTargetConfig) else None
    known = tuple(index) if isinstance(index, dict) else ()
    return model.class_rows(condition if condition in known or not known else known[0])


def check_inputs(model: Any, data: PointDataConfig, path: Path) -> None:
    """Raises CheckpointError where the encoder takes other features of points than the settings give."""
    encoder = model.config.encoder
    if encoder is not None and encoder.needs != "images" and encoder.in_channels != data.n_channels:
        raise CheckpointError(
            f"the encoder of {path} takes {encoder.in_channels} numbers per point, "
            f"{', '.join(data.features)} are {data.n_channels}",
            fix="--inputs with other names" if path.name else None,
        )


def point_settings(path: Path, data: Mapping[str, Any]) -> PointDataConfig:
    """Voxels and features. Raises CheckpointError for settings that are not known."""
    known = PointDataConfig.model_fields
    try:
        return PointDataConfig.model_validate({name: data[name] for name in known if name in data})
    except (ValidationError, TypeError) as error:
        raise CheckpointError(
            f"{path} has point settings that this program does not know",
            fix="use the version of the program that wrote it",
        ) from error
