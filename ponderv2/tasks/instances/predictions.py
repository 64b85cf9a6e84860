"""Predicts the instances of whole scenes and compares them with ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.datasets import LabelledDataset
from ponderv2.errors import SceneError
from ponderv2.evaluation.instances import InstanceOverlaps, PredictedInstances, instance_overlaps
from ponderv2.scenes.scene import PointCloud
from ponderv2.tasks.instances.model import InstancesModel

LABELS = "instance"
"""Name of the array that says which instance a point is part of."""


@dataclass(frozen=True)
class SceneInstances:
    """Predictions for one scene, for all points of the scene as it was prepared."""

    segment: Int[Tensor, " point"]
    """Most probable class."""
    instance_id: Int[Tensor, " point"]
    """Instance of each point, -1 = none."""
    instances: PredictedInstances


@torch.no_grad()
def predict_scene_instances(model: InstancesModel, data: LabelledDataset, index: int) -> SceneInstances:
    """Instances of a scene, which needs no labels: one point per voxel is encoded, and every point gets the
    prediction of its voxel. The model must be in evaluation mode; the result is on the CPU."""
    device = next(model.parameters()).device
    whole = data.whole(data.scene(index))
    found, logits = model.predict_instances(whole.batch.to(device), data.config.voxel.size)
    inverse = whole.voxels.inverse
    instance_id = found.member.cpu()[inverse]
    instances = PredictedInstances.of_members(instance_id, found.category.cpu(), found.score.cpu())
    return SceneInstances(logits.argmax(dim=1).cpu()[inverse], instance_id, instances)


def overlaps_of_scene(
    found: SceneInstances, cloud: PointCloud, label_field: str, ignored: tuple[int, ...]
) -> InstanceOverlaps | None:
    """Overlaps with the true instances; None where the scene has no classes or no instances."""
    if not has_instances(cloud, label_field):
        return None
    segment, instance = cloud.labels[label_field].long(), cloud.labels[LABELS].long()
    return instance_overlaps(found.instances, segment, instance, ignored)


def has_instances(cloud: PointCloud, label_field: str) -> bool:
    """Whether the scene says which class and which instance its points are."""
    return label_field in cloud.labels and LABELS in cloud.labels


def require_instances(data: LabelledDataset) -> None:
    """Raises SceneError where the first scene does not say which instance its points are part of."""
    cloud = data.labelled_scene(0).cloud
    if LABELS not in cloud.labels:
        raise SceneError(
            f"scene '{data.names[0]}' of {data.store.root} has no array '{LABELS}' of instances",
            fix="prepare the scenes again from a dataset with instances, or --set model.kind=segmentation",
        )
