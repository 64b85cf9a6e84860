"""Finds the objects of whole scenes and compares them with the true ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.augmentation import centre_shift
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.preprocess import preprocess
from ponderv2.errors import SceneError
from ponderv2.evaluation.instances import ObjectOverlaps, PredictedObjects, compare_objects
from ponderv2.scenes.scene import PointCloud
from ponderv2.tasks.instances.model import InstancesModel

LABELS = "instance"
"""Name of the array that says which object a point is part of."""


@dataclass(frozen=True)
class SceneObjects:
    """What a model found in one scene, for all points of the scene as it was prepared."""

    segment: Int[Tensor, " point"]
    """Most probable class."""
    member: Int[Tensor, " point"]
    """Object of each point, -1 = none."""
    objects: PredictedObjects


@torch.no_grad()
def found_objects(model: InstancesModel, data: LabelledDataset, index: int) -> SceneObjects:
    """Objects of a scene, which needs no labels: one point per voxel is seen, and every point gets what its
    voxel got. The model must be in evaluation mode; the result is on the CPU."""
    device = next(model.parameters()).device
    scene = centre_shift(replace(data.scene(index), frames=()), apply_z=True)
    done = preprocess(scene, data.config, data.condition, data.label_field)
    found, logits = model.find_objects(done.batch.to(device), data.config.voxel.size)
    inverse = done.voxels.inverse
    member = found.member.cpu()[inverse]
    objects = PredictedObjects.of_members(member, found.category.cpu(), found.score.cpu())
    return SceneObjects(logits.argmax(dim=1).cpu()[inverse], member, objects)


def overlaps_of_scene(
    found: SceneObjects, cloud: PointCloud, label_field: str, ignored: tuple[int, ...]
) -> ObjectOverlaps | None:
    """Overlaps with the true objects; None where the scene has no classes or no objects to compare with."""
    if not has_objects(cloud, label_field):
        return None
    segment, instance = cloud.labels[label_field].long(), cloud.labels[LABELS].long()
    return compare_objects(found.objects, segment, instance, ignored)


def has_objects(cloud: PointCloud, label_field: str) -> bool:
    """Whether the scene says which class and which object its points are."""
    return label_field in cloud.labels and LABELS in cloud.labels


def require_objects(data: LabelledDataset) -> None:
    """Raises SceneError where the first scene does not say which object its points are part of."""
    cloud = data.labelled_scene(0).cloud
    if LABELS not in cloud.labels:
        raise SceneError(
            f"scene '{data.names[0]}' of {data.store.root} has no array '{LABELS}' that tells objects apart",
            fix="prepare the scenes again from a dataset with objects, or --set model.kind=segmentation",
        )
