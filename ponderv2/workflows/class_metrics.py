"""Segments whole scenes and counts which class was taken for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.evaluation.semantic import confusion_matrix
from ponderv2.evaluation.voting import vote
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.scenes.batch import SceneBatch
from ponderv2.scenes.dataset import SegmentationDataset
from ponderv2.scenes.fragments import TestView
from ponderv2.training.distributed import to_device


@torch.no_grad()
def confusion_of_scenes(
    model: SegmentationModel,
    data: SegmentationDataset,
    indices: Iterable[int],
    views: Sequence[TestView] = (),
) -> Int[Tensor, "true_class predicted_class"]:
    """Over all points of the scenes. One pass per scene; with `views` every fragment of every view votes.

    The model must be in evaluation mode. On the model's device, so that processes can add them up.
    """
    device = next(model.parameters()).device
    n_classes = model.classes_of(data.condition)
    total = torch.zeros(n_classes, n_classes, dtype=torch.int64)

    def predict(batch: SceneBatch) -> Tensor:
        return model.logits(to_device(batch, device))

    for index in indices:
        if views:
            scene = data.labelled_scene(index)
            votes = vote(scene, predict, data.config, data.condition, views)
            total += confusion_matrix(
                votes.argmax(dim=1), scene.cloud.labels[data.label_field].long(), n_classes
            )
        else:
            scene = data.evaluation(index)
            predicted = predict(scene.batch).argmax(dim=1).cpu()[scene.inverse]
            total += confusion_matrix(predicted, scene.segment.long(), n_classes)
    return total.to(device)
