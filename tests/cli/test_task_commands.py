"""`ponder finetune` and `ponder eval` of tasks: what is refused, and several models taken together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ponder_cli.presets import shipped_presets
from ponderv2.datasets.kinds import DATASETS
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.workflows import finetune, pretrain
from tests.cli.conftest import Run
from tests.workflows.tiny import ENCODER, finetune_config, pretrain_config, rooms


def test_a_checkpoint_of_another_encoder_is_refused_with_a_table(run: Run, tmp_path: Path) -> None:
    wider = {**ENCODER, "channels": [8, 16, 16, 8]}
    other = SegmentationModel(
        SegmentationModelConfig.model_validate({"encoder": wider, "head": {"kind": "final", "n_classes": 3}})
    )
    state = {f"module.{name.removeprefix('head.')}": value for name, value in other.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(finetune_config(steps=1).model_dump(mode="json")))
    words = (
        "--from",
        tmp_path / "other.pth",
        "--data",
        rooms(tmp_path / "rooms"),
        "--out",
        tmp_path / "runs",
    )
    result = run("finetune", "--preset", preset, *words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "of another model" in result.stderr and "entries that do not fit" in result.stderr
    assert "file (16, 2, 2, 2, 8), model (8, 2, 2, 2, 8)" in result.stderr
    assert not list(tmp_path.glob("runs/*/checkpoints/*"))


def test_several_models_are_evaluated_and_pooled_by_one_command(run: Run, tmp_path: Path) -> None:
    """Each on the split that its training left out, against the results of single evaluations."""
    scenes = rooms(tmp_path / "rooms")
    for name, split, other in (("a", "train", "val"), ("b", "val", "train")):
        config = finetune_config(steps=1, evaluate_every=0)
        config = config.model_copy(update={"train_split": split, "val_split": other})
        finetune.run(config, scenes=scenes, out=tmp_path, name=name)
    models = (tmp_path / "a", tmp_path / "b")
    options = ("--export", tmp_path / "ply", "--out", tmp_path / "out", "--json", tmp_path / "pooled.json")
    result = run("eval", *models, "--pool", "--tta", "fragments", *options)
    assert result.exit_code == 0, result.stderr
    pooled = json.loads((tmp_path / "pooled.json").read_text())
    assert [fold["split"] for fold in pooled["folds"]] == ["val", "train"] and pooled["n_scenes"] == 4
    assert [len(list((tmp_path / "ply" / f"fold{i}").glob("*_prediction.ply"))) for i in range(2)] == [2, 2]
    singles = []
    for path in models:
        assert run("eval", path, "--tta", "fragments", "--json", f"{path}.json").exit_code == 0
        singles.append(json.loads(Path(f"{path}.json").read_text()))
    for number, row in enumerate(pooled["classes"]):
        for key in ("points", "intersection", "union"):
            assert row[key] == sum(one["classes"][number][key] for one in singles)
    assert pooled["metrics"]["miou"] == pytest.approx(
        sum(row["intersection"] / row["union"] for row in pooled["classes"]) / 3
    )
    from_files = run("eval", models[0], f"{models[1]}.json", "--pool", "--tta", "fragments", "--json", "-")
    assert from_files.exit_code == 0 and json.dumps(pooled["metrics"]["miou"]) in from_files.stdout


@pytest.mark.parametrize("kind", sorted(DATASETS))
@pytest.mark.parametrize("with_frames", [True, False])
def test_what_is_proposed_after_prepare_is_a_shipped_preset(kind: str, with_frames: bool) -> None:
    command, *words = DATASETS[kind].next_command(with_frames)
    names = {preset.name for preset in shipped_presets(command)}
    assert words[words.index("--preset") + 1] in names if "--preset" in words else "demo" in names


def test_points_without_frames_are_not_sent_to_pretraining() -> None:
    assert DATASETS["s3dis"].next_command(with_frames=False)[0] == "finetune"
    assert DATASETS["s3dis"].next_command(with_frames=True) == ("pretrain", "--preset", "s3dis")


def test_encoders_are_compared_by_one_command(run: Run, tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    pretrain.run(pretrain_config(steps=1, evaluate_every=0), scenes=scenes, out=tmp_path, name="pre")
    budget = ("--set", "data.budget.points_per_scene=30", "--set", "knn.k=3")
    words = ("--protocols", "purity,knn", "--baselines", *budget, "--json", tmp_path / "found.json")
    result = run("eval", tmp_path / "pre", *words)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["protocol"] for row in found["protocols"]] == ["knn"] * 3 and len(found["purity"]) == 3
    assert all(50 < row["labelled_voxels"] <= 60 for row in found["protocols"])  # two may share a voxel
    for name in ("milliseconds per scene", "trained parameters", "random encoder", "color, height, normal"):
        assert name in result.stdout
    # The classes stand in the JSON, not in a table of as many columns.
    assert "ceiling" in found["classes"][0] and "ceiling" not in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocols", "knn", "--set", "data.bugdet.points_per_scene=20"), "data.budget"),
        (("--protocols", "knn", "--tta", "fragments"), "does not go with a comparison"),
        (("--baselines", "--pool"), "does not go with a comparison"),
        (("--set", "knn.k=3"), "changes settings of --protocols"),
    ],
)
def test_options_of_another_evaluation_are_refused(
    run: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = run("eval", tmp_path / "run", *words)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
