"""Instance segmentation: the instances that the points of a scene belong to, and the class of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.errors import PresetError
from ponderv2.evaluation.instances import InstanceOverlaps, instance_metrics
from ponderv2.tasks.instances import evaluation, head_start
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.instances.predictions import overlaps_of_scene, predict_scene_instances, require_instances
from ponderv2.tasks.labelled_points import LabelledPointsTask
from ponderv2.tasks.published import in_published_order, with_wrapped_encoder
from ponderv2.tasks.task import (
    BestMetric,
    EvaluationRequest,
    EvaluationResult,
    FitHead,
    OpenPart,
    ValidationRequest,
)
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger


class InstancesTask(LabelledPointsTask[InstancesModelConfig]):
    """Judged by the average precision at an overlap of 50 %."""

    best = BestMetric("ap50")
    model_in_words = "an instance segmentation model"

    def build(self) -> InstancesModel:
        """Encoder and the heads of PointGroup."""
        return InstancesModel(self.settings)

    def datasets(self, part: OpenPart[LabelledDataConfig]) -> tuple[LabelledDataset, LabelledDataset | None]:
        """As for all labels of points; the scenes must also have instances.

        Raises:
            PresetError: a class is ignored that the model does not have.
            SceneError: there are no scenes, no classes or no instances.
        """
        n_classes = self.settings.n_classes
        unknown = [one for one in self.settings.ignored_classes if n_classes is not None and one >= n_classes]
        if unknown:
            raise PresetError(
                f"model.ignored_classes names class {unknown[0]}, the model has {n_classes} classes",
                fix="--set model.ignored_classes=[...]",
            )
        training, validation = super().datasets(part)
        for data in (training, validation):
            if data is not None:
                require_instances(data)
        return training, validation

    def validation(
        self, model: InstancesModel, data: LabelledDataset, request: ValidationRequest
    ) -> Validation:
        """On whole scenes."""
        return Validation(model, data)

    @property
    def fit_head(self) -> FitHead:
        """By logistic regression for the classes, by L-BFGS for the offsets."""
        return head_start.fit_head

    def evaluate(
        self, request: EvaluationRequest, model: InstancesModel, report: Reporter
    ) -> EvaluationResult:
        """Predicts the instances of the scenes of a split."""
        return evaluation.run(request, model, report)

    def published_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published names, with the data sets in the published order."""
        return with_wrapped_encoder(in_published_order(self.settings.model_dump(mode="json"), state))


class Validation:
    """Average precision on whole scenes without augmentation."""

    def __init__(self, model: InstancesModel, data: LabelledDataset) -> None:
        self._model, self._data = model, data

    def __len__(self) -> int:
        return len(self._data)

    def measure(self, number: int, step: int, logger: RunLogger | None) -> InstanceOverlaps | None:
        """Overlaps of found and true instances; None where the scene has no instances to compare with."""
        model, data = self._model, self._data
        found = predict_scene_instances(model, data, number)
        cloud = data.labelled_scene(number).cloud
        return overlaps_of_scene(found, cloud, data.label_field, model.config.ignored_classes)

    def metrics(self, results: Sequence[InstanceOverlaps | None]) -> dict[str, float]:
        """ap, ap50 and ap25; 0 where no scene has an instance that counts."""
        overlaps = [one for one in results if one is not None]
        metrics = instance_metrics(overlaps, self._model.classes_of(self._data.condition)).means()
        return {name: value if value == value else 0.0 for name, value in metrics.items()}
