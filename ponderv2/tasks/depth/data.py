"""Scenes whose images have depths: those of depth images or, without them, of a LiDAR."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import SceneDataset
from ponderv2.data.lidar_rays import measured_depth
from ponderv2.data.scan_config import LidarRaysConfig
from ponderv2.data.views import FrameDecoder
from ponderv2.errors import SceneError
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.reader import Reader
from ponderv2.scenes.scene import Scene

LIDAR = LidarRaysConfig()
"""Points near the sensor, which show the vehicle, measure nothing."""


class DepthDataset(SceneDataset):
    """Whole scenes, for their images."""

    def __init__(self, store: Reader, split: str, config: LabelledDataConfig, seed: int = 0) -> None:
        """Raises SceneError where the split has no scenes. `config.images` must be set."""
        assert config.images is not None
        images = config.images.model_copy(update={"depth": True})
        super().__init__(store, split, config.model_copy(update={"images": images}), seed)
        # Depth images of all frames are decoded with their colours only where there are any.
        colors_only = not any(frame.has_depth for frame in self.scene(0).frames)
        self.decode = FrameDecoder(config.cache_megabytes / 2, colors_only=colors_only)

    def training_scene(self, index: int) -> Scene:
        """A scene without boxes, which could not follow one that is tilted. Raises SceneError."""
        return replace(self.scene(index), boxes=None)

    def measured_depths(self, scene: Scene) -> list[Float[Tensor, "_ _"]] | None:
        """By the LiDAR of a scene as it was read; None where a frame has a depth image, or the points are no
        scan: those of a surface are seen through walls."""
        images = self.config.images
        is_scan = bool(scene.sweeps) or "intensity" in scene.cloud.fields
        if images is None or not is_scan or any(frame.has_depth for frame in scene.frames):
            return None
        return [measured_depth(scene, one.camera, LIDAR, images.width, images.height) for one in scene.frames]

    def images_of(self, index: int) -> Batch:
        """A scene for prediction and evaluation: its images as they are, evenly spread where not all are."""
        return self.whole(self.scene(index)).batch

    def check(self) -> None:
        """Raises SceneError where the first scene has no colour image, or no pixel of it a measured depth."""
        images = self.images_of(0).images
        if images is None or images.depth is None or not bool((images.depth > 0).any()):
            raise SceneError(
                f"no pixel of the images of scene '{self.names[0]}' has a measured depth",
                fix="prepare the scenes with depth images, or take scenes with a LiDAR",
            )
