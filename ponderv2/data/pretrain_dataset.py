"""Scenes with pixels to render, as a torch dataset: samples for training, and what is validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.data.augmentation import augment
from ponderv2.data.clusters import ClusterPoints
from ponderv2.data.config import (
    ImageFeaturesConfig,
    PretrainDataConfig,
)
from ponderv2.data.crops import ATTEMPTS, Region, crop, region_around
from ponderv2.data.datasets import Scenes
from ponderv2.data.label_budget import apply_label_budget, budget_scenes
from ponderv2.data.lidar_rays import LidarPixels, measured_depth, sample_lidar_rays, visible_points
from ponderv2.data.pixel_targets import NO_TARGETS, WantedTargets, with_targets
from ponderv2.data.pooled_features import PooledFeatures
from ponderv2.data.preprocess import (
    clipped,
    in_range,
    inside_range,
    preprocess,
    whole_scene_shift,
)
from ponderv2.data.scan_config import LidarRaysConfig
from ponderv2.data.sweeps import with_sweeps
from ponderv2.data.views import (
    FrameDecoder,
    SampledPixels,
    decode,
    image_batch,
    sample_images,
    sample_pixels,
    surface_points,
    with_cameras,
)
from ponderv2.io.lru_cache import LruCache
from ponderv2.randomness import make_generator
from ponderv2.scenes.batch import Batch, PixelBatch
from ponderv2.scenes.feature_sets import FeatureSet, find_features, read_basis
from ponderv2.scenes.reader import Reader
from ponderv2.scenes.scene import Frame, Scene, evenly_spread


@dataclass(frozen=True)
class ValidationScene:
    """A scene without augmentation, and its held-out frames."""

    batch: Batch
    """Without pixels."""
    frames: tuple[Frame, ...]
    """Cameras in the frame of the batch."""
    region: Region | None
    """What part of space the batch shows; None = all of it."""
    hits: tuple[LidarPixels, ...] | None = None
    """Of each frame what a LiDAR measured, where that stands for depth images."""
    lidar: LidarRaysConfig | None = None
    """Which points those are, and how they have colours."""


class PretrainDataset(Scenes):
    """Scenes with the pixels to be rendered."""

    def __init__(
        self,
        store: Reader,
        split: str,
        config: PretrainDataConfig,
        seed: int = 0,
        with_labels: bool = False,
        targets: WantedTargets = NO_TARGETS,
    ) -> None:
        """Without labels (the default) no file of them is opened; with them, those of the budget are used.

        `targets`: what `sample` gives of each pixel beside colour, depth and class.
        """
        super().__init__(store, split, config, store.names(split, with_frames=True), with_labels)
        self.config, self.seed, self.targets = config, seed, targets
        self._frames = config.frames
        self.features = find_image_features(store, config.image_features)
        self._pool = None if config.image_features is None else config.image_features.pool
        with_features = targets.feature_channels > 0 and self._pool is None
        colors_only = config.views.lidar is not None
        self.decode = FrameDecoder(config.cache_megabytes / 2, with_features, colors_only)
        self._pooled: LruCache[PooledFeatures] = LruCache(config.cache_megabytes / 8)
        self._clusters: LruCache[ClusterPoints] = LruCache(config.cache_megabytes / 8)
        if targets.clustering is not None or self._pool is not None:
            self._memory = LruCache(config.cache_megabytes / 4)
        self.labelled = frozenset(budget_scenes(self.names, config.budget)) if with_labels else frozenset()

    collate = staticmethod(Batch.collate)

    def _read(self, name: str) -> Scene:
        # Boxes are no target of rendering, and cannot follow a scene that is tilted.
        scene = replace(super()._read(name), boxes=None)
        scene = holding_out(scene, self.config.held_out_sensors)
        return scene if self.features is None else self.features.attached(scene, self.split)

    def scene(self, index: int) -> Scene:
        """A scene with the labels that the budget leaves; where points are counted, images have none."""
        scene = super().scene(index)
        if not self.with_labels:
            return scene
        if scene.name not in self.labelled:
            return _without_image_labels(replace(scene, cloud=replace(scene.cloud, labels={})))
        if self.label_field in scene.cloud.labels:
            scene = apply_label_budget(scene, self.config.budget, self.label_field)
        return _without_image_labels(scene) if self.config.budget.counts_points else scene

    def sample(self, index: int, draw: int) -> Batch:
        """One augmented scene with pixels of its training frames.

        Raises:
            SceneError: the scene has no frame with a usable pixel.
        """
        generator = make_generator("pretrain", self.seed, draw, index)
        scene = self.scene(index)
        if self.config.views.lidar is not None:
            return self._lidar_sample(scene, generator)
        frames = training_frames(scene)
        region = self._region(scene, frames, generator)
        sampled = sample_pixels(scene, frames, self.config.views, self.decode, generator, region)
        clusters, pooled = self._cluster_points(scene), self._pooled_features(scene, frames)
        pixels = with_targets(sampled.pixels, sampled.frames, self.decode, self.targets, clusters, pooled)
        inputs = sample_images(self._input_frames(scene), self.config.images, generator)
        depths = self._measured_depths(scene, inputs)
        # Only the chosen cameras are moved: scenes have hundreds.
        scene = replace(scene if region is None else crop(scene, region), frames=(*sampled.frames, *inputs))
        scene = self._augmented(scene, generator)
        prepared = preprocess(scene, self.config, self.condition, self.label_field, generator)
        n_views = len(sampled.frames)
        return replace(
            prepared.batch,
            pixels=with_cameras(pixels, prepared.scene.frames[:n_views]),
            images=image_batch(
                prepared.scene.frames[n_views:], self.config.images, self.decode, generator, depths
            ),
        )

    def _augmented(self, scene: Scene, generator: torch.Generator) -> Scene:
        """With the points of sweeps, moved, and with the points in range."""
        scene = clipped(with_sweeps(scene, self.config.sweeps, generator), self.config)
        return in_range(augment(scene, self.config.augment, generator), self.config)

    def _lidar_sample(self, scene: Scene, generator: torch.Generator) -> Batch:
        """One augmented scene with rays to the points of its LiDAR."""
        frames, voxels = training_frames(scene), self._rays_to_voxels
        inputs = sample_images(self._input_frames(scene), self.config.images, generator)
        sampled = None if voxels else self._lidar_rays(scene, frames, generator)
        views = frames if sampled is None else sampled.frames
        moved = self._augmented(replace(scene, frames=(*views, *inputs)), generator)
        prepared = preprocess(moved, self.config, self.condition, self.label_field, generator)
        moved_frames = prepared.scene.frames
        if sampled is None:
            seen = _own_points(prepared.scene)
            rays = self._lidar_rays(seen, moved_frames[: len(views)], generator)
            by_id = {frame.id: frame for frame in views}
            pixels = self._with_targets(scene, rays.pixels, [by_id[frame.id] for frame in rays.frames])
            pixels = with_cameras(pixels, rays.frames)
        else:
            pixels = with_cameras(
                self._with_targets(scene, sampled.pixels, views), moved_frames[: len(views)]
            )
        images = image_batch(
            moved_frames[len(views) :],
            self.config.images,
            self.decode,
            generator,
            self._measured_depths(scene, inputs),
        )
        return replace(prepared.batch, pixels=pixels, images=images)

    def _input_frames(self, scene: Scene) -> tuple[Frame, ...]:
        """Frames whose images the encoder may see."""
        images = self.config.images
        return scene.frames if images is not None and images.held_out else training_frames(scene)

    def _measured_depths(self, scene: Scene, frames: Sequence[Frame]) -> list[Tensor] | None:
        """Of images, by the LiDAR of a scene as it was read, 0 for held-out ones; None where nothing asks for
        them, or depth images say them all."""
        images, lidar = self.config.images, self.config.views.lidar
        if images is None or not images.depth or (lidar is None and not images.held_out):
            return None
        width, height = images.width, images.height
        found: list[Tensor] = []
        for one in frames:
            if one.held_out:
                found.append(torch.zeros(height, width))
            elif lidar is None:
                found.append(self.decode(one).depth)
            else:
                found.append(measured_depth(scene, one.camera, lidar, width, height))
        return found

    @property
    def _rays_to_voxels(self) -> bool:
        return self.config.views.lidar is not None and self.config.views.lidar.points == "voxels"

    def _lidar_rays(self, scene: Scene, frames: Sequence[Frame], generator: torch.Generator) -> SampledPixels:
        """Of a scene before it is moved, or of its voxels."""
        usable = inside_range(scene, self.config)
        field = self.label_field if self.with_labels else ""
        return sample_lidar_rays(
            scene, frames, self.config.views, self.decode.color, generator, field, usable
        )

    def _with_targets(self, scene: Scene, pixels: PixelBatch, frames: Sequence[Frame]) -> PixelBatch:
        """`scene` and `frames` as they were read."""
        if self.targets == NO_TARGETS:
            return pixels
        clusters = self._cluster_points(scene)
        pixels = with_cameras(pixels, frames)
        return with_targets(pixels, frames, self.decode, self.targets, clusters)

    def _cluster_points(self, scene: Scene) -> ClusterPoints | None:
        """Where the clusters of a scene are, which was not moved; None where they are no target."""
        clustering = self.targets.clustering
        if clustering is None:
            return None
        return self._clusters.get(scene.name, lambda: ClusterPoints.of(scene, clustering))

    def _pooled_features(self, scene: Scene, frames: Sequence[Frame]) -> PooledFeatures | None:
        """Image features of a scene, which was not moved, averaged in space; None where each image has its
        own."""
        if not self.targets.feature_channels or self._pool is None:
            return None
        deviation = self._pool * scene.units_per_metre

        def pooled() -> PooledFeatures:
            return PooledFeatures.of(
                frames, lambda frame: decode(frame, True), deviation, self.targets.feature_channels
            )

        return self._pooled.get(scene.name, pooled)

    def validation(self, index: int) -> ValidationScene:
        """The scene and up to `validation_views` held-out frames (of all, where none is held out)."""
        generator = make_generator("validation", self.seed, index)
        scene = self.scene(index)
        frames = validation_frames(scene)
        region = self._region(scene, frames, generator)
        views = self.config.views.model_copy(update={"n_views": self.config.validation_views, "n_pixels": 1})
        chosen = evenly_spread(frames, self.config.validation_views)
        if region is not None:
            chosen = _distinct(sample_pixels(scene, frames, views, self.decode, generator, region))
        inputs = sample_images(self._input_frames(scene), self.config.images)
        hits = self._hits(scene, chosen)
        scene = replace(scene if region is None else crop(scene, region), frames=(*chosen, *inputs))
        scene = in_range(clipped(with_sweeps(scene, self.config.sweeps), self.config), self.config)
        shifted = scene.moved(whole_scene_shift(scene.cloud.coord, self.config))
        prepared = preprocess(shifted, self.config, self.condition, self.label_field)
        if region is not None:
            shift = shifted.cloud.coord[0] - scene.cloud.coord[0]
            region = replace(region, centre=region.centre + shift + prepared.shift[:3, 3].float())
        moved = prepared.scene.frames
        images = image_batch(moved[len(chosen) :], self.config.images, self.decode)
        batch = replace(prepared.batch, images=images)
        return ValidationScene(batch, moved[: len(chosen)], region, hits, self.config.views.lidar)

    def _hits(self, scene: Scene, frames: Sequence[Frame]) -> tuple[LidarPixels, ...] | None:
        """What the LiDAR measured in the images of frames; None where depth images say it."""
        lidar = self.config.views.lidar
        if lidar is None:
            return None
        usable = inside_range(scene, self.config)
        return tuple(visible_points(scene, frame, lidar, usable) for frame in frames)

    def _region(self, scene: Scene, frames: Sequence[Frame], generator: torch.Generator) -> Region | None:
        """A region around something that a frame shows, with points in it; None = the whole scene."""
        frames = [frame for frame in frames if frame.has_depth]
        if self.config.crop is None or not frames:
            return None
        best, most = None, 0
        one = self.config.views.model_copy(update={"n_views": 1, "n_pixels": 1})
        for _ in range(ATTEMPTS):
            centre = self._surface_point(sample_pixels(scene, frames, one, self.decode, generator))
            region = region_around(centre, self.config.crop)
            n_points = int(region.contains(scene.cloud.coord).sum())
            if n_points > most:
                best, most = region, n_points
            if most >= self.config.crop.min_points:
                break
        return best

    def _surface_point(self, chosen: SampledPixels) -> Float[Tensor, "3"]:
        frame = chosen.frames[0]
        column, row = chosen.pixels.pixel[0].long()
        decoded = self.decode(frame)
        return surface_points(frame, decoded, (row * decoded.depth.shape[1] + column)[None])[0]


def find_image_features(store: Reader, config: ImageFeaturesConfig | None) -> FeatureSet | None:
    """The stored features that the settings mean; None where there are none, or none are wanted."""
    if config is None:
        return None
    space = config.space or (None if config.basis is None else read_basis(config.basis)["space"])
    return find_features(store.root, config.identity, [store.info.name], space)


def _without_image_labels(scene: Scene) -> Scene:
    return replace(scene, frames=tuple(replace(frame, semantic_path=None) for frame in scene.frames))


def holding_out(scene: Scene, sensors: Sequence[str]) -> Scene:
    """The scene with the frames of some cameras held out."""
    if not sensors:
        return scene
    frames = (replace(one, held_out=one.held_out or one.sensor in sensors) for one in scene.frames)
    return replace(scene, frames=tuple(frames))


def _own_points(scene: Scene) -> Scene:
    """The scene with the points of its own scan, where those of other sweeps were added."""
    age = scene.cloud.fields.get("time")
    return scene if age is None else scene.take(age == 0.0)


def training_frames(scene: Scene) -> tuple[Frame, ...]:
    """The frames that are not held out."""
    return tuple(frame for frame in scene.frames if not frame.held_out)


def validation_frames(scene: Scene) -> tuple[Frame, ...]:
    """The held-out frames, or all of them where none is held out."""
    return tuple(frame for frame in scene.frames if frame.held_out) or scene.frames


def _distinct(chosen: SampledPixels) -> tuple[Frame, ...]:
    return tuple({frame.id: frame for frame in chosen.frames}.values())
