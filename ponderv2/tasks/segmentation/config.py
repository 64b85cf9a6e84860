"""Settings of a model that gives every point a class."""

from __future__ import annotations

from typing import Literal

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderConfig
from ponderv2.heads.config import (
    DecoupledHeadConfig,
    HeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
    OrthogonalEmbeddingsConfig,
    SegmentationLossConfig,
)


class SegmentationModelConfig(StrictConfig):
    """An encoder and a head."""

    kind: Literal["segmentation"] = "segmentation"
    encoder: EncoderConfig | None = None
    """None: that of the checkpoint which is fine-tuned."""
    head: HeadConfig = LinearHeadConfig()
    losses: SegmentationLossConfig = SegmentationLossConfig()
    freeze_encoder: bool = False
    """Train the head alone on the features of the encoder (linear probe). Its normalisations use their stored
    statistics, also in training."""
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset: the prompt of a new dataset."""
    conditions: tuple[str, ...] = ()
    """Datasets in the order of the rows of `embedding_table`; empty: that of the encoder."""

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
        name = self.condition or condition
        known = getattr(self.encoder, "conditions", ())
        table = self.conditions or known
        if known and (name not in known or name not in table):
            return False
        return not isinstance(self.head, DecoupledHeadConfig) or name in self.head.n_classes
