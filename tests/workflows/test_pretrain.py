"""Pre-training from prepared scenes to a checkpoint: resumed, on two processes, refused where it must be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.errors import CheckpointError, OutputError, PonderError, PresetError, SceneError
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.checkpoints import load_model
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.workflows import pretrain
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.training_runs import RunRequest, _train_as_member
from tests.training.processes import run_ranks
from tests.workflows.heard import Heard
from tests.workflows.tiny import pretrain_config, rooms

CLOCKS = {"seconds", "waited", "points_per_second", "rays_per_second", "memory_gib"}


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def test_a_run_leaves_checkpoints_numbers_and_pictures(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    result = pretrain.run(pretrain_config(keep_steps=[2]), scenes=scenes, out=tmp_path, name="run")
    folder = tmp_path / "run"
    assert result.steps == 4 and set(result.metrics) == {"psnr", "ssim", "depth_l1", "depth_median"}
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert {"last.pth", "best.pth", "step-2.pth"} <= names
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml",
        "environment.json",
        "log.txt",
        "previews",
    }
    assert len(list((folder / "previews").glob("*.png"))) == 2
    steps = [line for line in _lines(folder) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    terms = ("color", "depth", "sdf", "free_space", "eikonal", "semantic", "point")
    assert steps[0]["loss"] == pytest.approx(sum(steps[0][term] for term in terms), rel=1e-5)
    model = load_model(folder)
    assert isinstance(model, PretextModel) and not model.training


def test_resuming_equals_one_run(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = pretrain_config()
    pretrain.run(config, scenes=scenes, out=tmp_path, name="whole")
    pretrain.run(config, scenes=scenes, out=tmp_path, name="parts")
    checkpoints = tmp_path / "parts" / "checkpoints"
    (checkpoints / "last.pth").write_bytes(b"damaged")
    (checkpoints / "best.pth").unlink()
    assert load_checkpoint(checkpoints / "previous.pth").step == 2
    pretrain.run(config, scenes=scenes, out=tmp_path, name="parts", resume=True)
    assert _lines(tmp_path / "parts") == _lines(tmp_path / "whole")
    ends = [load_checkpoint(tmp_path / n / "checkpoints" / "last.pth").model for n in ("parts", "whole")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


def test_other_scenes_in_a_resumed_run_are_said(tmp_path: Path) -> None:
    scenes, config = rooms(tmp_path / "rooms"), pretrain_config(steps=4, evaluate_every=0)
    pretrain.run(config, scenes=scenes, out=tmp_path, name="run")
    longer = pretrain_config(steps=6, evaluate_every=0)
    scenes.rename(tmp_path / "moved")
    same, other = Heard(), Heard()
    pretrain.run(longer, scenes=tmp_path / "moved", out=tmp_path, name="run", resume=True, report=same)
    shutil.rmtree(tmp_path / "moved" / "train" / "room1")
    longest = pretrain_config(steps=8, evaluate_every=0)
    pretrain.run(longest, scenes=tmp_path / "moved", out=tmp_path, name="run", resume=True, report=other)
    assert [text.split()[0] for text in same.warned] == ["training.steps"]
    assert "other training scenes (2, now 1): results will not match an uninterrupted run" in "".join(
        other.warned
    )


def _as_rank(rank: int, port: int, request: RunRequest) -> int:
    torch.set_num_threads(1)
    return _train_as_member(Member(rank, 2, port), request, pretrain.make_job, None).step


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    """Not with Adam: it makes full steps of the rounding errors of parameters that have no effect."""
    config = pretrain_config(steps=5, evaluate_every=0, optimiser={"kind": "sgd", "rate": 1.0e-3})
    config = config.model_copy(update={"scenes": rooms(tmp_path / "rooms")})
    pretrain.run(config, out=tmp_path, name="one")
    assert run_ranks(_as_rank, 2, free_port(), RunRequest(config, tmp_path / "two", devices=2)) == [5, 5]
    one, two = ([x["loss"] for x in _lines(tmp_path / name) if "loss" in x] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)
    metrics = [_lines(tmp_path / name)[-1]["evaluation"] for name in ("one", "two")]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = pretrain_config(steps=1, evaluate_every=0)
    pretrain.run(config, scenes=scenes, out=tmp_path, name="run")
    before = (tmp_path / "run" / "checkpoints" / "last.pth").read_bytes()
    with pytest.raises(OutputError, match="holds a run already") as caught:
        pretrain.run(config, scenes=scenes, out=tmp_path, name="run")
    assert "--resume" in str(caught.value.fix)
    assert (tmp_path / "run" / "checkpoints" / "last.pth").read_bytes() == before


def test_another_model_cannot_be_resumed(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    config = pretrain_config(steps=1, evaluate_every=0)
    pretrain.run(config, scenes=scenes, out=tmp_path, name="run")
    values = config.model_dump()
    values["model"]["projection"]["out_channels"] = 16
    with pytest.raises(CheckpointError, match=r"projection\.out_channels differs"):
        other = type(config).model_validate(values)
        pretrain.run(other, scenes=scenes, out=tmp_path, name="run", resume=True)


def test_a_missing_folder_names_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(SceneError) as caught:
        pretrain.run(pretrain_config(), scenes=tmp_path / "nothing", out=tmp_path)
    assert "ponder prepare" in str(caught.value.fix)


def test_a_batch_that_devices_cannot_share_names_one_that_they_can(tmp_path: Path) -> None:
    scenes = rooms(tmp_path / "rooms")
    with pytest.raises(PresetError) as caught:
        pretrain.run(pretrain_config(batch_size=3), scenes=scenes, out=tmp_path, devices=2)
    assert caught.value.fix == "--set training.batch_size=4"


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a name"):
        pretrain.run(pretrain_config(), scenes=tmp_path, out=tmp_path, name="../elsewhere")


@pytest.mark.parametrize(
    ("model", "error", "fix"),
    [
        ({"conditions": ["ScanNet"]}, PresetError, "--set model.conditions="),
        (
            {
                "semantic": {"kind": "classes", "n_classes": 7},
                "losses": {"semantic_target": {"kind": "classes"}},
            },
            PonderError,
            "--",
        ),
    ],
)
def test_targets_that_the_scenes_do_not_have_are_said_before_the_work(
    tmp_path: Path, model: dict[str, Any], error: type[Exception], fix: str
) -> None:
    values = pretrain_config().model_dump(mode="json")
    config = PretrainConfig.model_validate({**values, "model": {**values["model"], **model}})
    with pytest.raises(error) as caught:
        pretrain.run(config, scenes=rooms(tmp_path / "rooms"), out=tmp_path, name="run")
    assert isinstance(caught.value, PonderError) and fix in str(caught.value.fix)
    assert not (tmp_path / "run").exists()
