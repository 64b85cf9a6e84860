"""Colours, positions and labels of processed folders in every form, against the room that was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.scenes.point_arrays import label_rows, with_ignored
from ponderv2.store.store import SceneStore
from tests.datasets.processed import writers

UTM = np.array([555813.15, 5385888.54, 185.86])
ONE = writers.cloud()
SEGMENT = ONE.labels["segment"].astype(np.int64)


def write(root: Path, kind: str, **arrays: ndarray) -> SceneStore:
    """The room in one of the layouts, with some arrays replaced."""
    values = {"coord": ONE.coord, "color": ONE.color, "normal": ONE.normal, "segment20": SEGMENT, **arrays}
    if kind == "pth":
        writers.save(root / "train" / "scene0000_00.pth", values)
    else:
        writers.pointcept(root / "train" / "scene0000_00", values)
    return open_folder(root)


def notes(store: SceneStore) -> str:
    return " ".join(store.record("scene0000_00", "train")["notes"])


COLORS: dict[str, tuple[ndarray, str]] = {
    "8 bits": (ONE.color, ""),
    "8 bits in float": (ONE.color.astype(np.float32), ""),
    "8 bits in double": (ONE.color.astype(np.float64), ""),
    "16 bits": (ONE.color.astype(np.uint16) * 257, "16 bits"),
    "16 bits in double": (ONE.color.astype(np.float64) * 257, "16 bits"),
    "shifted by 8": (ONE.color.astype(np.int32) * 256, "divided by 256"),
    "0..1": (ONE.color / np.float32(255), "0 to 1"),
    "-1..1": (ONE.color / np.float32(127.5) - 1, "-1 to 1"),
    "with alpha": (np.c_[ONE.color, np.full(len(ONE.color), 255, np.uint8)], ""),
}


@pytest.mark.parametrize("kind", ["pth", "npy"])
@pytest.mark.parametrize("form", COLORS)
def test_colours_of_every_range_are_those_of_the_room(tmp_path: Path, kind: str, form: str):
    values, note = COLORS[form]
    store = write(tmp_path, kind, color=values)
    np.testing.assert_allclose(store.read("scene0000_00").cloud.color.numpy(), ONE.color, atol=1e-3)
    assert (note in notes(store)) if note else ("colours" not in notes(store))


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_colours_that_are_none_are_refused(tmp_path: Path, kind: str):
    store = write(tmp_path, kind, color=ONE.color.astype(np.int64) - 1000)
    with pytest.raises(SceneError, match=r"none of 0\.\.255"):
        store.read("scene0000_00")


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_points_far_from_zero_are_those_of_the_room(tmp_path: Path, kind: str):
    store = write(tmp_path, kind, coord=ONE.coord.astype(np.float64) + UTM)
    cloud = store.read("scene0000_00").cloud
    back = cloud.coord.double().numpy() + cloud.origin
    assert np.abs(back - ONE.coord - UTM).max() < 1e-6 and cloud.coord.abs().max() < 10
    assert "is subtracted" in notes(store)
    near = write(tmp_path / "near", kind).read("scene0000_00").cloud
    assert near.origin == (0.0, 0.0, 0.0) and np.array_equal(near.coord.numpy(), ONE.coord)


def move_poses(root: Path, shift: ndarray) -> None:
    """Adds to the position of every camera of both kinds of recordings."""
    for path in root.rglob("pose/*.txt"):
        pose = np.loadtxt(path)
        pose[:3, 3] += shift
        np.savetxt(path, pose, fmt="%.12g")
    for path in root.rglob("*_rgbd/*.pth"):
        view = torch.load(path, weights_only=False)
        pose = np.array(view["extrinsic"], np.float64)
        pose[:3, 3] += shift
        torch.save({**view, "extrinsic": pose}, path)


@pytest.mark.parametrize("kind", ["pth", "npy", "s3dis"])
def test_cameras_move_with_the_points(tmp_path: Path, kind: str):
    def make(root: Path, shift: ndarray) -> Any:
        coord = ONE.coord.astype(np.float64) + shift
        if kind == "s3dis":
            writers.save(
                root / "Area_1/office_1.pth", {"coord": coord, "color": ONE.color, "normal": ONE.normal}
            )
            for index, frame in enumerate(writers.views()):
                writers.save(root / f"Area_1/office_1_rgbd/a{index}.pth", writers.view(frame, 1 / 4000))
            move_poses(root, shift)
            return open_folder(root).read("office_1")
        write(root, kind, coord=coord)
        writers.scannet_rgbd(root, "scene0000_00")
        move_poses(root, shift)
        return open_folder(root).read("scene0000_00")

    near, far = make(tmp_path / "near", np.zeros(3)), make(tmp_path / "far", UTM)
    assert len(far.frames) == len(near.frames) == 4
    where = np.array(far.cloud.origin) - UTM  # in the frame of the near room
    for here, there in zip(near.frames, far.frames, strict=True):
        expected = here.camera.world_to_camera.double()
        expected[:3, 3] += expected[:3, :3] @ torch.from_numpy(where)
        torch.testing.assert_close(there.camera.world_to_camera.double(), expected, atol=2e-6, rtol=0)


def test_a_far_point_of_a_folder_is_named_and_does_not_move_the_origin(tmp_path: Path):
    coord = ONE.coord.astype(np.float64) + UTM
    coord[5] = 0.0
    store = write(tmp_path, "npy", coord=coord)
    cloud = store.read("scene0000_00").cloud
    assert np.delete(cloud.coord.numpy(), 5, 0).max() < 10
    assert "point 5 at 0, 0, 0 m" in notes(store)
    single = write(tmp_path / "single", "npy", coord=(ONE.coord.astype(np.float64) + UTM).astype(np.float32))
    assert "single precision, in steps of 0.5 m" in notes(single)


LABELS: dict[str, ndarray] = {
    "bytes": SEGMENT.astype(np.uint8),
    "double": SEGMENT.astype(np.float64),
    "single": SEGMENT.astype(np.float32)[:, None],
    "columns": np.stack([SEGMENT, SEGMENT * 0 - 1, SEGMENT * 0 - 1], axis=1).astype(np.int16),
}


@pytest.mark.parametrize("kind", ["pth", "npy"])
@pytest.mark.parametrize("form", LABELS)
def test_whole_numbers_of_any_type_are_labels(tmp_path: Path, kind: str, form: str):
    store = write(tmp_path, kind, segment20=LABELS[form])
    assert np.array_equal(store.read("scene0000_00").cloud.labels["segment20"].numpy(), SEGMENT)


IGNORED: dict[str, tuple[Any, type, str]] = {
    "-1": (-1, np.int16, ""),
    "-100": (-100, np.int64, "-100"),
    "255": (255, np.int16, "255"),
    "255 in bytes": (255, np.uint8, "255"),
    "-1 in 16 bits": (65535, np.uint16, ""),
    "-1 in 32 bits": (2**32 - 1, np.uint32, ""),
    "not a number": (np.nan, np.float64, "no number"),
    "-1 in double": (-1.0, np.float64, ""),
}


@pytest.mark.parametrize("kind", ["pth", "npy"])
@pytest.mark.parametrize("form", IGNORED)
@pytest.mark.parametrize("field", ["segment20", "instance"])
def test_every_mark_of_a_missing_label_is_ignored(tmp_path: Path, kind: str, form: str, field: str):
    mark, dtype, noted = IGNORED[form]
    values = SEGMENT.astype(dtype)
    values[::5] = mark
    store = write(tmp_path, kind, **{field: values})
    expected = SEGMENT.copy()
    expected[::5] = -1
    assert np.array_equal(store.read("scene0000_00").cloud.labels[field].numpy(), expected)
    assert (f"'{field}' is {noted} at 300 of 1500 points" in notes(store)) == bool(noted)
    assert (f"'{field}' is {noted} at" in " ".join(store.warnings("train", labels=True))) == bool(noted)


def test_class_255_of_a_larger_set_of_classes_stays():
    labels = torch.tensor([0, 255, 254, -3])
    assert with_ignored(labels, "a", 300)[0].tolist() == [0, 255, 254, -1]
    assert with_ignored(labels, "a", 255)[0].tolist() == [0, -1, 254, -1]
    assert with_ignored(labels, "a", None)[0].tolist() == [0, 255, 254, -1]
    assert with_ignored(torch.tensor([0, 255, 7]), "a", None)[0].tolist() == [0, -1, 7]
    assert with_ignored(torch.tensor([], dtype=torch.int64), "a", 20)[1] == ()


@pytest.mark.parametrize(
    "values", [np.array([0.5, 1.0]), np.array([np.inf]), np.zeros((2, 0)), np.array(["a"])]
)
def test_what_is_no_label_is_refused(values: ndarray):
    with pytest.raises(SceneError, match="room"):
        label_rows(values, "room", "process it again")


def test_the_cloud_of_a_store_of_ours_has_the_origin_of_its_record(tmp_path: Path):
    store = write(tmp_path, "npy")
    (tmp_path / "train/scene0000_00/prepared.json").write_text('{"origin": [1000.5, 2000.25, 3.0]}')
    cloud = store.read("scene0000_00").cloud
    assert cloud.origin == (1000.5, 2000.25, 3.0) and np.array_equal(cloud.coord.numpy(), ONE.coord)
    assert replace(cloud, color=cloud.color * 0).origin == cloud.origin


SCALED: dict[str, Callable[[ndarray], ndarray]] = {
    "bytes": lambda normal: np.rint(normal * 127).astype(np.int8),
    "millimetres": lambda normal: normal * 1000,
    "lengths of all kinds": lambda normal: normal * np.linspace(2, 9, len(normal), dtype=np.float32)[:, None],
}


@pytest.mark.parametrize("kind", ["pth", "npy"])
@pytest.mark.parametrize("form", SCALED)
def test_normals_of_another_length_become_unit_vectors(tmp_path: Path, kind: str, form: str):
    store = write(tmp_path, kind, normal=SCALED[form](ONE.normal))
    normal = store.read("scene0000_00").cloud.normal.numpy()
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    assert np.abs(normal - ONE.normal).max() < (0.01 if form == "bytes" else 1e-5)
    assert "divided by their lengths" in notes(store)


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_normals_of_unit_length_stay_to_the_last_bit_and_zeros_are_reported(tmp_path: Path, kind: str):
    rounded = (ONE.normal * np.float32(1.004)).astype(np.float32)
    rounded[::10] = 0
    store = write(tmp_path, kind, normal=rounded)
    assert np.array_equal(store.read("scene0000_00").cloud.normal.numpy(), rounded)
    assert "150 of 1500 normals are zero" in notes(store)


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_normals_that_are_all_zero_are_estimated(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PONDER_CACHE", str(tmp_path / "cache"))
    store = write(tmp_path / "data", kind, normal=np.zeros_like(ONE.normal))
    normal = store.read("scene0000_00").cloud.normal.numpy()
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    assert "all zero: they were estimated" in notes(store)


@pytest.mark.parametrize("kind", ["pth", "npy"])
def test_scores_and_one_hot_vectors_are_no_labels(tmp_path: Path, kind: str):
    store = write(tmp_path, kind, segment20=np.eye(20)[SEGMENT % 20])
    with pytest.raises(SceneError, match="20 numbers per point") as caught:
        store.read("scene0000_00")
    assert "argmax" in str(caught.value.fix)


def test_a_scene_without_colours_says_so(tmp_path: Path):
    store = write(tmp_path, "npy")
    (tmp_path / "train/scene0000_00/color.npy").unlink()
    assert (store.read("scene0000_00").cloud.color == 127.5).all() and "no colours" in notes(store)
