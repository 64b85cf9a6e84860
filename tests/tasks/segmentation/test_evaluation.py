"""Evaluations that go on, that never take over what is not theirs, and that write files for a benchmark."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ponderv2.data.config import LabelledDataConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.scannet import scannet20
from ponderv2.errors import SceneError
from ponderv2.tasks.checkpoints import load
from ponderv2.tasks.segmentation import predictions as class_metrics
from ponderv2.tasks.task import EvaluationRequest
from ponderv2.workflows import evaluate, finetune
from ponderv2.workflows.config import FinetuneConfig
from tests.workflows.tiny import finetune_config, rooms


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rooms of ScanNet's classes and a model of one step."""
    folder = tmp_path_factory.mktemp("trained")
    scenes = rooms(folder / "rooms")
    info = yaml.safe_load((scenes / "dataset.yaml").read_text())
    info |= {"class_names": list(scannet20.CLASS_NAMES), "class_colors": []}
    (scenes / "dataset.yaml").write_text(yaml.safe_dump(info))
    values = finetune_config(steps=1, evaluate_every=0).model_dump()
    values["model"]["head"] = {"kind": "final", "n_classes": 20}
    finetune.run(FinetuneConfig.model_validate(values), scenes=scenes, out=folder, name="run")
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many scenes were segmented since the last call."""
    calls: list[int] = []
    real = class_metrics.predicted_classes

    def spy(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr("ponderv2.tasks.segmentation.evaluation.predicted_classes", spy)

    def since() -> int:
        n, calls[:] = len(calls), []
        return n

    return since


def test_an_interrupted_evaluation_goes_on_and_gives_the_same_numbers(
    trained: Path, tmp_path: Path, counted: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path / "whole")
    assert counted() == 2 and whole.n_reused == 0
    real = class_metrics.predicted_classes
    with monkeypatch.context() as patch:

        def stop_at_the_second(model, data, index, *rest):
            if index == 1:
                raise KeyboardInterrupt
            return real(model, data, index, *rest)

        patch.setattr("ponderv2.tasks.segmentation.evaluation.predicted_classes", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path / "parts")
    rest = evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path / "parts")
    assert counted() == 1 and rest.n_reused == 1
    assert rest.metrics == whole.metrics


def test_predictions_are_reused_for_the_same_weights_points_and_settings_alone(
    trained: Path, tmp_path: Path, counted: Callable[[], int]
) -> None:
    def run(**changes):
        return evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path / "out", **changes)

    run()
    assert counted() == 2
    run()
    assert counted() == 0
    run(reuse=False)
    assert counted() == 2
    run(tta="fragments")
    assert counted() == 2
    checkpoint = trained / "run" / "checkpoints" / "last.pth"
    kept = checkpoint.read_bytes()
    try:  # other weights under the same name
        torch.manual_seed(3)
        values = finetune_config(steps=1, evaluate_every=0).model_dump() | {"seed": 5}
        values["model"]["head"] = {"kind": "final", "n_classes": 20}
        other = finetune.run(
            FinetuneConfig.model_validate(values), scenes=trained / "rooms", out=tmp_path, name="other"
        )
        checkpoint.write_bytes(other.checkpoint.read_bytes())
        run()
        assert counted() == 2
    finally:
        checkpoint.write_bytes(kept)
    color = next((trained / "rooms" / "val").rglob("color.npy"))
    values = np.load(color)
    np.save(color, np.roll(values, 1, axis=0))
    run()
    assert counted() == 1
    np.save(color, values)


def test_a_damaged_prediction_is_computed_again(
    trained: Path, tmp_path: Path, counted: Callable[[], int]
) -> None:
    first = evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path)
    files = sorted((tmp_path / "predictions").rglob("*.npy"))
    files[0].write_bytes(files[0].read_bytes()[:40])
    np.save(files[1], np.zeros(3, np.int16))
    counted()
    again = evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path)
    assert counted() == 2 and again.metrics == first.metrics


def test_scenes_without_labels_are_written_for_the_server(trained: Path, tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    (scenes / "dataset.yaml").write_text((trained / "rooms" / "dataset.yaml").read_text())
    for path in (scenes / "val").rglob("segment.npy"):
        path.unlink()
    result = evaluate.run(trained / "run", scenes=scenes, submission=tmp_path / "out.zip", out=tmp_path)
    assert result.metrics == {} and result.n_scenes == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["room0.txt", "room1.txt"]
        for name in archive.namelist():
            ids = [int(line) for line in archive.read(name).decode().splitlines()]
            assert len(ids) == 1500 and set(ids) <= set(scannet20.NYU40_IDS)
    with pytest.raises(SceneError, match="has no labels"):
        evaluate.run(trained / "run", scenes=scenes, out=tmp_path)


def test_both_means_differ_by_the_classes_that_do_not_occur(trained: Path, tmp_path: Path) -> None:
    metrics = evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path).metrics
    assert metrics["miou_all"] == pytest.approx(metrics["miou"] * 3 / 20)
    assert metrics["macc_all"] == pytest.approx(metrics["macc"] * 3 / 20)


def test_other_classes_have_no_submission(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    run = finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    with pytest.raises(SceneError, match="submission format"):
        evaluate.run(run.folder, scenes=scenes, submission=tmp_path / "out.zip")


def test_predictions_are_written_as_coloured_points(trained: Path, tmp_path: Path) -> None:
    evaluate.run(trained / "run", scenes=trained / "rooms", out=tmp_path, export=tmp_path / "ply")
    names = sorted(path.name for path in (tmp_path / "ply").iterdir())
    assert names == [f"room{i}_{what}.ply" for i in range(2) for what in ("prediction", "truth")]


def test_a_joint_model_is_evaluated_on_the_split_and_the_classes_of_the_dataset() -> None:
    parts = [{"scenes": "data/scannet"}, {"scenes": "data/s3dis", "val_split": "Area_5"}]
    config = {"val_split": "val", "datasets": parts}
    assert evaluate.validated_split(config, Path("elsewhere/s3dis")) == "Area_5"
    assert evaluate.validated_split(config, Path("elsewhere/scannet")) == "val"
    assert evaluate.validated_split({}, Path("rooms")) == "val"


def test_a_joint_model_is_evaluated_on_the_labels_of_the_dataset(trained: Path, tmp_path: Path) -> None:
    stored = load(trained / "run")
    parts = [{"scenes": "data/rooms", "label_field": "finer", "data": {"shuffle": False}}]
    for datasets, expected in (([], (None, True)), (parts, ("finer", False))):
        config = {**stored.config, "datasets": datasets}
        store = open_folder(trained / "rooms")
        request = EvaluationRequest(replace(stored, config=config), store, "val", tmp_path)
        settings = request.settings(LabelledDataConfig)
        assert (settings.label_field, settings.shuffle) == expected


def test_a_model_of_two_datasets_keeps_their_classes_apart(tmp_path: Path) -> None:
    """By text embeddings, and by a layer for each dataset."""
    scenes = rooms(tmp_path / "rooms")
    values = finetune_config(steps=1, evaluate_every=0).model_dump()
    name = yaml.safe_load((scenes / "dataset.yaml").read_text())["name"]
    heads = (
        {"kind": "language", "n_texts": 5, "n_channels": 8, "valid_index": {name: [4, 0, 2], "other": [1]}},
        {"kind": "decoupled", "n_classes": {"other": 7, name: 3}},
    )
    for head in heads:
        values["model"]["head"] = head
        run = finetune.run(
            FinetuneConfig.model_validate(values), scenes=scenes, out=tmp_path, name=str(head["kind"])
        )
        result = evaluate.run(run.folder, scenes=scenes)
        assert [row["class"] for row in result.classes] == ["wall", "floor", "ceiling"]
