"""Detection: boxes around the objects of a scene, in rooms by IoU, on nuScenes also by its own score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ponderv2.data.config import LabelledDataConfig, PointDataConfig
from ponderv2.data.instance_boxes import box_source
from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.evaluation.box_average_precision import BoxMatches, box_matches, box_metrics
from ponderv2.geometry.detections import Detections
from ponderv2.heads.detection.kinds import check_classes
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import PointCloud
from ponderv2.tasks.detection import evaluation
from ponderv2.tasks.detection.config import DetectionModelConfig
from ponderv2.tasks.detection.data import DetectionDataset, whole_cloud
from ponderv2.tasks.detection.model import DetectionModel
from ponderv2.tasks.loaded_model import LoadedModel
from ponderv2.tasks.task import (
    BestMetric,
    EvaluationRequest,
    EvaluationResult,
    OpenPart,
    Task,
    TaskDataset,
    ValidationRequest,
)
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger


class DetectionTask(Task[DetectionModelConfig]):
    """Judged by the mean average precision at an IoU of 0.25."""

    best = BestMetric("map25")
    model_in_words = "a detector"

    def build(self) -> DetectionModel:
        """Encoder, volume and head."""
        return DetectionModel(self.settings)

    def with_scenes(self, store: SceneFolders, data: PointDataConfig) -> DetectionModelConfig:
        """The settings with the classes of the boxes. Raises PresetError where both disagree."""
        try:
            known = box_source(store.info).class_names
        except SceneError as error:
            raise PresetError(
                f"{store.root}: {error.message}", fix="prepare a data set with boxes"
            ) from error
        settings = self.settings
        classes = known if settings.classes is None else settings.classes
        unknown = [name for name in classes if name not in known]
        if len(unknown) == len(classes):
            raise PresetError(
                f"none of model.classes is a class of the boxes of {store.root}: {', '.join(known)}",
                fix="--set model.classes=null takes those of the data set",
            )
        try:
            check_classes(settings.head, classes)
        except ValueError as error:
            raise PresetError(
                f"model.head does not fit the boxes of {store.root}: {error}",
                fix="--set model.head.KEY=..., or --set model.classes=[...] for some of the classes",
            ) from error
        return settings.model_copy(update={"classes": classes})

    def datasets(
        self, part: OpenPart[LabelledDataConfig]
    ) -> tuple[DetectionDataset, DetectionDataset | None]:
        """Scenes with boxes; those of the first scene are read.

        Raises PresetError for settings that detection does not go by, SceneError without boxes.
        """
        data = part.part.data
        if data.budget.counts_points:
            raise PresetError(
                "points_per_scene and points_file of data.budget count labelled points: detection is learned "
                "from the boxes of whole scenes",
                fix="--set data.budget.scenes=N, or data.budget.share=0.1",
            )
        if data.mix_probability > 0:
            raise PresetError(
                "data.mix_probability merges scenes, whose objects would then stand in each other",
                fix="--set data.mix_probability=0",
            )
        classes = self.settings.classes
        training = DetectionDataset(part.store, part.part.train_split, data, part.seed, classes)
        if data.class_balance:
            training.balance()
        training.training_scene(0)
        if part.val_split is None:
            return training, None
        everything = data.model_copy(update={"budget": type(data.budget)()})
        return training, DetectionDataset(part.store, part.val_split, everything, part.seed, classes)

    def warnings(self, store: SceneFolders, split: str) -> tuple[str, ...]:
        """Labels of points matter only where boxes are made of them."""
        return store.warnings(split, labels=not store.info.box_classes)

    def targets(self, data: TaskDataset) -> str:
        """The number of classes."""
        return f"boxes of {len(self.settings.classes or ())} classes"

    def classes(self, trainings: Sequence[DetectionDataset]) -> dict[str, Any]:
        """Their names."""
        return {"names": list(self.settings.classes or ()), "condition": trainings[0].condition}

    def validation(
        self, model: DetectionModel, data: DetectionDataset, request: ValidationRequest
    ) -> DetectionValidation:
        """On whole scenes."""
        return DetectionValidation(model, data)

    def initial_weights(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Lift and projection of pre-training, where shapes agree."""
        return {name: value for name, value in stored.items() if name.startswith(("lift.", "proj_net."))}

    def brings_head(self, stored: Mapping[str, Tensor]) -> bool:
        """Heads are not taken from other models."""
        return False

    def detector(self, loaded: LoadedModel) -> BoxDetector:
        """For `ponder detect`."""
        return BoxDetector(loaded)

    def evaluate(
        self, request: EvaluationRequest, model: DetectionModel, report: Reporter
    ) -> EvaluationResult:
        """Detects the objects of the scenes of a split."""
        return evaluation.run(request, model, report)


class DetectionValidation:
    """Average precision by IoU on whole scenes without augmentation."""

    def __init__(self, model: DetectionModel, data: DetectionDataset) -> None:
        self._model, self._data = model, data

    def __len__(self) -> int:
        return len(self._data)

    def measure(self, number: int, step: int, logger: RunLogger | None) -> BoxMatches:
        """Boxes found in a scene beside the annotated ones."""
        found = evaluation.detect_scene(self._model, self._data, number)
        return box_matches(found, self._data.truth(number))

    def metrics(self, results: Sequence[BoxMatches]) -> dict[str, float]:
        """map25, mar25, map50, mar50; 0 where nothing is annotated."""
        means = box_metrics(results, len(self._model.classes)).means()
        return {name: value if value == value else 0.0 for name, value in means.items()}


class BoxDetector:
    """A trained detector on scenes and on clouds of no data set."""

    def __init__(self, loaded: LoadedModel) -> None:
        assert isinstance(loaded.model, DetectionModel)
        self._loaded, self._model = loaded, loaded.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._model.classes

    @property
    def shown_score(self) -> float:
        """That of the head."""
        return self._model.config.head.shown_score

    def in_scene(self, store: SceneFolders, split: str, name: str) -> Detections:
        """What is found in a scene, in its frame. Raises SceneError."""
        request = EvaluationRequest(self._loaded, store, split, Path())
        settings = request.settings(LabelledDataConfig, budget={}, class_balance=False)
        data = DetectionDataset(store, split, settings, classes=self.classes)
        return evaluation.detect_scene(self._model, data, data.names.index(name))

    def in_cloud(self, cloud: PointCloud) -> tuple[Detections, tuple[str, ...]]:
        """What is found in a cloud, in its frame, and what was made up for it.

        Raises CheckpointError for an encoder of images, SceneError for a cloud that it cannot read.
        """
        if self._model.encoder_config.needs != "points":
            raise CheckpointError(
                f"the encoder of {self._loaded.path} sees images, and a cloud alone has none",
                fix="--scene NAME of a data set",
            )
        cloud, added = self._loaded.completed(cloud)
        settings = LabelledDataConfig.model_validate({**self._loaded.config["data"], "budget": {}})
        whole = whole_cloud(cloud, settings, self._model.prompts.choose(None))
        return evaluation.detect_whole(self._model, whole), added
