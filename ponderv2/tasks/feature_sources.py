"""Features to probe: those of a trained encoder, of a random one, and what the sensor measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from ponderv2.data.config import FeatureName, PointDataConfig
from ponderv2.data.missing_inputs import HideableInput
from ponderv2.data.preprocess import Preprocessed, clipped, preprocess, whole_scene_shift
from ponderv2.data.sweeps import with_sweeps_behind
from ponderv2.io.colors import NO_COLOR
from ponderv2.models.encoder_model import EncoderModel, calibrate_normalisation
from ponderv2.models.voxel_features import VoxelFeatures
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import PointCloud, Scene
from ponderv2.tasks.loaded_model import LoadedModel

RAW: tuple[FeatureName, ...] = ("color", "height", "normal")
"""What an encoder has to surpass: colour, metres above the lowest point, direction of the surface."""


@runtime_checkable
class FeatureSource(Protocol):
    """One feature for every voxel that points of a scene occupy."""

    @property
    def name(self) -> str:
        """What the features are, for a table."""
        ...

    @property
    def n_parameters(self) -> int:
        """Weights that compute them."""
        ...

    @property
    def device(self) -> torch.device:
        """Where probes on them compute."""
        ...

    @property
    def has_units(self) -> bool:
        """Whether channels are measured in different units, so that a cosine needs them standardised."""
        ...

    def features(self, scene: Scene) -> VoxelFeatures:
        """Of the points of a scene, metres, z up. Raises what `encode_voxels` raises."""
        ...


@dataclass(frozen=True)
class EncoderFeatures:
    """The output of an encoder of points, block by block where a cloud is large."""

    name: str
    loaded: LoadedModel
    condition: str
    """Prompt of the data set."""
    hide: tuple[HideableInput, ...] = ()
    """Inputs that it does not get."""
    has_units: bool = False

    @property
    def n_parameters(self) -> int:
        """Of encoder and prompts; renderer and heads take no part."""
        return sum(
            parameter.numel()
            for name, parameter in self.loaded.model.named_parameters()
            if name.startswith(("backbone.", "embedding_table."))
        )

    @property
    def device(self) -> torch.device:
        """That of the model."""
        return self.loaded.device

    def features(self, scene: Scene) -> VoxelFeatures:
        """One pass of the encoder, which sees the sweeps that it was trained with; they get no features."""
        own = torch.arange(len(scene.cloud))
        cloud = with_sweeps_behind(scene, self.loaded.data.sweeps).cloud
        found = self.loaded.voxel_features(
            cloud, self.condition, hide=self.hide, only=own if len(cloud) > len(own) else None
        )
        return replace(found, inverse=found.inverse[: len(own)])


@dataclass(frozen=True)
class RawFeatures:
    """Colour, height and normal of the point that represents a voxel, as far as the clouds have them, and the
    fields that the encoder receives, such as intensity."""

    data: PointDataConfig
    """Whose voxels are used."""
    device: torch.device
    n_parameters: int = 0
    has_units: bool = True

    @staticmethod
    def of(
        cloud: PointCloud, data: PointDataConfig, device: torch.device, hide: tuple[HideableInput, ...] = ()
    ) -> RawFeatures:
        """What a cloud has and is not hidden; the others of the data set are expected to have the same."""
        known = {"height", *cloud.arrays} - set(hide)
        if cloud.color is not None and bool((cloud.color == NO_COLOR).all()):
            known.discard("color")  # readers fill it in where a file has no colours
        names = tuple(one for one in RAW if one in known)
        fields = tuple(one for one in data.fields if one in cloud.fields and one not in hide)
        chosen = {"features": names, "fields": fields, "images": None}
        return RawFeatures(data.model_copy(update=chosen), device)

    @property
    def name(self) -> str:
        """The names of the features."""
        return ", ".join([*self.data.features, *self.data.fields])

    def features(self, scene: Scene) -> VoxelFeatures:
        """Nothing is computed but voxels."""
        cloud = scene.cloud
        done = prepared(cloud, self.data)
        return VoxelFeatures(cloud.coord[done.voxels.index], done.batch.feature, done.voxels.inverse, 1)


def prepared(cloud: PointCloud, data: PointDataConfig, condition: str = "") -> Preprocessed:
    """A cloud as an encoder receives it, with the way back to its points."""
    scene = clipped(Scene("cloud", cloud), data)
    scene = scene.moved(whole_scene_shift(scene.cloud.coord, data))
    return preprocess(scene, data, condition, "none")


def with_random_weights(
    source: EncoderFeatures, model: EncoderModel, scenes: Iterable[Scene]
) -> EncoderFeatures:
    """The same architecture with the weights of `model`, which were just drawn.

    Its normalisations take their statistics from some scenes: those of new weights apply to no data.
    """
    model = model.to(source.device)

    def batches() -> Iterable[Batch]:
        for scene in scenes:
            cloud = with_sweeps_behind(scene, source.loaded.data.sweeps).cloud
            complete = source.loaded.completed(cloud, source.hide)[0]
            yield prepared(complete, source.loaded.data, source.condition).batch.to(source.device)

    calibrate_normalisation(model, batches())
    return replace(source, name="random encoder", loaded=replace(source.loaded, model=model.eval()))
