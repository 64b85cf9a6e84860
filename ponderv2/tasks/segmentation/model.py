"""An encoder with a head: a class for every point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.heads.kinds import build_head
from ponderv2.heads.semantic import SegmentationLosses, read_class_weights, segmentation_losses
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.segmentation.config import SegmentationModelConfig


@dataclass(frozen=True)
class SegmentationStep:
    """What one training step yields."""

    losses: SegmentationLosses
    logits: Float[Tensor, "point class"]


class SegmentationModel(EncoderModel):
    """A class for every point."""

    def __init__(self, config: SegmentationModelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.add_embeddings()
        self.head = build_head(config.head, self.n_channels)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", read_class_weights(config.losses), persistent=False)
        self.freeze()

    def classes_of(self, condition: str) -> int:
        """Scores per point of a dataset. Raises ValueError for a dataset that the head does not know."""
        n_classes = self.config.head.classes_of(self.prompts.name(condition))
        if n_classes is None:
            raise ValueError(f"the head has no classes for {condition!r}")
        return n_classes

    def logits(self, batch: Batch) -> Float[Tensor, "point class"]:
        """Score of every class for every point."""
        return self.head(self.encode_points(batch), self.prompts.name(batch.condition))

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> SegmentationStep:
        """One training step. Nothing in it is random; the generator is there because every model gets one."""
        logits = self.logits(batch)
        losses = segmentation_losses(logits, batch.segment, self.config.losses, self.class_weights)
        return SegmentationStep(losses, logits)
