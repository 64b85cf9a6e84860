"""An encoder without renderer or head: it gives features and has nothing to train or to measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.tasks.encoder_only.config import EncoderOnlyConfig
from ponderv2.tasks.protocols import PROBES
from ponderv2.tasks.published import in_published_order
from ponderv2.tasks.task import BestMetric, EvaluationRequest, OpenPart, Task, ValidationRequest
from ponderv2.training.report import Reporter


class EncoderOnlyModel(EncoderModel):
    """`backbone` and, of a prompted encoder, `embedding_table`."""

    def __init__(self, config: EncoderOnlyConfig) -> None:
        super().__init__(config)
        self.add_embeddings()
        self.freeze()


class EncoderOnlyTask(Task[EncoderOnlyConfig]):
    """Only `build` and the published names apply."""

    best = BestMetric("none")
    model_in_words = "an encoder alone"
    protocols = PROBES

    def build(self) -> EncoderOnlyModel:
        """The encoder."""
        return EncoderOnlyModel(self.settings)

    def datasets(self, part: OpenPart[Any]) -> NoReturn:
        """Raises ValueError: there is nothing to train."""
        raise ValueError("expected a model with a head, got an encoder alone")

    def validation(self, model: Any, data: Any, request: ValidationRequest) -> NoReturn:
        """Raises ValueError: there is nothing to validate."""
        raise ValueError("expected a model with a head, got an encoder alone")

    def check_results(self, path: Path) -> None:
        """Raises CheckpointError: there is nothing to measure."""
        raise CheckpointError(
            f"{path} holds an encoder alone, which gives features and no results to measure",
            fix=f"ponder finetune --from {path}, then ponder eval",
        )

    def evaluate(self, request: EvaluationRequest, model: Any, report: Reporter) -> NoReturn:
        """Raises ValueError: there is nothing to measure."""
        raise ValueError("expected a model with results to measure, got an encoder alone")

    def published_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published names, with the data sets in the published order."""
        return in_published_order(self.settings.model_dump(mode="json"), state)
