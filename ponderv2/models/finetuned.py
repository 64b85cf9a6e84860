"""An encoder with a head: a class for every point."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.encoder.build import build_encoder
from ponderv2.encoder.config import PromptedSparseUNetConfig
from ponderv2.geometry.voxels import SparseVoxels, scene_of_each
from ponderv2.heads.build import build_head
from ponderv2.heads.semantic import SegmentationLosses, read_class_weights, segmentation_losses
from ponderv2.models.segmentation_config import SegmentationModelConfig
from ponderv2.normalisation import BatchNorm
from ponderv2.scenes.batch import SceneBatch


@dataclass(frozen=True)
class SegmentationStep:
    """What one training step yields."""

    losses: SegmentationLosses
    logits: Float[Tensor, "point class"]


class SegmentationModel(nn.Module):
    """The encoder is mounted as `backbone`, as in pre-training, so that its weights fit by name."""

    def __init__(self, config: SegmentationModelConfig) -> None:
        super().__init__()
        if config.encoder is None:
            raise ValueError("the encoder is not known yet")
        self.config = config
        self.backbone = build_encoder(config.encoder)
        self.head = build_head(config.head, config.encoder.out_channels)
        if isinstance(config.encoder, PromptedSparseUNetConfig):
            self.conditions = config.conditions or config.encoder.conditions
            self.embedding_table = nn.Embedding(len(self.conditions), config.encoder.context_channels)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", read_class_weights(config.losses), persistent=False)
        if config.freeze_encoder:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name.startswith("head."))
            self.train(self.training)

    def classes_of(self, condition: str) -> int:
        """Scores per point of a dataset. Raises ValueError for a dataset that the head does not know."""
        n_classes = self.config.head.classes_of(self.config.condition or condition)
        if n_classes is None:
            raise ValueError(f"the head has no classes for {condition!r}")
        return n_classes

    def train(self, mode: bool = True) -> SegmentationModel:
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.backbone.eval()
        return self

    def encode(self, batch: SceneBatch) -> Float[Tensor, "point channel"]:
        """Feature of every point; without gradient where the encoder is frozen."""
        voxels = SparseVoxels(batch.feature, batch.grid_coord, scene_of_each(batch.offset), len(batch.offset))
        with torch.no_grad() if self.config.freeze_encoder else nullcontext():
            if not isinstance(self.config.encoder, PromptedSparseUNetConfig):
                return self.backbone(voxels)
            condition = self.config.condition or batch.condition
            return self.backbone(voxels, self._context(condition), condition)

    def logits(self, batch: SceneBatch) -> Float[Tensor, "point class"]:
        """Score of every class for every point."""
        return self.head(self.encode(batch), self.config.condition or batch.condition)

    def forward(self, batch: SceneBatch, generator: torch.Generator | None = None) -> SegmentationStep:
        """One training step. Nothing in it is random; the generator is there because every model gets one."""
        logits = self.logits(batch)
        losses = segmentation_losses(logits, batch.segment, self.config.losses, self.class_weights)
        return SegmentationStep(losses, logits)

    def _context(self, condition: str) -> Float[Tensor, "1 context"]:
        if condition not in self.conditions:
            raise ValueError(f"expected a condition out of {self.conditions}, got {condition!r}")
        return self.embedding_table.weight[self.conditions.index(condition)][None]


@torch.no_grad()
def calibrate_normalisation(model: SegmentationModel, batches: Iterable[SceneBatch]) -> None:
    """Replace the stored statistics of the encoder's normalisations by their average over some batches.

    For a frozen encoder whose own statistics mean nothing, such as a random one, or come from other data.
    """
    norms = [module for module in model.backbone.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = model.backbone.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.backbone.train()
    for batch in batches:
        model.encode(batch)
    model.backbone.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
