"""Scenes with boxes, and the way from the frame of the model back to that of the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import SceneDataset
from ponderv2.data.instance_boxes import BoxSource, box_source, with_boxes
from ponderv2.data.preprocess import Preprocessed, clipped, in_range, preprocess, whole_scene_shift
from ponderv2.data.sweeps import with_sweeps
from ponderv2.data.views import sample_images
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.reader import Reader
from ponderv2.scenes.scene import PointCloud, Scene

COUNTS = ("n_lidar", "n_radar")
"""Points that a sensor measured of an object."""


@dataclass(frozen=True)
class WholeScene:
    """A scene for prediction."""

    batch: Batch
    to_scene: Float[Tensor, "4 4"]
    """From the frame of the batch to that of the scene as it was read."""


class DetectionDataset(SceneDataset):
    """Whole scenes with the boxes of the data set or, where it has none, those around its instances."""

    def __init__(
        self,
        store: Reader,
        split: str,
        config: LabelledDataConfig,
        seed: int = 0,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        """`classes`: those of the model, where it knows them; None: those of the data set.

        Raises SceneError where the split has no scenes, or nothing is known of their boxes.
        """
        super().__init__(store, split, config, seed)
        self.source: BoxSource = box_source(store.info)
        self.classes = self.source.class_names if classes is None else classes
        numbers = [
            self.classes.index(name) if name in self.classes else -1 for name in self.source.class_names
        ]
        self._numbers = torch.tensor([*numbers, -1], dtype=torch.long)

    def annotated(self, index: int) -> Scene:
        """A scene with its boxes, which count the classes of the model; of others they are of class -1.

        Raises SceneError where it has neither boxes nor instances.
        """
        scene = with_boxes(self.scene(index), self.source)
        assert scene.boxes is not None
        category = self._numbers[scene.boxes.category.long()]
        return replace(scene, boxes=replace(scene.boxes, category=category))

    def training_scene(self, index: int) -> Scene:
        """A scene with the boxes that are learned: of the classes, and with a measured point inside."""
        scene = self.annotated(index)
        assert scene.boxes is not None
        return replace(scene, boxes=scene.boxes.take((scene.boxes.category >= 0) & measured(scene.boxes)))

    def truth(self, index: int) -> Boxes:
        """The boxes of a scene as it was read, those without a point left out."""
        boxes = self.annotated(index).boxes
        assert boxes is not None
        return boxes.take(measured(boxes))

    def whole_scene(self, index: int) -> WholeScene:
        """A scene as the model sees it in training, but not augmented. Raises SceneError without a point in
        the range."""
        scene = replace(self.scene(index), boxes=None)
        scene = as_read = replace(scene, frames=sample_images(scene.frames, self.config.images))
        prepared, to_scene = _ready(with_sweeps(scene, self.config.sweeps), self.config, self.condition)
        return WholeScene(self._with_images(prepared, as_read), to_scene)


def whole_cloud(cloud: PointCloud, config: LabelledDataConfig, condition: str) -> WholeScene:
    """A cloud of no data set, for a model that reads points alone.

    Raises SceneError where the cloud lacks an input of the encoder, or no point is within the range.
    """
    prepared, to_scene = _ready(Scene("cloud", cloud), config, condition)
    return WholeScene(prepared.batch, to_scene)


def _ready(
    scene: Scene, config: LabelledDataConfig, condition: str
) -> tuple[Preprocessed, Float[Tensor, "4 4"]]:
    """Clipped, shifted, within the range, in voxels, in the order of training; and the way back."""
    scene = clipped(scene, config)
    first = whole_scene_shift(scene.cloud.coord, config)
    prepared = preprocess(in_range(scene.moved(first), config), config, condition, "segment")
    return prepared, torch.linalg.inv(prepared.shift.double() @ first.double())


def measured(boxes: Boxes) -> Tensor:
    """Which boxes hold a measured point, where the data set counts them; else all."""
    counts = [boxes.fields[name] for name in COUNTS if name in boxes.fields]
    if not counts:
        return torch.ones(len(boxes), dtype=torch.bool)
    return torch.stack(counts).sum(dim=0) != 0
