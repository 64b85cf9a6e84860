"""Processes that torchrun and SLURM start: their number, runs of them, and a batch that they cannot share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ponderv2.errors import PresetError, ResourceError
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.config import TrainingConfig
from ponderv2.training.distributed import Launch, Member, free_port, launch, make_fabric, start_together
from ponderv2.workflows.training_runs import _check_batch
from tests.campaigns.faults.children import Child, run_program
from tests.training.toy import run_toy, toy_job
from tests.workflows.tiny import rooms

VARIABLES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "SLURM_TASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, Launch(8, 4)),
        ({"WORLD_SIZE": "3"}, Launch(3, 3)),
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}, Launch(8, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "4(x2)"}, Launch(8, 4)),
        ({"SLURM_NTASKS": "6"}, Launch(6, 6)),
        ({"SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, None),
        ({"SLURM_NTASKS": ""}, None),
    ],
)
def test_the_environment_tells_how_many_processes_there_are(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Launch | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch() == expected
    if expected:
        assert expected.n_machines * expected.per_machine == expected.world_size


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "10", "SLURM_TASKS_PER_NODE": "4(x2),2"},
        {"SLURM_NTASKS": "5", "SLURM_TASKS_PER_NODE": "3,2"},
        {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "4"},
    ],
)
def test_machines_with_unequal_numbers_of_processes_are_refused_before_anything_waits(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "")  # is set where SLURM did not
    with pytest.raises(ResourceError, match="equally many"):
        make_fabric(TrainingConfig(device="cpu"), Member(), 1)


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_NTASKS"])
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "n", "better"), [(8, 1, 3, 9), (2, 1, 8, 8), (12, 4, 8, 32), (8, 2, 4, None)]
)
def test_the_processes_of_a_launcher_must_be_able_to_share_a_batch(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    batch_size: int,
    accumulate: int,
    n: int,
    better: int | None,
) -> None:
    monkeypatch.setenv(variable, str(n))
    config = TrainingConfig(batch_size=batch_size, accumulate=accumulate)
    if better is None:
        _check_batch(config, 1)
        return
    with pytest.raises(PresetError, match=rf"{batch_size} scenes .* {n} processes x {accumulate}") as caught:
        _check_batch(config, 1)
    assert caught.value.fix == f"--set training.batch_size={better}"
    _check_batch(config.model_copy(update={"batch_size": better}), 1)


def _torchrun(n: int) -> list[dict[str, str]]:
    """What each of `n` processes finds in its environment."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "test"}
    shared |= {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "GROUP_RANK": "0"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


def _slurm(n: int) -> list[dict[str, str]]:
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "SLURM_JOB_ID": "4711"}
    shared |= {"SLURM_NTASKS": str(n), "SLURM_TASKS_PER_NODE": str(n), "SLURM_NNODES": "1"}
    return [
        {**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        for rank in range(n)
    ]


@pytest.mark.parametrize("start", [_torchrun, _slurm])
def test_a_batch_that_they_cannot_share_is_a_mistake_of_the_user(tmp_path: Path, start: object) -> None:
    """The real program, one process of three; it does not wait for the others."""
    assert callable(start)
    scenes = rooms(tmp_path / "rooms")
    words = ("pretrain", "--data", scenes, "--out", tmp_path, "--set", "training.batch_size=8")
    child = Child(run_program, *words, log=tmp_path / "log", **start(3)[1])
    assert child.wait(120) == 2, child.said
    assert "8 scenes a step cannot be shared by 3 processes" in " ".join(child.said.split())
    assert "training.batch_size=9" in child.said and "internal" not in child.said


def _train(folder: Path) -> None:
    os.environ.setdefault("SLURM_JOB_NAME", "train")
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    run_toy(toy_job(folder, steps=3, evaluate_every=0, timeout=30.0), member=Member(rank))


@pytest.mark.parametrize("start", [_torchrun, _slurm])
def test_two_processes_of_a_launcher_have_the_losses_of_one(tmp_path: Path, start: object) -> None:
    assert callable(start)
    _train(tmp_path / "one")
    ranks = [
        Child(_train, tmp_path / "two", log=tmp_path / f"log-{rank}", **environment)
        for rank, environment in enumerate(start(2))
    ]
    assert [rank.wait(60) for rank in ranks] == [0, 0], ranks[0].said
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    one, two = ([json.loads(line).get("loss", 0.0) for line in found] for found in lines)
    assert len(one) == 4 and two == pytest.approx(one, rel=2e-5)
    assert load_checkpoint(tmp_path / "two" / "checkpoints" / "last.pth").step == 3


def test_processes_that_do_not_find_each_other_say_so(tmp_path: Path) -> None:
    """One of two, and the other is never started."""
    child = Child(_alone_of_two, tmp_path, log=tmp_path / "log", **_torchrun(2)[0])
    assert child.wait(60) == 0, child.said


def _alone_of_two(folder: Path) -> None:
    with pytest.raises(ResourceError, match=r"did not find each other within 1 s") as caught:
        run_toy(toy_job(folder, timeout=1.0))
    assert "training.timeout" in str(caught.value.fix)


def _never(member: Member, first: object) -> None:
    raise AssertionError("the work of a run that cannot start")


class _CannotArrive:
    """An argument that ends the process which unpacks it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)


def test_a_process_that_dies_at_its_start_is_named_at_once() -> None:
    with pytest.raises(ResourceError, match="process 1 of 2 ended with status 7 before it could start"):
        start_together(2, _never, _CannotArrive())
