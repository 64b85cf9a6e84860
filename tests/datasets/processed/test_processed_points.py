"""Points and labels of each processed layout: equal to what its script wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.geometry.normals import estimate_normals
from ponderv2.io import disk_cache
from ponderv2.io.safe_pickle import read_pickled
from ponderv2.scenes import point_arrays
from ponderv2.scenes.reader import DatasetInfo
from tests.datasets.processed import writers
from tests.scenes.closed_form_room import write_store

SPLITS = ("train", "val", "test")
LAYOUTS: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...], str, int, str]] = {
    "ScanNet .pth": (writers.scannet_pth, "ScanNet", SPLITS, "segment20", 20, "scene0000_00"),
    "S3DIS .pth": (writers.s3dis_pth, "S3DIS", ("Area_1", "Area_5"), "segment", 13, "office_1"),
    "Structured3D .pth": (
        writers.structured3d_pth, "Structured3D", SPLITS, "segment", 25, "scene_00000/room_12"
    ),
    "ScanNet .npy": (writers.scannet_npy, "ScanNet", SPLITS, "segment20", 20, "scene0000_00"),
    "S3DIS .npy": (writers.s3dis_npy, "S3DIS", ("Area_1", "Area_5"), "segment", 13, "office_1"),
    "Structured3D .npy": (
        writers.structured3d_npy, "Structured3D", SPLITS, "segment", 25, "scene_00000/room_12"
    ),
    "ScanNet++ .npy": (writers.scannetpp_npy, "ScanNet++", ("train", "val"), "segment", 3, "00caf0b9f5"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_recognised_and_read_as_it_was_written(tmp_path: Path, layout: str):
    write, benchmark, splits, field, n_classes, name = LAYOUTS[layout]
    write(tmp_path)
    store = open_folder(tmp_path)
    info = store.info
    assert (info.name, info.splits, info.label_field) == (benchmark, splits, field)
    assert len(info.class_names) == n_classes == len(info.label_set(field).class_names)
    assert name in store.names(splits[0])
    scene, expected = store.read(name, splits[0]), writers.cloud()
    coord = scene.cloud.coord.numpy() * ([1, -1, 1] if layout == "Structured3D .pth" else 1)
    assert np.array_equal(coord.astype(np.float32), expected.coord)
    assert np.array_equal(scene.cloud.color.numpy(), expected.color)
    assert np.array_equal(scene.cloud.labels[field].numpy(), expected.labels["segment"])
    if benchmark != "Structured3D":
        assert np.array_equal(scene.cloud.labels["instance"].numpy(), expected.labels["instance"])
    if benchmark == "ScanNet":
        assert np.array_equal(scene.cloud.labels["segment200"].numpy(), expected.labels["segment"] + 7)
        assert len(info.label_set("segment200").class_names) == 200
    if benchmark == "S3DIS":
        wanted = estimate_normals(
            expected.coord.astype(np.float64), expected.coord.astype(np.float64).mean(axis=0)[None]
        )
        assert np.allclose(scene.cloud.normal.numpy(), wanted, atol=1e-5)
        assert any("no normals" in note for note in store.record(name, splits[0])["notes"])
    else:
        assert np.array_equal(scene.cloud.normal.numpy(), expected.normal)
        assert not any("normals" in note for note in store.record(name, splits[0])["notes"])


@pytest.mark.parametrize("write", [writers.scannet_pth, writers.scannet_npy])
def test_scenes_without_labels_are_unlabelled(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path)
    labels = open_folder(tmp_path).read("scene0002_00", "test").cloud.labels
    for field in ("segment20", "segment200"):
        assert torch.equal(labels[field], torch.full((writers.N_POINTS,), -1))


def test_without_labels_none_are_read(tmp_path: Path):
    """Labels of the wrong length are only noticed by whoever reads them."""
    one = writers.cloud()
    values = {
        "coord": one.coord,
        "color": one.color,
        "normal": one.normal,
        "semantic_gt": np.zeros(3, np.int64),
    }
    writers.save(tmp_path / "train" / "room.pth", values)
    store = open_folder(tmp_path)
    assert store.read("room", "train", labels=False).cloud.labels == {}
    with pytest.raises(SceneError, match=r"room\.pth: 3 rows of 'segment' for 1500 points"):
        store.read("room", "train")


def test_normals_are_estimated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writers.s3dis_pth(tmp_path, ("Area_1",), images=False)
    monkeypatch.setenv("PONDER_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return estimate_normals(*arguments, **named)

    monkeypatch.setattr(point_arrays, "estimate_normals", counted)
    store = open_folder(tmp_path)
    first = store.read("office_1").cloud.normal
    assert torch.equal(first, store.read("office_1").cloud.normal) and len(calls) == 1
    path = tmp_path / "Area_1/office_1.pth"
    state = path.stat()
    writers.s3dis_pth(tmp_path, ("Area_1",), images=False)  # another time of change, the same content
    assert torch.equal(first, store.read("office_1").cloud.normal) and len(calls) == 1
    values = read_pickled(path)
    values["coord"][0, 0] += 0.5
    writers.save(path, values)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    store.read("office_1")
    assert len(calls) == 2
    monkeypatch.setenv("PONDER_CACHE", "/dev/null/nowhere")
    for _ in range(3):
        store.read("office_1")
    assert len(calls) == 3


def test_damaged_memory_of_normals_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PONDER_CACHE", str(tmp_path / "cache"))
    writers.s3dis_pth(tmp_path / "s3dis", ("Area_1",), images=False)
    store = open_folder(tmp_path / "s3dis")
    first = store.read("office_1").cloud.normal
    (path,) = (tmp_path / "cache" / "normals").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(first, store.read("office_1").cloud.normal)
    np.savez(path, normal=np.zeros((2, 3), np.float32))
    assert torch.equal(first, store.read("office_1").cloud.normal)
    assert disk_cache._read(path) is not None


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_colours_from_0_to_1_are_recognised(tmp_path: Path, kind: str):
    one = writers.cloud()
    arrays = {"coord": one.coord, "color": one.color / 255.0, "normal": one.normal}
    if kind == "pth":
        writers.save(tmp_path / "train" / "room.pth", arrays)
    else:
        writers.pointcept(tmp_path / "train" / "room", arrays)
    store = open_folder(tmp_path)
    assert np.allclose(store.read("room").cloud.color.numpy(), one.color, atol=1e-3)
    assert any("0 to 1" in note for note in store.record("room", "train")["notes"])


@pytest.mark.parametrize(
    "kind", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64, ">i4"]
)
def test_labels_of_any_type_of_number_are_read(tmp_path: Path, kind: Any):
    one = writers.cloud()
    labels = np.arange(len(one.coord)) % 13
    values = {"coord": one.coord, "color": one.color, "normal": one.normal, "segment": labels.astype(kind)}
    writers.save(tmp_path / "Area_1" / "office_1.pth", values)
    assert np.array_equal(open_folder(tmp_path).read("office_1").cloud.labels["segment"].numpy(), labels)


def test_labels_that_are_not_whole_are_refused(tmp_path: Path):
    one = writers.cloud()
    values = {"coord": one.coord, "color": one.color, "semantic_gt": np.full(len(one.coord), 0.5)}
    writers.save(tmp_path / "Area_1" / "office_1.pth", values)
    with pytest.raises(SceneError, match="not whole"):
        open_folder(tmp_path).read("office_1")


def test_an_unsafe_file_is_refused_when_the_folder_is_opened(tmp_path: Path):
    writers.save(tmp_path / "train" / "scene0000_00.pth", {"coord": Path("x")})
    with pytest.raises(SceneError, match=r"scene0000_00\.pth asks for 'pathlib"):
        open_folder(tmp_path)


def test_other_pickled_files_are_no_scenes(tmp_path: Path):
    writers.save(tmp_path / "checkpoints" / "last.pth", {"model": {"w": torch.zeros(2)}})
    with pytest.raises(SceneError, match="holds no points 'coord' but: model"):
        open_folder(tmp_path)


def test_our_own_folders_stay_ours(tmp_path: Path):
    write_store(tmp_path, n_scenes=1)
    writers.save(tmp_path / "train" / "stray.pth", {"coord": np.zeros((3, 3))})
    store = open_folder(tmp_path)
    assert store.info.name == "boxes" and store.names("train") == ("room0",)
    assert isinstance(store.info, DatasetInfo)
