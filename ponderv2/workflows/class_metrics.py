"""Segments whole scenes and counts which class was taken for which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.augmentation import centre_shift
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.fragments import TestView
from ponderv2.data.preprocess import preprocess
from ponderv2.evaluation.semantic import confusion_matrix
from ponderv2.evaluation.voting import vote
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.scenes.batch import Batch
from ponderv2.training.distributed import to_device


@torch.no_grad()
def predicted_classes(
    model: SegmentationModel,
    data: LabelledDataset,
    index: int,
    views: Sequence[TestView] = (),
    seen: Callable[[], None] = lambda: None,
) -> Int[Tensor, " point"]:
    """Class of every point of a scene, which needs no labels. The model must be in evaluation mode.

    One pass over one point per voxel; with `views` every fragment of every view votes, and `seen` is called
    after each view.
    """
    device = next(model.parameters()).device
    scene = replace(data.scene(index), frames=())

    def predict(batch: Batch) -> Tensor:
        return model.logits(to_device(batch, device))

    if views:
        return vote(scene, predict, data.config, data.condition, views, seen=seen).argmax(dim=1)
    done = preprocess(centre_shift(scene, apply_z=True), data.config, data.condition, data.label_field)
    return predict(done.batch).argmax(dim=1).cpu()[done.voxels.inverse]


def confusion_of_scenes(
    model: SegmentationModel,
    data: LabelledDataset,
    indices: Iterable[int],
    views: Sequence[TestView] = (),
) -> Int[Tensor, "true_class predicted_class"]:
    """Over all points of the scenes. On the model's device, so that processes can add them up.

    Raises SceneError for scenes without labels.
    """
    n_classes = model.classes_of(data.condition)
    total = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    for index in indices:
        truth = data.labelled_scene(index).cloud.labels[data.label_field].long()
        total += confusion_matrix(predicted_classes(model, data, index, views), truth, n_classes)
    return total.to(next(model.parameters()).device)
