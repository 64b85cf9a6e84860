"""An encoder with a head of boxes, and the volume between them for heads that read one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import Features, FusedFeatures, PointFeatures
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.detection.head import AnyHead
from ponderv2.heads.detection.kinds import build_detection_head
from ponderv2.lift.image_depth import EstimatesDepth
from ponderv2.lift.kinds import build_lift, build_projection
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.detection.config import DetectionModelConfig


class DetectionLosses(dict[str, Float[Tensor, ""]]):
    """The terms of the head and of the lift by name, each already weighted."""

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every term, always."""
        return torch.stack(list(self.values())).sum()


@dataclass(frozen=True)
class DetectionStep:
    """What one training step yields."""

    losses: DetectionLosses


class DetectionModel(EncoderModel):
    """Boxes of the scenes of a batch. State names of lift and projection are those of pre-training."""

    def __init__(self, config: DetectionModelConfig) -> None:
        """Raises ValueError while the classes are not known, and for parts that do not fit."""
        super().__init__(config)
        if config.classes is None:
            raise ValueError("the classes are not known yet")
        self.config = config
        self.classes = config.classes
        width = self.n_channels
        self.lift: nn.Module | None = None
        self.proj_net = None
        if config.head.reads == "volume":
            assert config.frame is not None
            self.lift = build_lift(config.lift, width)
            if config.projection is not None:
                self.proj_net = build_projection(config.projection, width)
                width = config.projection.out_channels
            width *= config.frame.cells[2]
        self.add_embeddings()
        self.head: AnyHead = build_detection_head(config.head, width, config.classes)
        self.freeze()

    def read(self, batch: Batch) -> tuple[PointFeatures | FeatureVolume, Features]:
        """What the head reads, and the features of the encoder that it was made of."""
        features = self.encode(batch)
        if self.lift is None:
            points = features.points if isinstance(features, FusedFeatures) else features
            if not isinstance(points, PointFeatures):
                raise ValueError("the head reads features of points, those of images are none")
            return points, features
        if isinstance(self.lift, EstimatesDepth):
            features = self.lift.with_depth(features)
        assert self.config.frame is not None
        frame = volume_frame(batch.coord, batch.offset, self.config.frame)
        lifted = self.lift(features, frame)
        volume = lifted.volume() if self.proj_net is None else self.proj_net.project(lifted)
        return in_metres(volume, frame), features

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> DetectionStep:
        """One training step. Nothing in it is random; the generator is there because every model gets one."""
        seen, features = self.read(batch)
        losses: Mapping[str, Tensor] = self.head.losses(self.head(seen), boxes_of_scenes(batch))
        found = DetectionLosses(losses)
        if isinstance(self.lift, EstimatesDepth) and batch.images is not None:
            found["lift_depth"] = self.lift.depth_loss(features, batch.images)
        return DetectionStep(found)

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        """What is found in each scene of a batch, in its frame, on the CPU. In evaluation mode."""
        return [one.cpu() for one in self.head.decode(self.head(self.read(batch)[0]))]


def boxes_of_scenes(batch: Batch) -> list[Boxes]:
    """The annotated boxes of each scene of a batch. Raises ValueError for a batch without annotations."""
    if batch.boxes is None or batch.box_scene is None:
        raise ValueError("the scenes of the batch have no boxes")
    return [batch.boxes.take(batch.box_scene == scene) for scene in range(batch.n_scenes)]


def in_metres(volume: FeatureVolume, frame: VolumeFrame) -> FeatureVolume:
    """The volume with its corners in the frame of the scenes."""
    scale = frame.world_to_volume.diagonal(dim1=1, dim2=2)[:, :3].double()
    shift = frame.world_to_volume[:, :3, 3].double()
    lower, upper = ((one.double() - shift) / scale for one in (volume.lower, volume.upper))
    return replace(volume, lower=lower.float(), upper=upper.float())
