"""Fine-tuning for semantic segmentation: data, checks and validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ponderv2.data.datasets import LabelledDataset, classes_above
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import PresetError, SceneError
from ponderv2.evaluation.semantic import segmentation_metrics
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.tasks.segmentation.predictions import confusion_of_scenes
from ponderv2.tasks.task import Task
from ponderv2.training.run_logger import RunLogger
from ponderv2.workflows.config import FinetuneConfig
from ponderv2.workflows.finetune_settings import n_classes_of


def datasets(config: FinetuneConfig) -> tuple[LabelledDataset, LabelledDataset | None]:
    """Scenes to train on and, where the other split has any, to validate."""
    store = open_folder(config.scenes)
    if not store.names(config.train_split):
        raise SceneError(
            f"{config.scenes} has no scenes in '{config.train_split}'",
            fix=f"--set train_split={store.info.splits[0]}",
        )
    training = LabelledDataset(store, config.train_split, config.data, config.seed)
    check_classes(training, config)
    if not store.names(config.val_split):
        return training, None
    # A budget of labels is for training; all scenes and labels of the other split are evaluated.
    everything = config.data.model_copy(update={"budget": type(config.data.budget)()})
    validation = LabelledDataset(store, config.val_split, everything, config.seed)
    n_classes = n_classes_of(config.model, validation.condition)
    if n_classes is not None:
        validation.expect_classes(n_classes)
    return training, validation


def check_classes(training: LabelledDataset, config: FinetuneConfig) -> None:
    """Labels and datasets that the model does not know are reported before the work, by the first scene.

    Later scenes are refused when they are read.
    """
    check_condition(training.condition, config)
    n_classes = n_classes_of(config.model, training.condition)
    if n_classes is None:
        return
    segment = training.labelled_scene(0).cloud.labels[training.label_field]
    key = "head.n_classes" if isinstance(config.model, SegmentationModelConfig) else "n_classes"
    fix = (
        f"--set model.{key}={int(segment.max()) + 1} if these are classes, -1 in the array where not, "
        "or --set data.label_field=NAME"
    )
    where = f"scene '{training.names[0]}'"
    wrong = classes_above(n_classes - 1, segment, where, training.label_field)
    if wrong is not None:
        raise PresetError(wrong, fix=fix)
    training.expect_classes(n_classes)


def check_condition(condition: str, config: FinetuneConfig) -> None:
    """Raises PresetError where a prompted encoder, or a head with parts per dataset, does not know it."""
    prompts = config.model.prompts
    if not prompts.knows(condition):
        raise PresetError(
            f"the encoder knows the datasets {', '.join(prompts.known)}, not '{condition}'",
            fix=f"--set model.condition={prompts.known[0]}",
        )
    if isinstance(config.model, SegmentationModelConfig) and not config.model.knows(condition):
        raise PresetError(
            f"the model has no classes or prompt for the dataset '{condition}'",
            fix="--set model.condition=NAME with a dataset that it knows",
        )


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


TASK = Task("segmentation", SegmentationModel, datasets, Validation, best_metric="miou")
