"""Validation shared by processes: unequal numbers of scenes, failures of one, saved before it starts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.collectives import process_rank, sum_over_processes, world_size
from ponderv2.errors import Interrupted, PonderError, ResourceError, SceneError
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.training.interruption import Interruption
from ponderv2.training.ranks import OtherProcessFailed, run_in_all
from ponderv2.training.validation import Validated, validate
from tests.training.processes import join, run_ranks, start
from tests.training.toy import ToyModel, ToyScenes, ToyValidation, run_toy, toy_job

CLOCKS = {"seconds", "waited", "points_per_second", "memory_gib"}


class Thirds:
    """Scene n shows n / 3; metrics add them up in order, so that another order shows in the last bits."""

    def __init__(self, n_scenes: int, bad: dict[int, Exception] | None = None) -> None:
        self.n_scenes, self.bad = n_scenes, bad or {}

    def __len__(self) -> int:
        return self.n_scenes

    def measure(self, number: int, step: int, logger: object) -> float:
        assert world_size() == 1 and sum_over_processes(torch.ones(1)) == 1
        if number in self.bad:
            raise self.bad[number]
        return (number + 1) / 3

    def metrics(self, results: Sequence[float]) -> dict[str, float]:
        total = 0.0
        for result in results:
            total = total * 1.1 + result
        return {"total": total, "n": float(len(results))}


def _validated(rank: int, port: int, n: int, n_scenes: int) -> Validated:
    join(rank, port, n, timeout=10.0)
    return validate(Thirds(n_scenes), 1, None, Interruption())


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("n_scenes", [1, 3, 4])
def test_any_number_of_scenes_is_shared_by_any_number_of_processes(n: int, n_scenes: int) -> None:
    truth = validate(Thirds(n_scenes), 1, None, Interruption())
    assert truth.metrics is not None and truth.metrics["n"] == n_scenes
    assert run_ranks(_validated, n, free_port(), n, n_scenes) == [truth] * n


def _failing(rank: int, port: int, bad: dict[int, Exception]) -> tuple[str, str, str | None]:
    join(rank, port, 3, timeout=10.0)
    with pytest.raises(Exception) as caught:
        validate(Thirds(5, bad), 1, None, Interruption())
    error = caught.value
    return type(error).__name__, str(error), getattr(error, "fix", None)


class _Odd(PonderError):
    """An error that cannot be sent to another process as it is."""

    def __init__(self, message: str, fix: str, more: int) -> None:
        super().__init__(message, fix)
        self.more = more


def test_a_scene_that_fails_in_one_process_fails_alike_in_all() -> None:
    bad: dict[int, Exception] = {4: SceneError("scene four is cut off", fix="prepare it again")}
    found = run_ranks(_failing, 3, free_port(), bad)
    assert found == [("SceneError", "scene four is cut off", "prepare it again")] * 3


def test_of_several_failures_the_first_process_names_its_own() -> None:
    bad: dict[int, Exception] = {2: SceneError("two"), 1: ResourceError("one", fix="less")}
    assert run_ranks(_failing, 3, free_port(), bad) == [("ResourceError", "one", "less")] * 3


def test_errors_that_cannot_be_sent_keep_their_words() -> None:
    found = run_ranks(_failing, 3, free_port(), {1: _Odd("odd", "do this", 3)})
    assert [entry[1:] for entry in found] == [("odd", "do this")] * 3


def test_an_internal_error_of_one_process_shows_its_traceback_in_the_others() -> None:
    others, itself = OtherProcessFailed.__name__, "ZeroDivisionError"
    found = run_ranks(_failing, 3, free_port(), {1: ZeroDivisionError("inside")})
    assert [entry[0] for entry in found] == [others, itself, others]
    assert "process 1 of 3 failed" in found[0][1] and "ZeroDivisionError: inside" in found[0][1]


def _results(rank: int, port: int) -> list[int]:
    join(rank, port, 2)
    return run_in_all(lambda: 10 * rank + process_rank())


def test_results_of_all_processes_come_in_their_order() -> None:
    assert run_ranks(_results, 2, free_port()) == [[0, 10]] * 2


@dataclass(frozen=True)
class _Fails(ToyValidation):
    """Fails in one way at one step."""

    step: int = 4
    how: str = "error"

    def measure(self, number: int, step: int, logger: object) -> float:
        if step == self.step and number == 1:
            if self.how == "error":
                raise SceneError("scene one is damaged", fix="prepare it again")
            os.kill(os.getpid(), signal.SIGTERM if self.how == "signal" else signal.SIGKILL)
        return super().measure(number, step, logger)


def _run(folder: Path, resume: bool, settings: dict[str, Any], how: str | None = None) -> int:
    torch.set_num_threads(1)
    job = toy_job(folder, **settings)
    if how:
        model = job.model
        assert isinstance(model, ToyModel)
        job = replace(job, validation=_Fails(model, how=how))
    return run_toy(job, resume=resume).step


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


@pytest.mark.parametrize("how", ["error", "signal", "kill"])
@pytest.mark.parametrize(
    "settings", [{"steps": 4, "evaluate_every": 0}, {"steps": 6, "evaluate_every": 4}], ids=["last", "middle"]
)
def test_a_validation_that_does_not_end_loses_no_step_and_is_done_by_resuming(
    tmp_path: Path, settings: dict[str, Any], how: str
) -> None:
    settings = {**settings, "save_every": 100}
    assert _run(tmp_path / "whole", False, settings) == settings["steps"]
    child = start(_run, tmp_path / "run", False, settings, how)
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGKILL if how == "kill" else child.exitcode == 1
    stored = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth")
    assert stored.step == 4 and not stored.history
    assert _run(tmp_path / "run", True, settings) == settings["steps"]
    assert _lines(tmp_path / "run") == _lines(tmp_path / "whole")
    for name in ("last", "best"):
        ours, theirs = (
            load_checkpoint(tmp_path / f / "checkpoints" / f"{name}.pth") for f in ("run", "whole")
        )
        assert ours.step == theirs.step and ours.history == theirs.history
        assert all(torch.equal(ours.model[key], value) for key, value in theirs.model.items())


def test_a_signal_in_a_validation_ends_it_and_the_exit_status_names_it(tmp_path: Path) -> None:
    job = toy_job(tmp_path, steps=4, evaluate_every=0)
    assert isinstance(job.model, ToyModel)
    with pytest.raises(Interrupted, match="after step 4") as caught:
        run_toy(replace(job, validation=_Fails(job.model, how="signal")))
    assert caught.value.exit_status == 143


def test_the_checkpoint_before_a_validation_is_not_the_one_before(tmp_path: Path) -> None:
    run_toy(toy_job(tmp_path, steps=6, evaluate_every=3, save_every=100))
    stored = [load_checkpoint(tmp_path / "checkpoints" / f"{name}.pth") for name in ("last", "previous")]
    assert [one.step for one in stored] == [6, 3]
    assert [len(one.history) for one in stored] == [2, 1]


def _unequal(rank: int, ports: tuple[int, int], folder: Path, n: int, n_scenes: int) -> int:
    torch.set_num_threads(1)
    for resume, port in zip((False, True), ports, strict=True):
        settings = {"steps": 2, "batch_size": n, "evaluate_every": 0, "timeout": 20.0}
        job = toy_job(folder, **settings)
        assert isinstance(job.model, ToyModel)
        job = replace(job, validation=ToyValidation(job.model, n_scenes))
        step = run_toy(job, resume=resume, member=Member(rank, n, port)).step
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return step


@pytest.mark.parametrize(("n", "n_scenes"), [(2, 1), (3, 1), (3, 4)])
def test_a_run_validates_its_last_step_once_and_can_be_resumed(tmp_path: Path, n: int, n_scenes: int) -> None:
    ports = (free_port(), free_port())
    assert run_ranks(_unequal, n, ports, tmp_path, n, n_scenes) == [2] * n
    assert [len(line) for line in _lines(tmp_path) if "evaluation" in line] == [2]


class _Unreadable(ToyScenes):
    """One scene cannot be read by any process that asks for it."""

    def sample(self, index: int, draw: int) -> Any:
        if index == 3:
            raise SceneError("scene three is cut off", fix="prepare it again")
        return super().sample(index, draw)


def _unreadable(rank: int, port: int, folder: Path) -> tuple[str, str | None]:
    torch.set_num_threads(1)
    job = toy_job(folder, 10, scenes=_Unreadable(), max_bad_scenes=0, timeout=20.0)
    with pytest.raises(SceneError) as caught:
        run_toy(job, member=Member(rank, 2, port))
    return caught.value.message, caught.value.fix


def test_a_scene_that_one_process_cannot_read_ends_all_with_its_message(tmp_path: Path) -> None:
    found = run_ranks(_unreadable, 2, free_port(), tmp_path)
    assert found == [("scene three is cut off", "prepare it again")] * 2
