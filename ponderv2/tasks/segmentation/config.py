"""Settings of a model that gives every point a class."""

from __future__ import annotations

from typing import Literal

from ponderv2.heads.config import (
    DecoupledHeadConfig,
    HeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
    OrthogonalEmbeddingsConfig,
    SegmentationLossConfig,
)
from ponderv2.models.config import EncoderModelConfig


class SegmentationModelConfig(EncoderModelConfig):
    """An encoder and a head."""

    kind: Literal["segmentation"] = "segmentation"
    head: HeadConfig = LinearHeadConfig()
    losses: SegmentationLossConfig = SegmentationLossConfig()

    def without_files(self) -> SegmentationModelConfig:
        """The same model as it stands in a checkpoint, which holds what files once gave."""
        head = self.head
        if isinstance(head, LanguageHeadConfig):
            head = head.model_copy(update={"embeddings": OrthogonalEmbeddingsConfig()})
        weights = self.losses.class_weights
        losses = self.losses.model_copy(
            update={"class_weights": weights if isinstance(weights, tuple) else None}
        )
        return self.model_copy(update={"head": head, "losses": losses})

    def knows(self, condition: str) -> bool:
        """Whether encoder and head have a part for the dataset."""
        if not super().knows(condition):
            return False
        name = self.prompts.name(condition)
        return not isinstance(self.head, DecoupledHeadConfig) or name in self.head.n_classes
