"""Scenes as torch datasets, for tasks with labels. A sample follows from the seed, its draw and its scene."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from ponderv2.data.augmentation import augment
from ponderv2.data.class_balance import balanced_scenes, classes_of_boxes
from ponderv2.data.config import (
    LabelledDataConfig,
    PointDataConfig,
)
from ponderv2.data.crops import crop, random_region
from ponderv2.data.label_budget import apply_label_budget, budget_scenes
from ponderv2.data.preprocess import (
    Preprocessed,
    clipped,
    in_range,
    preprocess,
    whole_scene_shift,
    with_near_points,
)
from ponderv2.data.sweeps import with_sweeps, with_sweeps_behind
from ponderv2.data.views import (
    FrameDecoder,
    image_batch,
    sample_images,
)
from ponderv2.errors import SceneError
from ponderv2.io.lru_cache import LruCache
from ponderv2.randomness import make_generator
from ponderv2.scenes.batch import Batch, MixingCollate
from ponderv2.scenes.reader import FrameChoice, Reader
from ponderv2.scenes.scene import Scene


def checked(scene: Scene) -> Scene:
    """The scene itself. Raises SceneError where a number of its points is not finite."""
    for name, values in scene.cloud.arrays.items():
        if not values.is_floating_point():
            continue
        # The sum is finite if all are, and needs no array of its own.
        if not torch.isfinite(values.sum()) and not bool(torch.isfinite(values).all()):
            raise SceneError(
                f"'{name}' of scene '{scene.name}' holds numbers that are not finite", fix="prepare it again"
            )
    return scene


def classes_above(largest: int, labels: Int[Tensor, " point"], where: str, label_field: str) -> str | None:
    """What to say of labels above the largest class of a model, and how many points have them."""
    above = labels > largest
    count = int(above.sum())
    if not count:
        return None
    values = torch.unique(labels[above])
    listed = ", ".join(str(int(one)) for one in values[:5]) + (", ..." if len(values) > 5 else "")
    return (
        f"{where} has {'class' if len(values) == 1 else 'classes'} {listed} in '{label_field}' "
        f"at {count / len(labels):.1%} of its points, the model knows 0 to {largest}"
    )


class Scenes(Dataset[Batch], ABC):
    """The scenes of one split, kept in memory up to a limit."""

    def __init__(
        self,
        store: Reader,
        split: str,
        config: PointDataConfig,
        names: Sequence[str],
        with_labels: bool = True,
    ) -> None:
        if not names:
            raise SceneError(
                f"no prepared scenes in split '{split}' of {store.root}", fix="ponder prepare --help"
            )
        self.store, self.split, self.names = store, split, tuple(names)
        self.with_labels = with_labels
        self._frames: FrameChoice = "none" if config.images is None else "all"
        self.decode = FrameDecoder(config.cache_megabytes / 2)
        self.label_field = config.label_field or store.info.label_field
        self._largest_class: int | None = None
        self._memory: LruCache[Scene] = LruCache(config.cache_megabytes / 2)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def condition(self) -> str:
        """Name of the dataset that the scenes come from."""
        return self.store.info.name

    @property
    def n_classes(self) -> int:
        """Classes of the label field."""
        return len(self.store.info.label_set(self.label_field).class_names)

    def expect_classes(self, n_classes: int) -> None:
        """From now on a scene with other classes is refused when it is read, as one that is damaged is."""
        self._largest_class = n_classes - 1

    def scene(self, index: int) -> Scene:
        """A scene as it was prepared. Raises SceneError where it cannot be used."""
        name = self.names[index]
        return self._memory.get(name, lambda: self._read(name))

    def _read(self, name: str) -> Scene:
        scene = with_near_points(checked(self.store.read(name, self.split, self.with_labels, self._frames)))
        labels = scene.cloud.labels.get(self.label_field)
        if self._largest_class is not None and labels is not None:
            wrong = classes_above(self._largest_class, labels, f"scene '{name}'", self.label_field)
            if wrong is not None:
                raise SceneError(wrong, fix="store -1 in the array where a point has no class")
        return scene

    @abstractmethod
    def sample(self, index: int, draw: int) -> Batch:
        """One scene for one training step."""

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        """The sample of (scene, draw); a bare number is draw 0 of that scene."""
        index, draw = (key, 0) if isinstance(key, int) else key
        return self.sample(index, draw)


class SceneDataset(Scenes):
    """Whole scenes for training a task on them: points, images and boxes, whatever they have."""

    def __init__(self, store: Reader, split: str, config: LabelledDataConfig, seed: int = 0) -> None:
        super().__init__(store, split, config, budget_scenes(store.names(split), config.budget))
        self.config, self.seed = config, seed
        self.collate = MixingCollate(config.voxel.size)

    def training_scene(self, index: int) -> Scene:
        """A scene as it was prepared, with the targets that training may see. Raises SceneError."""
        return self.scene(index)

    def sample(self, index: int, draw: int) -> Batch:
        """One augmented scene with its targets."""
        generator = make_generator("segmentation", self.seed, draw, index)
        scene = self.training_scene(index)
        if self.config.crop is not None:
            scene = crop(scene, random_region(scene, self.config.crop, generator))
        scene = as_read = replace(scene, frames=sample_images(scene.frames, self.config.images, generator))
        scene = with_sweeps(scene, self.config.sweeps, generator)
        scene = augment(clipped(scene, self.config), self.config.augment, generator)
        scene = in_range(scene, self.config)
        sphere = self.config.sphere_crop
        prepared = preprocess(scene, self.config, self.condition, self.label_field, generator, sphere)
        return self._with_images(prepared, as_read, generator)

    def whole(self, scene: Scene) -> Preprocessed:
        """A scene for prediction: not augmented, one point per voxel, and the way back to all its points."""
        n_points = len(scene.cloud)
        scene = as_read = replace(scene, frames=sample_images(scene.frames, self.config.images))
        scene = clipped(with_sweeps_behind(scene, self.config.sweeps), self.config)
        shifted = scene.moved(whole_scene_shift(scene.cloud.coord, self.config))
        prepared = preprocess(shifted, self.config, self.condition, self.label_field)
        voxels = prepared.voxels
        if len(voxels.inverse) > n_points:  # those of sweeps come after its own
            voxels = replace(voxels, inverse=voxels.inverse[:n_points])
        return replace(prepared, batch=self._with_images(prepared, as_read), voxels=voxels)

    def _with_images(
        self, prepared: Preprocessed, scene: Scene, generator: torch.Generator | None = None
    ) -> Batch:
        """`scene`: with the same frames, before it was moved."""
        frames, depths = prepared.scene.frames, self.measured_depths(scene)
        images = image_batch(frames, self.config.images, self.decode, generator, depths)
        return replace(prepared.batch, images=images)

    def measured_depths(self, scene: Scene) -> list[Float[Tensor, "_ _"]] | None:
        """Depths of the images of a scene, where depth images of its frames do not say them."""
        return None

    def balance(self) -> None:
        """Scenes from now on: drawn so that each class of boxes is in as many. For training only.

        Raises:
            SceneError: a scene cannot be read, or no scene has a box.
        """
        classes = classes_of_boxes(self.store, self.split, self.names)
        n_classes = len(self.store.info.box_classes) or 1 + max(
            max(one, default=0) for one in classes.values()
        )
        self.names = balanced_scenes(self.names, classes, n_classes, self.seed)


class LabelledDataset(SceneDataset):
    """Scenes with a class per point, and without boxes, which could not follow a scene that is tilted."""

    def training_scene(self, index: int) -> Scene:
        """A scene with the labels that the budget allows. Raises SceneError when it has none."""
        return apply_label_budget(self.labelled_scene(index), self.config.budget, self.label_field)

    def labelled_scene(self, index: int) -> Scene:
        """A scene as it was prepared. Raises SceneError when it has no labels."""
        scene = replace(self.scene(index), boxes=None)
        if self.config.images is None and scene.frames:
            scene = replace(scene, frames=())
        if self.label_field not in scene.cloud.labels:
            raise SceneError(
                f"scene '{scene.name}' has no labels '{self.label_field}'",
                fix=f"prepare the scenes with labels{_other_labels(scene)}",
            )
        return scene


def _other_labels(scene: Scene) -> str:
    names = ", ".join(scene.cloud.labels)
    return f", or --set data.label_field=NAME with one of: {names}" if names else ""
