"""Boxes of scenes that have instances of points but no boxes: the axis-aligned hulls of the instances.

ScanNet's and S3DIS's detection benchmarks are made so, of scenes whose walls run along x and y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.datasets.scannet import detection as scannet
from ponderv2.errors import SceneError
from ponderv2.geometry.point_boxes import boxes_around_instances
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Scene

BENCHMARKS: Mapping[str, tuple[str, ...]] = {"ScanNet": scannet.BOX_CLASSES, "S3DIS": s3dis.BOX_CLASSES}
"""Classes of boxes by the name of the data set."""
NO_OBJECTS = ("wall", "floor", "ceiling")
"""Classes without objects, of other data sets."""
INSTANCE = "instance"


@dataclass(frozen=True)
class BoxSource:
    """Where the boxes of a data set come from, and their classes."""

    class_names: tuple[str, ...]
    """Boxes count these."""
    label_field: str | None
    """Labels that instances get their class from; None = the data set has boxes of its own."""
    label_classes: tuple[str, ...] = ()
    """What the labels count."""


def box_source(info: DatasetInfo, label_field: str | None = None) -> BoxSource:
    """Boxes of the data set itself where it has any, else those of its instances.

    ScanNet and S3DIS have the classes of their detection benchmarks, others all but wall, floor and ceiling.
    With `label_field` boxes are made of instances in any case, of the classes of this field.

    Raises:
        SceneError: nothing is known of the classes of boxes or labels.
    """
    if info.box_classes and label_field is None:
        return BoxSource(info.box_classes, None)
    names = BENCHMARKS.get(info.name, ())
    fields = tuple(info.label_sets) if label_field is None else (label_field,)
    for one in fields:
        known = info.label_set(one).class_names
        if names and set(names) <= set(known):
            return BoxSource(names, one, known)
    for one in fields:
        known = info.label_set(one).class_names
        if known:
            return BoxSource(tuple(name for name in known if name not in NO_OBJECTS), one, known)
    raise SceneError(
        f"nothing is known of the classes of '{info.name}': neither of boxes nor of {', '.join(fields)}",
        fix="prepare a data set that has boxes, or classes and instances",
    )


def with_boxes(scene: Scene, source: BoxSource) -> Scene:
    """The scene with its own boxes, or with those around its instances.

    Instances of other classes have no box. The boxes are along the axes of the scene as it is: make them
    before it is augmented.

    Raises:
        SceneError: the scene has no boxes, or lacks the instances or classes that they are made of.
    """
    if source.label_field is None:
        if scene.boxes is None:
            raise SceneError(f"scene '{scene.name}' has no boxes", fix="prepare the scenes with labels")
        return scene
    labels = scene.cloud.labels
    missing = [name for name in (source.label_field, INSTANCE) if name not in labels]
    if missing:
        raise SceneError(
            f"scene '{scene.name}' has neither boxes nor labels '{missing[0]}' to make them of",
            fix="prepare the scenes with labels of classes and instances",
        )
    box_class = torch.full((len(source.label_classes) + 1,), -1)
    for number, name in enumerate(source.label_classes):
        if name in source.class_names:
            box_class[number] = source.class_names.index(name)
    segment = labels[source.label_field].long()
    known = (segment >= 0) & (segment < len(source.label_classes))
    boxes = boxes_around_instances(scene.cloud.coord, labels[INSTANCE], torch.where(known, segment, -1))
    boxes = replace(boxes, category=box_class[boxes.category])
    return replace(scene, boxes=boxes.take(boxes.category >= 0))
