"""Depth of images: what the features of an image encoder say of the distance of what a pixel shows."""

from __future__ import annotations

from ponderv2.data.config import LabelledDataConfig, PointDataConfig
from ponderv2.errors import PresetError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.depth import evaluation, head_start
from ponderv2.tasks.depth.config import DepthModelConfig
from ponderv2.tasks.depth.data import DepthDataset
from ponderv2.tasks.depth.evaluation import DepthValidation
from ponderv2.tasks.depth.model import DepthModel
from ponderv2.tasks.task import (
    BestMetric,
    EvaluationRequest,
    EvaluationResult,
    FitHead,
    OpenPart,
    Task,
    TaskDataset,
    ValidationRequest,
)
from ponderv2.training.report import Reporter


class DepthTask(Task[DepthModelConfig]):
    """Judged by the mean relative error."""

    best = BestMetric("abs_rel", higher_is_better=False)
    model_in_words = "a model of depth"

    def build(self) -> DepthModel:
        """Encoder and head."""
        return DepthModel(self.settings)

    def with_scenes(self, store: SceneFolders, data: PointDataConfig) -> DepthModelConfig:
        """The settings. Raises PresetError for an encoder of points, and without images for the encoder."""
        encoder = self.settings.encoder
        if encoder is not None and encoder.gives == "points":
            raise PresetError(
                "depth is predicted from the features of images, and the encoder gives those of points",
                fix="--from a run that pre-trained images, such as of streets_camera or rooms_images",
            )
        if data.images is None:
            raise PresetError(
                "depth is predicted for images, and data.images is null",
                fix="--set 'data.images={n_views: 6, width: 256, height: 144}'",
            )
        return self.settings

    def datasets(self, part: OpenPart[LabelledDataConfig]) -> tuple[DepthDataset, DepthDataset | None]:
        """Scenes with images; whether anything is measured in them is checked by the first one.

        Raises PresetError for settings that depth does not go by.
        """
        self._check_settings(part.part.data)
        training = DepthDataset(part.store, part.part.train_split, part.part.data, part.seed)
        training.check()
        if part.val_split is None:
            return training, None
        # A budget is for training; all scenes of the other split are evaluated.
        everything = part.part.data.model_copy(update={"budget": type(part.part.data.budget)()})
        return training, DepthDataset(part.store, part.val_split, everything, part.seed)

    def _check_settings(self, data: LabelledDataConfig) -> None:
        if self.settings.train_decoder and self.settings.reads == "network":
            raise PresetError(
                "train_decoder trains the layers that join the stages of the network, which model.reads: "
                "network leaves out",
                fix="--protocol linear or full, or --set model.reads=maps",
            )
        if data.budget.counts_points:
            raise PresetError(
                "points_per_scene and points_file of data.budget count labelled points: depth is learned at "
                "all measured pixels of a scene",
                fix="--set data.budget.scenes=N, or model.n_pixels for those of a step",
            )
        if data.class_balance:
            raise PresetError(
                "data.class_balance goes by boxes: depth has none", fix="--set data.class_balance=false"
            )

    def warnings(self, store: SceneFolders, split: str) -> tuple[str, ...]:
        """No labels are needed."""
        return store.warnings(split, labels=False)

    def targets(self, data: TaskDataset) -> str:
        """What is predicted."""
        return "measured depth"

    def validation(
        self, model: DepthModel, data: DepthDataset, request: ValidationRequest
    ) -> DepthValidation:
        """On all images of whole scenes."""
        return DepthValidation(model, data)

    @property
    def fit_head(self) -> FitHead:
        """By logistic regression on the intervals of measured pixels."""
        return head_start.fit_head

    def evaluate(self, request: EvaluationRequest, model: DepthModel, report: Reporter) -> EvaluationResult:
        """Predicts the depth of the images of a split."""
        return evaluation.run(request, model, report)
