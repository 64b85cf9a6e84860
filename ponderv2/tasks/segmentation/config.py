"""Settings of semantic segmentation: a model that predicts the class of every point. Never imports torch."""

from __future__ import annotations

from typing import Literal

from ponderv2.heads.config import (
    LanguageHeadConfig,
    LinearHeadConfig,
    OrthogonalEmbeddingsConfig,
    SegmentationLossConfig,
)
from ponderv2.heads.kinds import HeadConfig
from ponderv2.tasks.labelled_config import ClassesConfig


class SegmentationModelConfig(ClassesConfig):
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
        return super().knows(condition) and self.head.knows(self.prompts.name(condition))

    def classes_of(self, condition: str) -> int | None:
        """Number of classes for a dataset; None where it follows from the scenes."""
        return self.head.classes_of(self.prompts.name(condition))

    def with_classes(
        self, condition: str, n_classes: int, names: tuple[str, ...] = ()
    ) -> SegmentationModelConfig:
        """The same model for a number of classes, whose names a language head compares with."""
        head = self.head.with_classes(self.prompts.name(condition), n_classes)
        if isinstance(head, LanguageHeadConfig) and head.names is None and len(names) == head.n_texts:
            head = head.model_copy(update={"class_names": names})
        return self.model_copy(update={"head": head})

    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option that gives the model a number of classes for a dataset."""
        return self.head.classes_option(self.prompts.name(condition), n_classes)
