"""Fine-tuning for objects, evaluation, images and archives, on rooms with boxes of known places."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.scannet import scannet20
from ponderv2.errors import PresetError, SceneError
from ponderv2.evaluation.instances import PredictedInstances, instance_metrics, instance_overlaps
from ponderv2.io.ply import read_ply
from ponderv2.scenes.prepared import PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.tasks.checkpoints import load_model
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.prediction_clouds import SceneExport, distinct_color, export_scene, instance_colors
from ponderv2.workflows import evaluate, finetune
from ponderv2.workflows.config import FinetuneConfig
from tests.workflows.tiny import ENCODER, TRAINING

COLORS = ((10, 20, 30), (200, 0, 0))


def box_room(seed: int) -> PreparedCloud:
    """A grey floor of 2 m and two red boxes of 300 points each."""
    rng = np.random.default_rng(seed)
    floor = rng.uniform(0, 2, (900, 3)) * (1, 1, 0)
    corners = np.array([[x, 0.3 + rng.uniform(0, 1), 0.1] for x in (0.2, 1.4)])
    boxes = [rng.uniform(0, 0.4, (300, 3)) + corner for corner in corners]
    coord = np.concatenate([floor, *boxes]).astype(np.float32)
    kind = np.repeat([0, 1, 1], [900, 300, 300])
    color = np.array([(90, 90, 90), (220, 30, 30)], np.uint8)[kind]
    normal = np.tile(np.float32([0, 0, 1]), (len(coord), 1))
    labels = {
        "segment": kind.astype(np.int16),
        "instance": np.repeat([4, 7, 2], [900, 300, 300]).astype(np.int32),
    }
    return PreparedCloud(coord, color, normal, labels)


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    info = DatasetInfo("boxes", ("floor", "box"), COLORS)
    store = SceneStore.create(tmp_path / "rooms", info)
    for i, split in enumerate(("train", "train", "val")):
        store.write(split, f"area/room{i}", SceneStream.of(box_room(i), []))
    return store.root


def config(steps: int = 40, **model) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": {
                "voxel": {"size": 0.08},
                "augment": [{"kind": "centre_shift"}, {"kind": "flip"}],
                "features": ["color", "coord"],
                "sphere_crop": None,
                "mix_probability": 0.0,
                "cache_megabytes": 64,
            },
            "model": {
                "kind": "instances",
                "encoder": ENCODER,
                "ignored_classes": [0],
                "grouping": {"min_linked": 5, "more_than": 5},
                **model,
            },
            "training": TRAINING | {"steps": steps, "evaluate_every": steps, "save_every": steps},
        }
    )


def test_boxes_are_learned_found_and_counted(tmp_path: Path, rooms: Path) -> None:
    result = finetune.run(config(), scenes=rooms, out=tmp_path, name="run")
    assert set(result.metrics) == {"ap", "ap50", "ap25"} and result.metrics["ap25"] > 0.5
    model = load_model(tmp_path / "run")
    assert isinstance(model, InstancesModel) and model.config.n_classes == 2
    numbers = evaluate.run(tmp_path / "run", scenes=rooms, export=tmp_path / "look")
    assert numbers.kind == "instances" and numbers.n_scenes == 1
    assert {key: numbers.metrics[key] for key in result.best if key != "step"} == pytest.approx(
        {key: value for key, value in result.best.items() if key != "step"}
    )
    assert [(row["class"], row["objects"]) for row in numbers.classes] == [("box", 2)]
    check_pictures(tmp_path / "look", rooms)


def check_pictures(folder: Path, rooms: Path) -> None:
    """Colours of the written clouds, read back, are those of the labels."""
    names = ["instances", "prediction", "true_instances", "truth"]
    assert sorted(path.name for path in folder.iterdir()) == [f"area_room2_{name}.ply" for name in names]
    files = {name: read_ply(folder / f"area_room2_{name}.ply") for name in names}
    colors = {name: file.columns("red", "green", "blue") for name, file in files.items()}
    segment = np.load(rooms / "val/area/room2/segment.npy")
    assert np.array_equal(colors["truth"], np.array(COLORS, np.uint8)[segment])
    true = colors["true_instances"]
    assert true is not None and len(np.unique(true[segment == 1], axis=0)) == 2
    assert (true[segment == 0] == 40).all()
    position = files["instances"].columns("x", "y", "z")
    assert position is not None and np.allclose(position, np.load(rooms / "val/area/room2/coord.npy"))


def test_scenes_without_objects_are_refused_before_the_work(tmp_path: Path, rooms: Path) -> None:
    for path in rooms.rglob("instance.npy"):
        path.unlink()
    with pytest.raises(SceneError, match="has no array 'instance'") as caught:
        finetune.run(config(1), scenes=rooms, out=tmp_path)
    assert "prepare" in str(caught.value.fix)


def test_ignored_classes_that_do_not_exist_are_refused(tmp_path: Path, rooms: Path) -> None:
    with pytest.raises(PresetError, match="names class 5, the model has 2 classes"):
        finetune.run(config(1, ignored_classes=[5]), scenes=rooms, out=tmp_path)


def test_scenes_without_truth_are_exported_not_counted(tmp_path: Path, rooms: Path) -> None:
    run = finetune.run(config(1), scenes=rooms, out=tmp_path, name="run").folder
    (rooms / "val/area/room2/instance.npy").unlink()
    with pytest.raises(SceneError, match="to compare with") as caught:
        evaluate.run(run, scenes=rooms)
    assert "--export" in str(caught.value.fix)
    numbers = evaluate.run(run, scenes=rooms, export=tmp_path / "look")
    assert numbers.metrics == {} and (tmp_path / "look/area_room2_instances.ply").is_file()


def test_a_submission_of_other_classes_is_refused(tmp_path: Path, rooms: Path) -> None:
    run = finetune.run(config(1), scenes=rooms, out=tmp_path, name="run").folder
    with pytest.raises(SceneError, match="20 and 200 classes"):
        evaluate.run(run, scenes=rooms, submission=tmp_path / "a.zip")


def test_a_submission_has_a_file_per_scene_and_a_digit_per_point(tmp_path: Path) -> None:
    """Of a model of the 20 classes that was hardly trained: whatever it finds is of the published form."""
    info = DatasetInfo("ScanNet", scannet20.CLASS_NAMES, scannet20.COLORS, label_field="segment20")
    store = SceneStore.create(tmp_path / "scannet", info)
    for i, split in enumerate(("train", "train", "val")):
        cloud = box_room(i)
        labels = {"segment20": cloud.labels["segment"] + 2, "instance": cloud.labels["instance"]}
        store.write(split, f"scene070{i}_00", SceneStream.of(replace(cloud, labels=labels), []))
    values = config(1, ignored_classes=[0, 1]).model_dump()
    values["data"]["label_field"] = "segment20"
    run = finetune.run(FinetuneConfig.model_validate(values), scenes=store.root, out=tmp_path, name="run")
    numbers = evaluate.run(run.folder, scenes=store.root, submission=tmp_path / "out.zip")
    assert numbers.submission == tmp_path / "out.zip" and len(numbers.classes) == 18
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        lines = archive.read("scene0702_00.txt").decode().splitlines()
        assert {name for name in archive.namelist() if "/" not in name} == {"scene0702_00.txt"}
        for line in lines:
            file, label, confidence = line.split(" ")
            assert int(label) in scannet20.NYU40_IDS[2:] and 0 < float(confidence) <= 1
            mask = archive.read(file).decode().splitlines()
            assert len(mask) == 1500 and mask.count("1") >= 100


def test_classes_are_exported_without_objects(tmp_path: Path, rooms: Path) -> None:
    """What is written for a model of classes."""
    data = LabelledDataset(open_folder(rooms), "val", LabelledDataConfig())
    segment = torch.zeros(1500, dtype=torch.long)
    paths = export_scene(tmp_path / "look", data, 0, SceneExport(segment))
    assert [path.name for path in paths] == ["area_room2_prediction.ply", "area_room2_truth.ply"]
    colors = read_ply(paths[0]).columns("red", "green", "blue")
    assert colors is not None and (colors == COLORS[0]).all()


def test_true_objects_as_prediction_have_average_precision_one() -> None:
    """The way from points of a voxel back to all points loses nothing where voxels hold one point."""
    cloud = box_room(0)
    segment = torch.from_numpy(cloud.labels["segment"]).long()
    member = torch.from_numpy(cloud.labels["instance"]).long()
    number = torch.tensor([-1, -1, 0, -1, -1, -1, -1, 1])[member]
    found = PredictedInstances.of_members(number, torch.tensor([1, 1]), torch.tensor([0.3, 0.9]))
    overlaps = instance_overlaps(found, segment, member, (0,))
    assert instance_metrics([overlaps], 2).means() == {"ap": 1.0, "ap50": 1.0, "ap25": 1.0}


def test_neighbouring_objects_have_colours_that_differ() -> None:
    colors = np.array([distinct_color(i) for i in range(24)], dtype=int)
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 60
    assert len({tuple(color) for color in colors}) == 24
    painted = instance_colors(torch.tensor([3, 3, 9, -1]))
    assert painted[3].tolist() == [40, 40, 40] and (painted[0] == painted[1]).all()
    assert (painted[0] != painted[2]).any()
