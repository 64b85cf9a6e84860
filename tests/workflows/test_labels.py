"""Fine-tuning and evaluation on scenes whose labels have marks of other programs, or other classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ponderv2.errors import PresetError, SceneError
from ponderv2.io.ply import read_ply
from ponderv2.workflows import evaluate, finetune
from tests.workflows.heard import Heard
from tests.workflows.tiny import finetune_config, rooms


def relabel(scenes: Path, mark: int, every: int = 5, name: str = "**", dtype: type = np.int16) -> None:
    """Every n-th point of some scenes has another number."""
    for path in sorted(scenes.glob(f"{name}/segment.npy")):
        values = np.load(path).astype(dtype)
        values[::every] = mark
        np.save(path, values)


@pytest.mark.parametrize(("mark", "dtype"), [(-100, np.int16), (255, np.int16), (255, np.uint8)])
def test_marks_of_missing_labels_train_and_evaluate_as_minus_one(tmp_path: Path, mark: int, dtype: type):
    losses, metrics = [], []
    for number, kind in ((-1, np.int16), (mark, dtype)):
        scenes = rooms(tmp_path / f"rooms{number}")
        relabel(scenes, number, dtype=kind)
        out = tmp_path / f"out{number}"
        report = Heard()
        result = finetune.run(finetune_config(steps=2), scenes=scenes, out=out, name="run", report=report)
        losses.append(result.losses)
        metrics.append(evaluate.run(out / "run", scenes=scenes).metrics)
    assert losses[0] == losses[1] and metrics[0] == metrics[1]
    assert any("is 255 at 300 of 1500 points" in note for note in report.noted) == (mark == 255)


def test_wrong_classes_are_named_with_what_to_do(tmp_path: Path):
    scenes = rooms(tmp_path / "rooms")
    relabel(scenes, 40)
    with pytest.raises(PresetError, match=r"class 40 in 'segment' at 20\.0% of its points") as problem:
        finetune.run(finetune_config(steps=1), scenes=scenes, out=tmp_path, name="run")
    fix = problem.value.fix or ""
    assert "--set model.head.n_classes=41" in fix and "-1 in the array" in fix and "data.label_field" in fix


def test_wrong_classes_of_a_later_scene_are_a_mistake_of_the_scene(tmp_path: Path):
    scenes = rooms(tmp_path / "rooms")
    finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    last = sorted(scenes.glob("val/*"))[-1]
    relabel(scenes, 77, name=f"val/{last.name}")
    with pytest.raises(SceneError, match=f"scene '{last.name}'.* has class 77"):
        evaluate.run(tmp_path / "run", scenes=scenes)


def test_predictions_of_a_far_scene_lie_where_the_scene_does(tmp_path: Path):
    scenes = rooms(tmp_path / "rooms")
    shift = np.array([555813.15, 5385888.54, 185.86])
    finetune.run(finetune_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="run")
    before = {path.parent.name: np.load(path) for path in scenes.glob("val/*/coord.npy")}
    for path in scenes.glob("val/*/coord.npy"):
        np.save(path, np.load(path).astype(np.float64) + shift)
    evaluate.run(tmp_path / "run", scenes=scenes, export=tmp_path / "out")
    for name, coord in before.items():
        written = read_ply(tmp_path / "out" / f"{name}_prediction.ply").columns("x", "y", "z")
        assert written is not None and np.abs(written - coord - shift).max() < 1e-6
