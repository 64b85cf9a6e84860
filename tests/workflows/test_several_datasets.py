"""Pre-training on three datasets: who is seen when, resumed, on two processes, with and without workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import PresetError, SceneError
from ponderv2.store.store import SceneStore
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.workflows import evaluate, finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from ponderv2.workflows.training_job import distinct_names, joint_metrics
from ponderv2.workflows.training_runs import RunRequest, _train_as_member
from tests.scenes.closed_form_room import write_store
from tests.training.processes import run_ranks
from tests.workflows.tiny import finetune_config, pretrain_config

CLOCKS = {"seconds", "waited", "points_per_second", "rays_per_second", "memory_gib"}
RATIOS = {"Structured3D": 2, "ScanNet": 1, "S3DIS": 1}
ROWS = {"Structured3D": [0, 1, 2], "ScanNet": [2, 1, 0], "S3DIS": [1, 3, 2]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three datasets of box rooms, of different sizes, in one folder."""
    for number, name in enumerate(RATIOS):
        store = write_store(
            tmp_path / "data" / name.lower(), n_scenes=3 - number, n_points=600, splits=("train", "val")
        )
        SceneStore.create(store.root, replace(store.info, name=name))
    return tmp_path / "data"


def joint_config(folder: Path, model: dict[str, Any] | None = None, **training: Any) -> PretrainConfig:
    """The tiny model with prompts, on the three datasets in turn."""
    values = pretrain_config(**{"steps": 5, "evaluate_every": 0, "save_every": 3, **training}).model_dump(
        mode="json"
    )
    encoder = {**values["model"]["encoder"], "kind": "prompted_sparse_unet", "conditions": list(RATIOS)[::-1]}
    del encoder["unit_norm_momentum"]
    values["model"] |= {"encoder": encoder, "conditions": list(RATIOS), **(model or {})}
    values["datasets"] = [
        {"scenes": str(folder / name.lower()), "ratio": ratio} for name, ratio in RATIOS.items()
    ]
    return PretrainConfig.model_validate(values)


SEMANTIC = {
    "semantic": {
        "kind": "text",
        "n_classes": 4,
        "n_channels": 8,
        "valid_index": ROWS,
        "point_head": True,
        "point_loss_weight": 0.5,
    },
    "losses": {"semantic_target": {"kind": "contrastive"}},
}


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines if "loss" in line]


def test_the_batches_of_a_run_follow_the_cycle(folder: Path, tmp_path: Path) -> None:
    """Only the norms of the dataset of a step move, so they tell whose turn it was."""
    config = joint_config(folder, steps=4, keep_steps=[1, 2, 3])
    pretrain.run(config, out=tmp_path, name="run")
    states = [load_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{n}.pth").model for n in (1, 2, 3)]
    states.append(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth").model)
    norms = {name: f"backbone.conv_input.bn.bns.{i}" for i, name in enumerate([*RATIOS][::-1])}
    counts = [
        {name: int(state[f"{norm}.num_batches_tracked"]) for name, norm in norms.items()} for state in states
    ]
    turns = ["Structured3D", "Structured3D", "ScanNet", "S3DIS"]
    assert counts == [{name: turns[: n + 1].count(name) for name in norms} for n in range(4)]


def test_resuming_in_the_middle_of_a_round_equals_one_run(folder: Path, tmp_path: Path) -> None:
    config = joint_config(folder, SEMANTIC)
    pretrain.run(config, out=tmp_path, name="whole")
    pretrain.run(config, out=tmp_path, name="parts")
    checkpoints = tmp_path / "parts" / "checkpoints"
    (checkpoints / "last.pth").write_bytes(b"damaged")
    (checkpoints / "best.pth").unlink()
    assert load_checkpoint(checkpoints / "previous.pth").step == 3
    pretrain.run(config, out=tmp_path, name="parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    ends = [load_checkpoint(tmp_path / n / "checkpoints" / "last.pth").model for n in ("parts", "whole")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


def test_workers_change_nothing_and_data_names_the_folder_of_the_datasets(
    folder: Path, tmp_path: Path
) -> None:
    pretrain.run(joint_config(folder), out=tmp_path, name="alone")
    config = joint_config(Path("elsewhere"), workers=2)
    pretrain.run(config, scenes=folder, out=tmp_path, name="helped")
    assert losses(tmp_path / "alone") == losses(tmp_path / "helped")
    stored = load_checkpoint(tmp_path / "helped" / "checkpoints" / "last.pth").config
    assert stored["scenes"] == str(folder / "structured3d")


def _as_rank(rank: int, port: int, request: RunRequest) -> int:
    torch.set_num_threads(1)
    return _train_as_member(Member(rank, 2, port), request, pretrain.make_job, None).step


def test_two_processes_have_the_losses_of_one(folder: Path, tmp_path: Path) -> None:
    config = joint_config(folder, SEMANTIC, steps=4, optimiser={"kind": "sgd", "rate": 3.0e-4})
    pretrain.run(config, out=tmp_path, name="one")
    assert run_ranks(_as_rank, 2, free_port(), RunRequest(config, tmp_path / "two", devices=2)) == [4, 4]
    one, two = ([step["loss"] for step in losses(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


def test_every_dataset_is_validated(folder: Path, tmp_path: Path) -> None:
    result = pretrain.run(joint_config(folder, steps=1), out=tmp_path, name="run")
    each = [result.metrics[f"psnr/{name}"] for name in RATIOS]
    assert result.metrics["psnr"] == pytest.approx(sum(each) / 3) and len(set(each)) == 3
    pictures = {path.name.split("-")[2] for path in (tmp_path / "run" / "previews").iterdir()}
    assert pictures == set(RATIOS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"voxel": {"size": 0.1}}}, r"datasets\.0\.data\.voxel: all datasets of a run share it"),
        ({"data": {"vews": {}}}, r"datasets\.0\.data\.vews"),
        ({"ratio": 0}, "greater than 0"),
    ],
)
def test_settings_that_one_dataset_cannot_have_are_named(folder: Path, change: dict, message: str) -> None:
    values = joint_config(folder).model_dump(mode="json")
    values["datasets"][0] |= change
    with pytest.raises(ValueError, match=message):
        PretrainConfig.model_validate(values)


def test_settings_of_one_dataset_replace_those_of_the_run(folder: Path) -> None:
    values = joint_config(folder).model_dump(mode="json")
    values["datasets"][1] |= {
        "data": {"views": {"n_views": 7}},
        "val_split": "test",
        "label_field": "segment20",
    }
    parts = PretrainConfig.model_validate(values).parts
    assert [part.data.views.n_views for part in parts] == [2, 7, 2]
    assert [part.val_split for part in parts] == ["val", "test", "val"]
    assert parts[1].data.label_field == "segment20" and parts[1].data.voxel == parts[0].data.voxel


@pytest.mark.parametrize(
    ("head", "fix"),
    [
        ({"kind": "decoupled", "n_classes": {"Structured3D": 3, "S3DIS": 7}}, r"n_classes.S3DIS=3"),
        ({"kind": "language", "n_channels": 8, "n_texts": 4, "valid_index": {"S3DIS": [0]}}, "valid_index"),
    ],
)
def test_the_classes_of_a_dataset_that_do_not_fit_name_its_setting(
    folder: Path, tmp_path: Path, head: dict[str, Any], fix: str
) -> None:
    values = finetune_config(steps=1).model_dump(mode="json")
    values["model"]["head"] = head
    config = FinetuneConfig.model_validate(values)
    with pytest.raises(PresetError) as caught:
        finetune.run(config, scenes=folder / "s3dis", out=tmp_path)
    assert fix in str(caught.value.fix)


def test_a_dataset_that_the_model_does_not_know_is_said_before_the_work(folder: Path, tmp_path: Path) -> None:
    store = open_folder(folder / "scannet")
    SceneStore.create(store.root, replace(store.info, name="ScanNet++"))
    with pytest.raises(PresetError, match=r"ScanNet\+\+"):
        pretrain.run(joint_config(folder), out=tmp_path, name="run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_training_scenes_is_named(folder: Path, tmp_path: Path) -> None:
    values = joint_config(folder).model_dump(mode="json")
    values["datasets"][2]["train_split"] = "Area_1"
    with pytest.raises(SceneError) as caught:
        pretrain.run(PretrainConfig.model_validate(values), out=tmp_path, name="run")
    assert "datasets.2.train_split" in str(caught.value.fix)


def test_metrics_of_several_datasets_are_means_and_each() -> None:
    assert joint_metrics({"A": {"psnr": 1.0}}) == {"psnr": 1.0}
    both = joint_metrics({"A": {"psnr": 1.0}, "B": {"psnr": 3.0}})
    assert both == {"psnr": 2.0, "psnr/A": 1.0, "psnr/B": 3.0}
    assert distinct_names(["A", "B", "A"]) == ["A", "B", "A-2"]


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "language", "n_texts": 4, "n_channels": 8, "valid_index": ROWS},
        {"kind": "decoupled", "n_classes": {"S3DIS": 3, "ScanNet": 3}},
    ],
    ids=["language", "decoupled"],
)
def test_a_joint_encoder_is_fine_tuned_and_judged_on_every_dataset(
    folder: Path, tmp_path: Path, head: dict[str, Any]
) -> None:
    pretrained = pretrain.run(joint_config(folder, steps=1), out=tmp_path, name="pretrained").checkpoint
    values = finetune_config(steps=4, evaluate_every=0).model_dump(mode="json")
    values["model"] |= {
        "encoder": None,
        "head": head,
    }
    values["datasets"] = joint_config(folder).model_dump(mode="json")["datasets"]
    config = FinetuneConfig.model_validate(values)
    result = finetune.run(config, checkpoint=pretrained, out=tmp_path, name="run")
    each = [result.metrics[f"miou/{name}"] for name in RATIOS]
    assert result.metrics["miou"] == pytest.approx(sum(each) / 3)
    stored = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth")
    assert stored.config["model"]["conditions"] == list(RATIOS)
    if head["kind"] == "decoupled":  # a dataset that was not named comes behind the others
        assert list(stored.config["model"]["head"]["n_classes"]) == ["S3DIS", "ScanNet", "Structured3D"]
    counts = [stored.model[f"backbone.conv_input.bn.bns.{i}.num_batches_tracked"] for i in range(3)]
    before = [
        load_checkpoint(pretrained).model[f"backbone.conv_input.bn.bns.{i}.num_batches_tracked"]
        for i in range(3)
    ]
    assert [int(a - b) for a, b in zip(counts, before, strict=True)] == [
        1,
        1,
        2,
    ]  # S3DIS, ScanNet, Structured3D
    assert set(stored.classes["datasets"]) == set(RATIOS)
    judged = evaluate.run(tmp_path / "run", scenes=folder / "s3dis", out=tmp_path / "judged")
    assert judged.metrics["miou"] == pytest.approx(result.metrics["miou/S3DIS"], abs=1e-6)
