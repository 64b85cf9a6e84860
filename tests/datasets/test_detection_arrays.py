"""ScanNet's arrays of VoteNet and mmdetection3d: boxes hold their instances, faults are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.instance_boxes import box_source, with_boxes
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.scannet import detection
from ponderv2.errors import SceneError
from tests.datasets.scannet_files import ALIGNMENT

OBJECTS = {1: 5, 2: 39, 3: 1, 4: 7}
"""NYU40 id by the number of an instance: chair, other furniture, wall, table."""


def arrays(scene: str = "scene0001_00") -> dict[str, np.ndarray]:
    """Four objects along the axes, 50 points each, and 20 points of none."""
    rng = np.random.default_rng(3)
    low = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]])
    coord = [corner + rng.random((50, 3)) * (1.0, 0.5, 0.8) for corner in low] + [rng.random((20, 3)) * 4]
    instance = np.repeat([1, 2, 3, 4, 0], [50, 50, 50, 50, 20])
    vertices = np.concatenate([np.concatenate(coord), rng.integers(0, 256, (220, 3))], axis=1)
    boxes = []
    for number, nyu40 in OBJECTS.items():
        mine = vertices[instance == number, :3]
        if nyu40 != 1:
            boxes.append([*(mine.min(0) + mine.max(0)) / 2, *(mine.max(0) - mine.min(0)), nyu40])
    boxes.append([0.0] * 7)  # an object without a vertex
    return {
        f"{scene}_vert": vertices.astype(np.float32),
        f"{scene}_sem_label": np.array([OBJECTS.get(one, 0) for one in instance]),
        f"{scene}_ins_label": instance,
        f"{scene}_bbox": np.array(boxes),
    }


def votenet(root: Path) -> Path:
    folder = root / "scannet_train_detection_data"
    folder.mkdir(parents=True)
    for name, values in (arrays() | arrays("scene0002_00")).items():
        np.save(folder / f"{name}.npy", values)
    (root / "meta_data").mkdir()
    (root / "meta_data" / "scannetv2_val.txt").write_text("scene0002_00\n")
    return root


def mmdet3d(root: Path) -> Path:
    folder = root / "scannet_instance_data"
    folder.mkdir(parents=True)
    for scene in ("scene0001_00", "scene0002_00"):
        found = arrays(scene)
        vertices = found[f"{scene}_vert"].astype(np.float64)
        back = np.linalg.inv(ALIGNMENT)
        vertices[:, :3] = vertices[:, :3] @ back[:3, :3].T + back[:3, 3]
        found[f"{scene}_vert"] = vertices
        found[f"{scene}_axis_align_matrix"] = ALIGNMENT
        found[f"{scene}_aligned_bbox"] = found.pop(f"{scene}_bbox")
        found[f"{scene}_unaligned_bbox"] = found[f"{scene}_aligned_bbox"] + 3.0
        for name, values in found.items():
            np.save(folder / f"{name}.npy", values)
    (root / "meta_data").mkdir()
    (root / "meta_data" / "scannetv2_val.txt").write_text("scene0002_00\n")
    return root


@pytest.mark.parametrize("layout", [votenet, mmdet3d])
def test_boxes_are_the_hulls_of_their_instances(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    folder = open_folder(layout(tmp_path / "data"))
    assert folder.info.name == "ScanNet" and folder.info.box_classes == detection.BOX_CLASSES
    assert folder.names("train") == ("scene0001_00",) and folder.names("val") == ("scene0002_00",)
    scene = folder.read("scene0001_00", "train")
    boxes = scene.boxes
    assert boxes is not None
    assert [detection.BOX_CLASSES[one] for one in boxes.category] == ["chair", "otherfurniture", "table"]
    expected = arrays()["scene0001_00_vert"]
    torch.testing.assert_close(scene.cloud.coord, torch.from_numpy(expected[:, :3]), atol=1e-5, rtol=0)
    made = with_boxes(scene, box_source(folder.info, "segment20")).boxes
    assert made is not None and torch.equal(made.category, boxes.category)
    torch.testing.assert_close(made.center, boxes.center, atol=1e-5, rtol=0)
    torch.testing.assert_close(made.size, boxes.size, atol=1e-5, rtol=0)
    assert scene.cloud.labels["instance"][-1] == -1 and scene.cloud.labels["segment20"][120] == 0
    bare = folder.read("scene0001_00", "train", labels=False)
    assert bare.boxes is None and not bare.cloud.labels
    assert any("1 of 4 boxes are of none of the 18 classes" in one for one in folder.warnings("train"))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("vert", lambda values: values[:, :4], "6 numbers a row"),
        ("vert", lambda values: values * np.nan, "not finite"),
        ("vert", lambda values: values.astype(np.float64) * 1e200, "not finite"),
        ("sem_label", lambda values: values[:-1], "labels for 220 points"),
        ("ins_label", lambda values: values * np.nan, "not finite"),
        ("bbox", lambda values: values[:, :6], "7 numbers a row"),
    ],
)
def test_damaged_arrays_are_named(
    tmp_path: Path, kind: str, change: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    root = votenet(tmp_path / "data")
    path = root / "scannet_train_detection_data" / f"scene0001_00_{kind}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(SceneError, match=said):
        open_folder(root).read("scene0001_00", "train")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SceneError, match=path.name):
        open_folder(root).read("scene0001_00", "train")


def test_boxes_without_a_size_are_left_out_and_counted(tmp_path: Path) -> None:
    root = votenet(tmp_path / "data")
    path = root / "scannet_train_detection_data" / "scene0001_00_bbox.npy"
    values = np.load(path)
    values[0, 3], values[1, 0] = -1.0, np.nan
    np.save(path, values)
    folder = open_folder(root)
    boxes = folder.read("scene0001_00", "train").boxes
    assert boxes is not None and len(boxes) == 1
    assert any("2 of 3 boxes have no finite place" in one for one in folder.warnings("train"))
