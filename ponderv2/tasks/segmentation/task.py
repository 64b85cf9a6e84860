"""Semantic segmentation: the class of every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ponderv2.data.datasets import LabelledDataset
from ponderv2.evaluation.semantic import segmentation_metrics
from ponderv2.heads.config import LanguageHeadConfig, OrthogonalEmbeddingsConfig
from ponderv2.tasks.labelled_points import LabelledPointsTask
from ponderv2.tasks.segmentation import evaluation, head_start, published
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.segmentation.predictions import confusion_of_scenes
from ponderv2.tasks.task import BestMetric, EvaluationRequest, EvaluationResult, FitHead, ValidationRequest
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger

LANGUAGE_PARTS = ("class_embedding", "logit_scale", "proj_head.")
"""What a pre-trained model has in common with a language head."""


class SegmentationTask(LabelledPointsTask[SegmentationModelConfig]):
    """Judged by the mean intersection over union."""

    best = BestMetric("miou")
    model_in_words = "a segmentation model"

    def build(self) -> SegmentationModel:
        """Encoder and head."""
        return SegmentationModel(self.settings)

    def validation(
        self, model: SegmentationModel, data: LabelledDataset, request: ValidationRequest
    ) -> Validation:
        """On whole scenes."""
        return Validation(model, data)

    def initial_weights(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Text embeddings and their projection; texts that the settings take from CLIP or a file stay."""
        shared = {f"head.{name}": value for name, value in stored.items() if name.startswith(LANGUAGE_PARTS)}
        head = self.settings.head
        if isinstance(head, LanguageHeadConfig) and not isinstance(
            head.embeddings, OrthogonalEmbeddingsConfig
        ):
            shared.pop("head.class_embedding", None)
        return shared

    def brings_head(self, stored: Mapping[str, Tensor]) -> bool:
        """A model that was pre-trained with text brings the projection of a language head of its shape."""
        head, encoder = self.settings.head, self.settings.encoder
        projection = stored.get("proj_head.weight")
        if not isinstance(head, LanguageHeadConfig) or encoder is None or projection is None:
            return False
        return tuple(projection.shape) == (head.n_channels, encoder.out_channels)

    @property
    def fit_head(self) -> FitHead:
        """By logistic regression on labelled points."""
        return head_start.fit_head

    def evaluate(
        self, request: EvaluationRequest, model: SegmentationModel, report: Reporter
    ) -> EvaluationResult:
        """Segments the scenes of a split."""
        return evaluation.run(request, model, report)

    def published_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The head as the published networks call and lay it out, data sets in their order."""
        return published.published_weights(self.settings.model_dump(mode="json"), state)

    def published_settings(self) -> dict[str, Any]:
        """A linear head is the published last layer."""
        return published.published_settings(self.settings.model_dump(mode="json"))


class Validation:
    """Classes of whole scenes without augmentation."""

    def __init__(self, model: SegmentationModel, data: LabelledDataset) -> None:
        self._model, self._data = model, data

    def __len__(self) -> int:
        return len(self._data)

    def measure(self, number: int, step: int, logger: RunLogger | None) -> Tensor:
        """The confusion matrix of a scene, which is mostly empty."""
        return confusion_of_scenes(self._model, self._data, [number]).cpu().to_sparse()

    def metrics(self, results: Sequence[Tensor]) -> dict[str, float]:
        """Mean IoU, mean accuracy and overall accuracy; classes that no scene has are left out."""
        n_classes = self._model.classes_of(self._data.condition)
        total = torch.zeros(n_classes, n_classes, dtype=torch.int64)
        metrics = segmentation_metrics(sum(results, start=total), skip_absent=True)
        return {
            "miou": metrics.mean_iou,
            "macc": metrics.mean_accuracy,
            "allacc": metrics.overall_accuracy,
        }
