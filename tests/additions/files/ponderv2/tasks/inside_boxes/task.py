"""Which points lie inside a box: data, model, loss, metric and evaluation of a toy task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from ponderv2.tasks.inside_boxes.config import InsideBoxesConfig
from torch import Tensor, nn

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import SceneDataset
from ponderv2.errors import SceneError
from ponderv2.geometry.voxels import batch_index
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.scene import Scene
from ponderv2.tasks.task import (
    BestMetric,
    EvaluationRequest,
    EvaluationResult,
    OpenPart,
    Task,
    ValidationRequest,
)
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger


class BoxedScenes(SceneDataset):
    """Scenes with boxes."""

    def training_scene(self, index: int) -> Scene:
        """A scene as it was prepared. Raises SceneError when nobody annotated boxes."""
        scene = self.scene(index)
        if scene.boxes is None:
            raise SceneError(f"scene '{scene.name}' of {self.store.root} has no boxes")
        return scene


@dataclass(frozen=True)
class InsideLosses:
    """The only term."""

    cross_entropy: Float[Tensor, ""]

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on."""
        return self.cross_entropy


@dataclass(frozen=True)
class InsideStep:
    """What one training step yields."""

    losses: InsideLosses


def inside(batch: Batch) -> Bool[Tensor, " point"]:
    """Whether a point lies in a box of its scene."""
    assert batch.boxes is not None and batch.box_scene is not None
    same = batch.box_scene[:, None] == batch_index(batch.offset)[None]
    return (batch.boxes.contains(batch.coord) & same).any(dim=0)


class InsideBoxesModel(EncoderModel):
    """A score per point."""

    def __init__(self, config: InsideBoxesConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(self.n_channels, 1)
        self.add_embeddings()
        self.freeze()

    def scores(self, batch: Batch) -> Float[Tensor, " point"]:
        """Positive where a point is rather inside."""
        return self.score(self.encode_points(batch))[:, 0]

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> InsideStep:
        """One training step."""
        loss = F.binary_cross_entropy_with_logits(self.scores(batch), inside(batch).float())
        return InsideStep(InsideLosses(loss))


class BoxValidation:
    """Intersection over union of the points that lie in boxes."""

    def __init__(self, model: InsideBoxesModel, data: BoxedScenes, threshold: float) -> None:
        self.model, self.data, self.threshold = model, data, threshold

    def __len__(self) -> int:
        return len(self.data)

    @torch.no_grad()
    def measure(self, number: int, step: int, logger: RunLogger | None) -> tuple[int, int]:
        """Points in both, and in either."""
        batch = self.data.whole(self.data.training_scene(number)).batch
        batch = batch.to(next(self.model.parameters()).device)
        found, true = self.model.scores(batch).sigmoid() >= self.threshold, inside(batch)
        return int((found & true).sum()), int((found | true).sum())

    def metrics(self, results: Sequence[tuple[int, int]]) -> dict[str, float]:
        """Over all scenes."""
        return {"iou": sum(both for both, _ in results) / max(sum(either for _, either in results), 1)}


class InsideBoxesTask(Task[InsideBoxesConfig]):
    """Judged by the intersection over union."""

    best = BestMetric("iou")

    def build(self) -> InsideBoxesModel:
        """Encoder and score."""
        return InsideBoxesModel(self.settings)

    def datasets(self, part: OpenPart[LabelledDataConfig]) -> tuple[BoxedScenes, BoxedScenes | None]:
        """Scenes with boxes."""
        training = BoxedScenes(part.store, part.part.train_split, part.part.data, part.seed)
        training.training_scene(0)
        if part.val_split is None:
            return training, None
        return training, BoxedScenes(part.store, part.val_split, part.part.data, part.seed)

    def validation(
        self, model: InsideBoxesModel, data: BoxedScenes, request: ValidationRequest
    ) -> BoxValidation:
        """On whole scenes."""
        return BoxValidation(model, data, self.settings.threshold)

    def evaluate(
        self, request: EvaluationRequest, model: InsideBoxesModel, report: Reporter
    ) -> EvaluationResult:
        """The same metric on a split."""
        data = BoxedScenes(request.store, request.split, request.settings(LabelledDataConfig))
        scenes = BoxValidation(model, data, self.settings.threshold)
        metrics = scenes.metrics([scenes.measure(number, 0, None) for number in range(len(scenes))])
        kind, path = self.settings.kind, request.stored.path
        return EvaluationResult(kind, path, request.split, len(scenes), metrics)
