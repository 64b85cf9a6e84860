"""Boxes of scenes with instances: classes of the benchmarks, scenes that lack what boxes are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ponderv2.data.instance_boxes import box_source, with_boxes
from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.datasets.scannet import detection, scannet20, scannet200
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.reader import DatasetInfo, LabelSet
from ponderv2.scenes.scene import PointCloud, Scene

COORD = torch.tensor([[0.0, 0, 0], [1, 2, 3], [4, 4, 4], [5, 5, 6], [9, 9, 9], [7, 7, 7], [8, 8, 8]])
SCANNET = DatasetInfo(
    "ScanNet",
    scannet20.CLASS_NAMES,
    label_field="segment20",
    other_labels={"segment200": LabelSet(scannet200.CLASS_NAMES)},
)


def scene(segment: list[int], instance: list[int], label_field: str) -> Scene:
    labels = {label_field: torch.tensor(segment), "instance": torch.tensor(instance)}
    return Scene("a", PointCloud(COORD, labels=labels))


def test_scannet_has_18_classes_by_the_ids_of_the_benchmark() -> None:
    assert detection.NYU40_IDS == (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
    assert len(detection.BOX_CLASSES) == len(detection.MEAN_SIZES) == 18
    assert detection.BOX_CLASSES[2] == "chair" and detection.BOX_CLASSES[-1] == "otherfurniture"


@pytest.mark.parametrize("main", ["segment20", "segment200"])
def test_scannet_counts_its_18_classes_whichever_labels_are_the_usual_ones(main: str) -> None:
    info = SCANNET
    if main == "segment200":
        sets = {"segment20": LabelSet(scannet20.CLASS_NAMES)}
        info = replace(info, class_names=scannet200.CLASS_NAMES, label_field="segment200", other_labels=sets)
    source = box_source(info)
    assert source.class_names == detection.BOX_CLASSES and source.label_field == "segment20"
    # A chair (4), a wall (0), an instance without class, and a point of no instance.
    found = with_boxes(scene([4, 4, 0, 0, -1, 4, -1], [3, 3, 1, 1, 6, -1, -1], "segment20"), source).boxes
    assert found is not None and found.instance.tolist() == [3]
    assert [source.class_names[one] for one in found.category] == ["chair"]
    assert found.center.tolist() == [[0.5, 1.0, 1.5]] and found.size.tolist() == [[1.0, 2.0, 3.0]]


def test_s3dis_has_5_classes_and_others_all_that_are_no_part_of_the_building() -> None:
    assert box_source(DatasetInfo("S3DIS", s3dis.CLASS_NAMES)).class_names == s3dis.BOX_CLASSES
    assert box_source(DatasetInfo("own", ("wall", "lamp", "floor", "ceiling"))).class_names == ("lamp",)


def test_own_boxes_come_first_and_instances_where_their_labels_are_named() -> None:
    info = DatasetInfo("rooms", ("floor", "lamp"), box_classes=("chair",))
    boxed = replace(scene([1] * 7, [0] * 7, "segment"), boxes=Boxes.empty())
    source = box_source(info)
    assert source.class_names == ("chair",) and with_boxes(boxed, source) is boxed
    made = with_boxes(boxed, box_source(info, "segment")).boxes
    assert made is not None and len(made) == 1 and made.size.tolist() == [[9.0, 9.0, 9.0]]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SceneError, match="nothing is known of the classes"):
        box_source(DatasetInfo("own"))
    with pytest.raises(SceneError, match="has no boxes"):
        with_boxes(Scene("a", PointCloud(COORD)), box_source(DatasetInfo("own", box_classes=("chair",))))
    with pytest.raises(SceneError, match="nor labels 'instance'"):
        one = Scene("a", PointCloud(COORD, labels={"segment20": torch.zeros(7, dtype=torch.long)}))
        with_boxes(one, box_source(SCANNET))


def test_classes_that_the_labels_do_not_have_are_no_class() -> None:
    found = with_boxes(scene([77] * 7, [1] * 7, "segment20"), box_source(SCANNET)).boxes
    assert found is not None and len(found) == 0
