"""Detection of tiny drives through the workflows: what is reported is what the files say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.nuscenes.classes import DETECTION_NAMES
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.world_boxes import key_truths
from ponderv2.errors import CheckpointError, OutputError, PresetError, SceneError
from ponderv2.evaluation.nuscenes_detection import detection_score
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.io.ply import read_ply
from ponderv2.scenes.point_cloud_files import read_cloud_with_notes
from ponderv2.tasks.detection import evaluation
from ponderv2.tasks.detection.config import DetectionModelConfig
from ponderv2.tasks.detection.data import DetectionDataset
from ponderv2.tasks.detection.model import DetectionModel
from ponderv2.tasks.detection.nuscenes_submission import read_submission
from ponderv2.weights import named_checkpoint
from ponderv2.workflows import detect, evaluate, finetune
from ponderv2.workflows.config import FinetuneConfig
from tests.datasets.drives.nuscenes_drives import write_drives
from tests.workflows.tiny import ENCODER, TRAINING

RANGE = {"lower": [-60.0, -60.0, -5.0], "upper": [60.0, 60.0, 5.0]}


def settings(data: dict[str, object] | None = None, **model: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": {
                "voxel": {"size": 1.0},
                "features": ["coord"],
                "fields": ["intensity"],
                "centred": False,
                "augment": [{"kind": "flip"}],
                "sphere_crop": None,
                "mix_probability": 0.0,
                **(data or {}),
            },
            "model": {
                "kind": "detection",
                "encoder": {**ENCODER, "in_channels": 4},
                "frame": {"kind": "range", **RANGE, "cells": [24, 24, 2]},
                "head": {"kind": "center", "widths": [8], "layers": [1], "neck": 8, "shared": 8},
                **model,
            },
            "training": {**TRAINING, "steps": 3, "evaluate_every": 3},
        }
    )


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives, and a detector of three steps."""
    root = tmp_path_factory.mktemp("drives")
    write_drives(root / "data", n_samples=3)
    finetune.run(settings(), scenes=root / "data", out=root, name="run")
    return root


def dataset(root: Path, **data: object) -> DetectionDataset:
    config = LabelledDataConfig.model_validate(settings(dict(data)).data.model_dump())
    return DetectionDataset(open_folder(root / "data"), "mini_val", config)


def as_detections(boxes: Boxes) -> Detections:
    return Detections(boxes, torch.linspace(0.9, 0.5, len(boxes)))


def test_a_detector_that_finds_the_truth_has_the_best_score(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perfect(model: DetectionModel, data: DetectionDataset, index: int) -> Detections:
        truth = data.truth(index)
        return as_detections(truth.take(truth.category >= 0))

    monkeypatch.setattr(evaluation, "detect_scene", perfect)
    done = evaluate.run(drives / "run", scenes=drives / "data", split="mini_val", out=tmp_path)
    assert done.metrics["map25"] == done.metrics["map50"] == pytest.approx(1.0)
    rows = {row["class"]: row for row in done.classes}
    found = [name for name, row in rows.items() if row["boxes"]]
    assert found and all(rows[name]["ap"] == pytest.approx(1.0) for name in found)
    assert all(rows[name]["ate"] < 1e-3 and rows[name]["ase"] < 1e-3 for name in found)


def test_submission_gives_the_reported_score(drives: Path, tmp_path: Path) -> None:
    done = evaluate.run(
        drives / "run",
        scenes=drives / "data",
        split="mini_val",
        submission=tmp_path / "out.json",
        export=tmp_path / "boxes",
        out=tmp_path / "out",
    )
    truths = key_truths(NuscenesConfig(path=drives / "data"), "mini_val").values()
    read = read_submission(tmp_path / "out.json", {one.pose.token for one in truths})
    assert read.meta.use_lidar and not read.meta.use_camera
    score = detection_score(read.samples(truths))
    for name, value in score.metrics().items():
        assert done.metrics[name] == pytest.approx(value, abs=1e-6)
    assert {row["class"] for row in done.classes} == set(DETECTION_NAMES)
    assert done.images and all(path.is_file() for path in done.images)
    exported = sorted((tmp_path / "boxes").glob("*.ply"))
    assert len(exported) == done.n_scenes and read_ply(exported[0]) is not None
    folder = done.images[0].parent
    assert len(json.loads((folder / "scenes.json").read_text())) == done.n_scenes
    with (folder / "precision_recall.csv").open() as stream:
        assert {row["iou"] for row in csv.DictReader(stream)} <= {"0.25", "0.5"}


@pytest.mark.parametrize("centred", [True, False])
def test_what_is_found_comes_back_to_the_frame_of_the_scene(drives: Path, centred: bool) -> None:
    data = dataset(drives, centred=centred, augment=[])
    whole = data.whole_scene(1)
    back = transform_points(whole.to_scene.double(), whole.batch.coord.double())
    distance = torch.cdist(back, data.scene(1).cloud.coord.double()).amin(dim=1)
    assert float(distance.max()) < 1e-4


def test_points_beyond_the_range_are_not_seen(drives: Path) -> None:
    limits = {"lower": [-10.0, -10.0, -5.0], "upper": [10.0, 10.0, 5.0]}
    data = dataset(drives, range=limits)
    assert float(data.whole_scene(0).batch.coord[:, :2].abs().max()) < 10.0
    assert float(data.scene(0).cloud.coord[:, :2].abs().max()) > 10.0


def test_volume_is_in_metres(drives: Path) -> None:
    config = settings().model.model_copy(update={"classes": DETECTION_NAMES})
    assert isinstance(config, DetectionModelConfig)
    model = DetectionModel(config).eval()
    seen, _ = model.read(dataset(drives).whole_scene(0).batch)
    assert isinstance(seen, FeatureVolume)
    torch.testing.assert_close(seen.lower, torch.tensor([RANGE["lower"]]))
    torch.testing.assert_close(seen.upper, torch.tensor([RANGE["upper"]]))
    assert seen.values.shape[2:] == (2, 24, 24)


def test_boxes_of_other_classes_and_without_points_are_not_learned(drives: Path) -> None:
    config = LabelledDataConfig.model_validate(settings().data.model_dump())
    store = open_folder(drives / "data")
    everything = DetectionDataset(store, "mini_val", config)
    truth = everything.truth(0)
    name = DETECTION_NAMES[int(truth.category[truth.category >= 0][0])]
    alone = DetectionDataset(store, "mini_val", config, classes=(name,))
    learned = alone.training_scene(0).boxes
    assert learned is not None and set(learned.category.tolist()) == {0}
    assert len(learned) == int((truth.category == DETECTION_NAMES.index(name)).sum())
    counts = learned.fields["n_lidar"] + learned.fields["n_radar"]
    assert int(counts.min()) > 0


def test_what_is_refused(drives: Path, tmp_path: Path) -> None:
    scenes = drives / "data"

    def run(config: FinetuneConfig) -> None:
        finetune.run(config, scenes=scenes, out=tmp_path, name="refused")

    with pytest.raises(PresetError, match="boxes of whole scenes"):
        run(settings({"budget": {"points_per_scene": 5}}))
    with pytest.raises(PresetError, match="stand in each other"):
        run(settings({"mix_probability": 0.5}))
    with pytest.raises(PresetError, match=r"none of model\.classes"):
        run(settings(classes=["tram"]))
    with pytest.raises(PresetError, match="groups name 'tram'"):
        run(settings(head={"kind": "center", "groups": [["tram"]]}))
    with pytest.raises(PresetError, match="mean_sizes lacks the class"):
        run(settings(head={"kind": "votenet", "mean_sizes": {"tram": [20.0, 2.5, 3.5]}}))
    with pytest.raises(ValueError, match="reads a volume"):
        settings(frame=None)
    assert not (tmp_path / "refused").exists()


def test_submission_needs_the_tables(drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "nuscenes_tables", lambda request: None)
    with pytest.raises(SceneError, match="is for nuScenes"):
        evaluate.run(
            drives / "run",
            scenes=drives / "data",
            split="mini_val",
            submission=tmp_path / "out.json",
            out=tmp_path / "out",
        )


def as_text(path: Path, coord: torch.Tensor, intensity: torch.Tensor) -> Path:
    rows = torch.cat([coord, intensity.double().reshape(-1, 1)], dim=1).tolist()
    lines = [" ".join(f"{value:.6f}" for value in row) for row in rows]
    path.write_text("\n".join(["x y z intensity", *lines]))
    return path


def centres(found: detect.DetectResult) -> torch.Tensor:
    return torch.tensor([row["center"] for row in found.boxes], dtype=torch.float64)


def assert_surest_are_there(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """In any order, and of the twenty surest alone: boxes of equal scores may change places."""
    distance = torch.cdist(found - wanted.mean(dim=0), wanted[:20] - wanted.mean(dim=0))
    assert len(found) == len(wanted) and float(distance.amin(dim=0).max()) < 0.02


def test_detect_gives_the_boxes_of_a_file_in_its_own_frame(drives: Path, tmp_path: Path) -> None:
    """Of a file in the frame of the scene they are those of the scene; far from zero they move with it."""
    run, data = drives / "run", dataset(drives)
    cloud = data.scene(0).cloud
    near = as_text(tmp_path / "near.txt", cloud.coord.double(), cloud.fields["intensity"])
    of_scene = detect.run(run, scene=data.names[0], scenes=drives / "data", min_score=0.0)
    of_near = detect.run(run, file=near, min_score=0.0, out=tmp_path / "near.json", ply=tmp_path / "near.ply")
    assert of_near.n_boxes == of_scene.n_boxes > 0
    assert_surest_are_there(centres(of_near), centres(of_scene))
    stored = json.loads((tmp_path / "near.json").read_text())
    assert stored["source"] == "near.txt" and len(stored["boxes"]) == of_near.n_boxes
    corners = torch.tensor(stored["boxes"][0]["corners"], dtype=torch.float64)
    torch.testing.assert_close(corners.mean(dim=0), centres(of_near)[0], atol=1e-3, rtol=0)

    away = torch.tensor([500_000.0, 4_000_000.0, 30.0], dtype=torch.float64)
    far = as_text(tmp_path / "far.txt", cloud.coord.double() + away, cloud.fields["intensity"])
    origin = torch.tensor(read_cloud_with_notes(far).cloud.origin, dtype=torch.float64)
    assert float(origin[1]) > 1e6
    same = as_text(tmp_path / "same.txt", cloud.coord.double() + away - origin, cloud.fields["intensity"])
    of_far, of_same = (detect.run(run, file=one, min_score=0.0) for one in (far, same))
    assert_surest_are_there(centres(of_far), centres(of_same) + origin)


def test_what_detect_refuses(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="one cloud is needed"):
        detect.run(drives / "run")
    with pytest.raises(OutputError, match="cannot write boxes"):
        detect.run(drives / "run", file=tmp_path / "a.ply", out=tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match="holds no detector"):
        detect.run(named_checkpoint("rooms"), file=tmp_path / "a.ply")
