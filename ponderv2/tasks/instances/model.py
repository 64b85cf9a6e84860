"""An encoder with the heads of PointGroup: class and offset to the instance centre of every point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.voxels import batch_index
from ponderv2.heads.instances import (
    InstanceLosses,
    InstanceProposals,
    group_points,
    instance_centres,
    instance_losses,
    instance_targets,
    offset_head,
)
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.instances.config import InstancesModelConfig


@dataclass(frozen=True)
class InstanceStep:
    """What one training step yields."""

    losses: InstanceLosses
    logits: Float[Tensor, "point class"]
    offset: Float[Tensor, "point 3"]
    """Predicted offset to the centre of the instance, scene units."""


class InstancesModel(EncoderModel):
    """State names of the heads are the published ones: `seg_head`, `bias_head`."""

    def __init__(self, config: InstancesModelConfig) -> None:
        super().__init__(config)
        if config.n_classes is None:
            raise ValueError("the number of classes is not known yet")
        self.config = config
        self.add_embeddings()
        self.bias_head = offset_head(self.n_channels)
        self.seg_head = nn.Linear(self.n_channels, config.n_classes)
        self.freeze()

    def classes_of(self, condition: str) -> int:
        """Scores per point; the same for every dataset."""
        return self.seg_head.out_features

    def predict(self, batch: Batch) -> tuple[Float[Tensor, "point class"], Float[Tensor, "point 3"]]:
        """Score of every class and offset to the centre of the instance (scene units) for every point."""
        feature = self.encode_points(batch)
        return self.seg_head(feature), self.bias_head(feature)

    def logits(self, batch: Batch) -> Float[Tensor, "point class"]:
        """Score of every class for every point."""
        return self.seg_head(self.encode_points(batch))

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> InstanceStep:
        """One training step. Nothing in it is random; the generator is there because every model gets one."""
        logits, offset = self.predict(batch)
        instance = instance_targets(batch.segment, batch.instance, self.config.ignored_classes)
        target = instance_centres(batch.coord, instance) - batch.coord
        losses = instance_losses(logits, offset, target, batch.segment, instance >= 0)
        return InstanceStep(losses, logits, offset)

    @torch.no_grad()
    def predict_instances(
        self, batch: Batch, voxel_size: float
    ) -> tuple[InstanceProposals, Float[Tensor, "point class"]]:
        """Instances of all scenes of a batch, and the score of every class for every point.

        `voxel_size` is that of the batch, scene units.
        """
        logits, offset = self.predict(batch)
        position = (batch.coord + offset.float()) / voxel_size
        scene = batch_index(batch.offset)
        config = self.config
        return group_points(position, logits, scene, config.ignored_classes, config.grouping), logits
