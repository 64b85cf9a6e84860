"""Fine-tuning for instance segmentation: data, checks and validation."""

from __future__ import annotations

from collections.abc import Sequence

from ponderv2.data.datasets import LabelledDataset
from ponderv2.errors import PresetError
from ponderv2.evaluation.instances import ObjectOverlaps, instance_metrics
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.instances.predictions import found_objects, overlaps_of_scene, require_objects
from ponderv2.tasks.segmentation import task as finetune_semantic
from ponderv2.tasks.task import Task
from ponderv2.training.run_logger import RunLogger
from ponderv2.workflows.config import FinetuneConfig


def datasets(config: FinetuneConfig) -> tuple[LabelledDataset, LabelledDataset | None]:
    """Scenes to train on and, where the other split has any, to validate; all must know their objects.

    Raises:
        PresetError: a class is ignored that the model does not have.
        SceneError: there are no scenes, no classes or no objects.
    """
    model = config.model
    assert isinstance(model, InstancesModelConfig)
    unknown = [one for one in model.ignored_classes if model.n_classes is not None and one >= model.n_classes]
    if unknown:
        raise PresetError(
            f"model.ignored_classes names class {unknown[0]}, the model has {model.n_classes} classes",
            fix="--set model.ignored_classes=[...]",
        )
    training, validation = finetune_semantic.datasets(config)
    for data in (training, validation):
        if data is not None:
            require_objects(data)
    return training, validation


class Validation:
    """Average precision on whole scenes without augmentation."""

    def __init__(self, model: InstancesModel, data: LabelledDataset) -> None:
        self._model, self._data = model, data

    def __len__(self) -> int:
        return len(self._data)

    def measure(self, number: int, step: int, logger: RunLogger | None) -> ObjectOverlaps | None:
        """Overlaps of found and true objects; None where the scene has no objects to compare with."""
        model, data = self._model, self._data
        found = found_objects(model, data, number)
        cloud = data.labelled_scene(number).cloud
        return overlaps_of_scene(found, cloud, data.label_field, model.config.ignored_classes)

    def metrics(self, results: Sequence[ObjectOverlaps | None]) -> dict[str, float]:
        """ap, ap50 and ap25; 0 where no scene has an object that counts."""
        overlaps = [one for one in results if one is not None]
        metrics = instance_metrics(overlaps, self._model.classes_of(self._data.condition)).means()
        return {name: value if value == value else 0.0 for name, value in metrics.items()}


TASK = Task("instances", InstancesModel, datasets, Validation, best_metric="ap50")
