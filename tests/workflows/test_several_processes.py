"""Pre-training and fine-tuning on several processes, against one: sparse volumes, any number of scenes to
validate, Mix3D, and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.lift.sparse_input_conv import is_mostly_empty
from ponderv2.lift.volume_frame import volume_frame
from ponderv2.models.pretext import PretextModel
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.workflows import finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from ponderv2.workflows.training_runs import RunRequest, _train_as_member
from tests.scenes.closed_form_room import write_store
from tests.training.processes import run_ranks
from tests.workflows.tiny import finetune_config, pretrain_config

CLOCKS = {"seconds", "waited", "points_per_second", "rays_per_second", "memory_gib"}
GRID = [16, 16, 16]
RUN = {"steps": 2, "evaluate_every": 0, "save_every": 100, "optimiser": {"kind": "sgd", "rate": 1.0e-3}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rooms to train on and four to validate."""
    folder = tmp_path_factory.mktemp("scenes") / "rooms"
    write_store(folder, n_scenes=4, n_points=500, splits=("train", "val"))
    return folder


def _pretrain_config(scenes: Path, **training: Any) -> PretrainConfig:
    config = pretrain_config(**{**RUN, "timeout": 30.0, **training})
    values = config.model_dump(mode="json")
    values["model"]["frame"]["cells"] = GRID
    return PretrainConfig.model_validate({**values, "scenes": str(scenes)})


def _finetune_config(scenes: Path, kind: str, mix: float, batch_size: int) -> FinetuneConfig:
    values = finetune_config(**RUN, batch_size=batch_size, timeout=30.0).model_dump(mode="json")
    values["data"]["mix_probability"] = mix
    if kind == "instances":
        encoder = values["model"]["encoder"]
        values["model"] = {"kind": kind, "encoder": encoder, "n_classes": 3, "ignored_classes": [1]}
    return FinetuneConfig.model_validate({**values, "scenes": str(scenes)})


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def _as_rank(rank: int, ports: tuple[int, ...], request: RunRequest, make_job: Any) -> list[int]:
    """Trains, and resumes what has ended."""
    torch.set_num_threads(1)
    steps = []
    for number, port in enumerate(ports):
        again = RunRequest(request.config, request.folder, resume=number > 0, devices=request.devices)
        steps.append(_train_as_member(Member(rank, request.devices, port), again, make_job, None).step)
        torch.distributed.destroy_process_group()
    return steps


def _together(n: int, config: Any, folder: Path, make_job: Any) -> None:
    ports = (free_port(), free_port())
    found = run_ranks(_as_rank, n, ports, RunRequest(config, folder, devices=n), make_job)
    assert found == [[config.training.steps] * 2] * n


def _assert_equal(folder: Path, truth: Path) -> None:
    """Every term of every step and every metric; the validation has run once.

    A median, as any choice among numbers, moves more than they do.
    """
    ours, theirs = _lines(folder), _lines(truth)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            rel = 1e-3 if name == "evaluation" else 2e-5
            assert one[name] == pytest.approx(value, rel=rel, abs=1e-6), name
    ends = [load_checkpoint(one / "checkpoints" / "last.pth") for one in (folder, truth)]
    assert len(ends[0].history) == len(ends[1].history) == 1
    for name, value in ends[1].model.items():
        torch.testing.assert_close(ends[0].model[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_volumes_of_these_rooms_are_mostly_empty(scenes: Path) -> None:
    """As those of real rooms are, so that the runs below take the branch that real data take."""
    config = _pretrain_config(scenes)
    model = PretextModel(config.model)
    batch = PretrainDataset(open_folder(scenes), "train", config.data).sample(0, 0)
    frame = volume_frame(batch.coord, batch.offset, config.model.frame)
    assert is_mostly_empty(model.lift(model.encode(batch), frame))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("n_scenes", [1, 3, 4])
def test_pre_training_validates_any_number_of_scenes(
    scenes: Path, tmp_path: Path, n: int, n_scenes: int
) -> None:
    config = _pretrain_config(scenes, batch_size=n, evaluate_scenes=n_scenes)
    pretrain.run(config, out=tmp_path, name="one")
    _together(n, config, tmp_path / "several", pretrain.make_job)
    _assert_equal(tmp_path / "several", tmp_path / "one")
    for name in ("one", "several"):
        assert len(list((tmp_path / name / "previews").iterdir())) == n_scenes


@pytest.mark.parametrize(
    ("n", "batch_size", "mix", "kind"),
    [
        (2, 4, 0.5, "segmentation"),
        (3, 3, 0.0, "segmentation"),
        (2, 6, 1.0, "segmentation"),
        (4, 4, 1.0, "segmentation"),
        (3, 3, 1.0, "instances"),
    ],
)
def test_fine_tuning_has_the_losses_and_metrics_of_one_process(
    scenes: Path, tmp_path: Path, n: int, batch_size: int, mix: float, kind: str
) -> None:
    """Pairs of Mix3D in one process or two, a process that has no scenes, fewer scenes than processes."""
    config = _finetune_config(scenes, kind, mix, batch_size)
    finetune.run(config, scenes=scenes, out=tmp_path, name="one")
    config = FinetuneConfig.model_validate(load_checkpoint(tmp_path / "one/checkpoints/last.pth").config)
    _together(n, config, tmp_path / "several", finetune.make_job)
    _assert_equal(tmp_path / "several", tmp_path / "one")
