"""The scene store: what is written is what is read; damage is named; a crash leaves a whole scene or none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import OutputError, SceneError
from ponderv2.geometry.meshes import Mesh
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore

HEIGHT, WIDTH = 24, 32


def cloud(n_points: int = 50) -> PreparedCloud:
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(n_points, 3)).astype(np.float32)
    return PreparedCloud(
        coord=rng.normal(size=(n_points, 3)).astype(np.float32),
        color=rng.integers(0, 256, (n_points, 3), dtype=np.uint8),
        normal=normal / np.linalg.norm(normal, axis=1, keepdims=True),
        labels={"segment": rng.integers(-1, 13, n_points), "instance": np.full(n_points, 40000)},
    )


def frame(name: str = "000001", held_out: bool = False) -> DecodedFrame:
    rng = np.random.default_rng(2)
    pose = np.eye(4)
    pose[:3, 3] = 1.0, 2.0, 3.0
    return DecodedFrame(
        id=name,
        intrinsics=np.array([[30.0, 0, 15.5], [0, 28.0, 11.5], [0, 0, 1]]),
        camera_to_world=pose,
        color=np.full((HEIGHT, WIDTH, 3), 128, np.uint8),
        depth=rng.integers(0, 65535, (HEIGHT, WIDTH)).astype(np.uint16),
        depth_scale=0.0002,
        semantic=rng.integers(-1, 200, (HEIGHT, WIDTH)).astype(np.int16),
        held_out=held_out,
    )


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    info = DatasetInfo("toy", ("wall", "floor"), ((1, 2, 3), (4, 5, 6)), "segment", ("train", "val"))
    return SceneStore.create(tmp_path / "räume und mehr", info)


def test_a_scene_that_lost_its_points_is_there_and_refused_by_name(store: SceneStore):
    for name in ("one", "below/two"):
        store.write("train", name, SceneStream.of(cloud(), [frame()]))
        (store.root / "train" / name / "coord.npy").unlink()
    store.write("train", "whole", SceneStream.of(cloud(), [frame()]))
    opened = open_folder(store.root)
    assert opened.names("train") == ("below/two", "one", "whole")
    for name in ("one", "below/two"):
        with pytest.raises(SceneError, match=rf"{name}.coord\.npy is not a readable array") as caught:
            opened.read(name, "train")
        assert caught.value.fix == "prepare the scene again"
    (store.root / "train/one/prepared.json").unlink()
    assert opened.names("train") == ("below/two", "whole")


def test_a_scene_comes_back_as_it_was_written(store: SceneStore):
    mesh = Mesh.of_arrays(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), np.zeros((3, 3), np.uint8))
    store.write("train", "one", SceneStream.of(cloud(), [frame(), frame("b", held_out=True)], mesh))
    opened = SceneStore.open(store.root)
    assert opened.info == store.info
    assert opened.names("train") == ("one",) and opened.names("val") == ()
    scene = opened.read("one")
    expected = cloud()
    assert np.array_equal(scene.cloud.coord.numpy(), expected.coord)
    assert np.array_equal(scene.cloud.color.numpy(), expected.color)
    assert np.array_equal(scene.cloud.labels["segment"].numpy(), expected.labels["segment"])
    assert int(scene.cloud.labels["instance"][0]) == 40000
    assert [one.id for one in scene.frames] == ["000001", "b"]
    assert [one.held_out for one in scene.frames] == [False, True]
    read = scene.frames[0]
    assert torch.equal(read.camera.centre, torch.tensor([1.0, 2.0, 3.0]))
    assert np.allclose(read.read_depth().numpy(), frame().depth * 0.0002)
    assert np.array_equal(read.read_semantic().numpy(), frame().semantic)
    assert read.read_color().shape == (HEIGHT, WIDTH, 3)
    assert (read.read_color().int() - 128).abs().max() <= 1
    assert opened.mesh_path("one") is not None


def test_the_colour_file_is_stored_unchanged(store: SceneStore):
    from dataclasses import replace

    from ponderv2.io.images import encode_jpeg

    data = encode_jpeg(np.full((HEIGHT, WIDTH, 3), 9, np.uint8), quality=30)
    store.write("train", "one", SceneStream.of(cloud(), [replace(frame(), color_file=data)]))
    assert store.read("one").frames[0].color_path.read_bytes() == data


def test_pointcept_folders_are_read_in_place(tmp_path: Path):
    folder = tmp_path / "Area_1" / "scene_00000" / "room_7"
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", cloud().coord.astype(np.float64))
    np.save(folder / "color.npy", cloud().color)
    np.save(folder / "segment20.npy", np.arange(50).astype(np.int16)[:, None])
    store = open_folder(tmp_path)
    assert store.info.splits == ("Area_1",) and store.info.label_field == "segment20"
    scene = store.read("scene_00000/room_7")
    assert torch.equal(scene.cloud.labels["segment20"], torch.arange(50))
    assert torch.allclose(scene.cloud.normal.norm(dim=1), torch.ones(50))
    assert scene.frames == ()


def test_an_empty_folder_names_the_command_that_fills_it(tmp_path: Path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SceneError) as caught:
            SceneStore.open(root)
        assert "ponder prepare" in str(caught.value.fix)


def test_a_misspelt_folder_is_answered_with_its_neighbour(tmp_path: Path):
    (tmp_path / "kitchen").mkdir()
    with pytest.raises(SceneError, match="no folder") as caught:
        SceneStore.open(tmp_path / "kichen")
    assert caught.value.fix == f"--data {tmp_path / 'kitchen'}"
    with pytest.raises(SceneError, match="no folder") as caught:
        SceneStore.open(tmp_path / "nothing" / "like it")
    assert "ponder prepare" in str(caught.value.fix)


def test_an_unknown_scene_lists_the_known(store: SceneStore):
    store.write("train", "one", SceneStream.of(cloud()))
    with pytest.raises(SceneError, match="no scene 'two'") as caught:
        store.read("two")
    assert "one" in str(caught.value.fix)


@pytest.mark.parametrize("name", ["coord.npy", "color.npy", "segment.npy", "frames/cameras.npz"])
def test_a_truncated_file_is_named(store: SceneStore, name: str):
    store.write("train", "one", SceneStream.of(cloud(), [frame()]))
    path = store.folder("one") / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SceneError, match=Path(name).name):
        store.read("one")


@pytest.mark.parametrize("kind", ["color", "depth", "semantic"])
def test_a_truncated_picture_is_named(store: SceneStore, kind: str):
    store.write("train", "one", SceneStream.of(cloud(), [frame()]))
    read = store.read("one").frames[0]
    path = getattr(read, f"{kind}_path")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SceneError, match=path.name):
        getattr(read, f"read_{kind}")()


def test_a_scene_without_points_is_refused(store: SceneStore):
    with pytest.raises(SceneError, match="no points"):
        store.write("train", "one", SceneStream.of(cloud(0)))
    assert store.names("train") == ()


def test_an_interrupted_write_keeps_the_old_scene(store: SceneStore):
    store.write("train", "one", SceneStream.of(cloud(), [frame("old")]))

    def breaks():
        yield frame("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write("train", "one", SceneStream(breaks(), lambda: PreparedScene(cloud())))
    assert [one.id for one in store.read("one").frames] == ["old"]
    assert store.names("train") == ("one",)


def test_a_full_disk_is_said_in_one_sentence_and_keeps_the_old_scene(
    store: SceneStore, monkeypatch: pytest.MonkeyPatch
):
    import errno

    store.write("train", "one", SceneStream.of(cloud(), [frame("old")]))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        store.write("train", "one", SceneStream.of(cloud(), [frame("new")]))
    assert [one.id for one in store.read("one").frames] == ["old"]
    assert not list(store.folder("one").parent.glob(".*"))


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_frame_ids_that_are_no_file_names_are_refused(store: SceneStore, name: str):
    with pytest.raises(SceneError, match="frame id"):
        store.write("train", "one", SceneStream.of(cloud(), [frame(name)]))


def test_joined_splits_name_each_scene_with_its_split(tmp_path: Path):
    store = SceneStore.create(tmp_path, DatasetInfo("areas", splits=("Area_1", "Area_2", "Area_3")))
    for split, name, n_points in (
        ("Area_1", "office_1", 3),
        ("Area_2", "office_1", 4),
        ("Area_2", "wc/1", 5),
    ):
        store.write(split, name, SceneStream.of(cloud(n_points)), fingerprint=f"{split} {name}")
    names = store.names("Area_2+Area_1 + Area_2")
    assert names == ("Area_2/office_1", "Area_2/wc/1", "Area_1/office_1")
    sizes = [len(store.read(name, "Area_2+Area_1").cloud) for name in names]
    assert sizes == [4, 5, 3]
    assert store.read(names[1], "Area_2+Area_1").name == "Area_2/wc/1"
    assert store.record(names[2], "Area_2+Area_1")["fingerprint"] == "Area_1 office_1"
    assert store.folder("Area_2/office_1") == tmp_path / "Area_2" / "office_1"
    assert store.names("Area_9") == ()
    with pytest.raises(SceneError, match=r"no scenes in 'Area_3' of 'Area_1\+Area_3'") as caught:
        store.names("Area_1+Area_3")
    assert caught.value.fix == "choose of: Area_1, Area_2"


def test_a_list_of_splits_is_the_joined_split():
    from ponderv2.workflows.config import FinetuneConfig

    config = FinetuneConfig.model_validate({"train_split": ["Area_1", "Area_2"]})
    assert config.train_split == "Area_1+Area_2" and config.val_split == "val"
    assert FinetuneConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_file_in_place_of_a_folder_is_named_with_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("{}")
    with pytest.raises(SceneError, match=r"report\.json is a file") as caught:
        SceneStore.open(file)
    assert caught.value.fix == f"--data {tmp_path}"


def test_a_store_that_travelled_to_another_process_still_knows_its_records(tmp_path: Path):
    store = SceneStore.create(tmp_path, DatasetInfo("rooms"))
    store.write("train", "room", SceneStream.of(cloud(3)), fingerprint="as it was")
    travelled = pickle.loads(pickle.dumps(store))
    assert travelled.record("room", "train") == store.record("room", "train")
    assert travelled.record("room", "train")["fingerprint"] == "as it was"
