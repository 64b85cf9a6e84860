"""The loop on a toy: resume after real kills, signals, numbers that are not finite, two processes, locks."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponderv2.errors import Interrupted, OutputError, TrainingError
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port, start_together
from ponderv2.training.run_lock import OWNER_FILE, RunLock
from tests.training.processes import run_ranks, start
from tests.training.toy import (
    ToyModel,
    ToyScenes,
    ToyValidation,
    _die_inside_a_save,
    run_toy,
    toy_job,
    train_together,
)

CLOCKS = {"seconds", "waited", "points_per_second", "memory_gib"}


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Metrics of a run without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def _assert_same_end(folder: Path, truth: Path) -> None:
    assert _lines(folder) == _lines(truth)
    ours, theirs = (load_checkpoint(f / "checkpoints" / "last.pth") for f in (folder, truth))
    assert ours.step == theirs.step and ours.history == theirs.history
    assert all(torch.equal(ours.model[name], value) for name, value in theirs.model.items())
    for key, entry in theirs.optimiser["state"].items():  # type: ignore[index]
        assert torch.equal(ours.optimiser["state"][key]["momentum_buffer"], entry["momentum_buffer"])  # type: ignore[index]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Runs are compared bit by bit, so all of them use one thread: sums differ with the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _resume(folder: Path, steps: int, dies_at_sync: int = 0) -> None:
    torch.set_num_threads(1)
    if dies_at_sync:
        _die_inside_a_save(dies_at_sync)
    run_toy(toy_job(folder, steps), resume=True)


def _kill_after(child: Any, seconds: float) -> int:
    child.join(timeout=seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join(timeout=600)
    return child.exitcode


def test_a_run_killed_at_random_moments_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    steps, numbers, n_kills = 20, random.Random(1), 0
    _resume(tmp_path / "whole", steps)
    for _ in range(12):
        status = _kill_after(start(_resume, tmp_path / "killed", steps), numbers.uniform(0.03, 0.35))
        assert status in (0, -signal.SIGKILL)
        n_kills += status != 0
        if status == 0:
            break
    _resume(tmp_path / "killed", steps)
    assert n_kills > 0
    _assert_same_end(tmp_path / "killed", tmp_path / "whole")


def test_a_run_killed_inside_each_of_its_saves_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    """fsync is called twice a save: before the rename (file) and after it (folder)."""
    steps = 12
    _resume(tmp_path / "whole", steps)
    for call in (1, 2, 3, 4, 1, 2, 5):
        child = start(_resume, tmp_path / "killed", steps, call)
        child.join(timeout=600)
        assert child.exitcode in (0, -signal.SIGKILL)
    _resume(tmp_path / "killed", steps)
    _assert_same_end(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").glob("*.tmp"))
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"workers": 2}])
def test_workers_and_the_moment_of_resuming_do_not_change_anything(
    tmp_path: Path, settings: dict[str, int]
) -> None:
    run_toy(toy_job(tmp_path / "whole", 6, accumulate=settings.get("accumulate", 1)))
    torch.manual_seed(99)
    run_toy(_shortened(tmp_path / "parts", 6, stop=4, **settings))
    run_toy(toy_job(tmp_path / "parts", 6, **settings), resume=True)
    assert _lines(tmp_path / "parts")[-1] == _lines(tmp_path / "whole")[-1]
    ends = [
        load_checkpoint(tmp_path / name / "checkpoints" / "last.pth").model for name in ("parts", "whole")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


class _StopsAt(ToyScenes):
    """Sends this process a signal when a scene is asked for the n-th time."""

    def __init__(self, asked: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.asked, self.number, self.count, self.process = asked, number, 0, os.getpid()

    def sample(self, index: int, draw: int) -> Any:
        self.count += 1
        if self.count == self.asked:
            os.kill(self.process, self.number)
        return super().sample(index, draw)


def _shortened(folder: Path, steps: int, stop: int, **settings: int) -> Any:
    """A job that was already interrupted after `stop` steps: it is run, and the rest is left."""
    if not settings.get("workers"):
        with pytest.raises(Interrupted):
            run_toy(toy_job(folder, steps, scenes=_StopsAt(2 * stop), **settings))
        assert load_checkpoint(folder / "checkpoints" / "last.pth").step == stop
    return toy_job(folder, steps, **settings)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_continue(tmp_path: Path, number: int, status: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    run_toy(toy_job(tmp_path / "whole", 8))
    with pytest.raises(Interrupted, match="after step 3") as caught:
        run_toy(toy_job(tmp_path / "run", 8, scenes=_StopsAt(6, number)))
    assert caught.value.exit_status == status and "--resume" in str(caught.value.fix)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pth").step == 3
    run_toy(toy_job(tmp_path / "run", 8), resume=True)
    _assert_same_end(tmp_path / "run", tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is before


class _BadOnce(ToyScenes):
    """One scene in one draw holds NaN."""

    def sample(self, index: int, draw: int) -> Any:
        return ToyScenes(self.n_scenes, bad=(index,) if (index, draw) == (2, 0) else ()).sample(index, draw)


def test_a_single_bad_step_changes_neither_weights_nor_statistics(tmp_path: Path) -> None:
    job = toy_job(tmp_path, 5, scenes=_BadOnce(), save_every=1, keep_steps=(1, 2, 3, 4, 5))
    outcome = run_toy(job)
    assert outcome.skipped_steps == 1
    losses = [line["loss"] for line in _lines(tmp_path) if "loss" in line]
    bad = losses.index(None) + 1
    folder = tmp_path / "checkpoints"
    assert bad > 1, "choose a seed whose first step is good"
    before, after = (load_checkpoint(folder / f"step-{step}.pth") for step in (bad - 1, bad))
    assert all(torch.equal(before.model[name], after.model[name]) for name in before.model)
    assert "feature of scene2" in (tmp_path / "log.txt").read_text()
    assert None not in losses[bad:]


def test_bad_numbers_in_every_step_end_the_run_and_name_the_scenes(tmp_path: Path) -> None:
    job = toy_job(tmp_path, 20, scenes=ToyScenes(bad=range(5)), max_bad_steps=3)
    with pytest.raises(TrainingError, match=r"3 steps in a row .* feature of scene\d"):
        run_toy(job)
    stored = load_checkpoint(tmp_path / "checkpoints" / "last.pth").model
    assert all(bool(torch.isfinite(value).all()) for value in stored.values() if value.is_floating_point())


def _rank_of_two(rank: int, port: int, folder: Path, settings: dict[str, Any]) -> bool:
    torch.set_num_threads(1)
    train_together(Member(rank, 2, port), folder, settings)
    return True


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_losses_of_one(tmp_path: Path, accumulate: int) -> None:
    settings = {"steps": 15, "batch_size": 4, "accumulate": accumulate, "clip_gradient": 1.0}
    run_ranks(_rank_of_two, 2, free_port(), tmp_path / "two", settings)
    alone = toy_job(tmp_path / "one", **(settings | {"accumulate": 1}))
    if accumulate == 1:
        run_toy(alone)
        one, two = ([x["loss"] for x in _lines(tmp_path / n) if "loss" in x] for n in ("one", "two"))
        assert two == pytest.approx(one, rel=2e-5)
        ends = [load_checkpoint(tmp_path / n / "checkpoints" / "last.pth").model for n in ("one", "two")]
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5)
    else:
        assert load_checkpoint(tmp_path / "two" / "checkpoints" / "last.pth").step == 15


def test_processes_that_we_start_ourselves_train_together(tmp_path: Path) -> None:
    settings = {"steps": 3, "batch_size": 2}
    start_together(2, train_together, tmp_path / "two", settings)
    run_toy(toy_job(tmp_path / "one", **settings))
    one, two = ([x["loss"] for x in _lines(tmp_path / n) if "loss" in x] for n in ("one", "two"))
    assert two == pytest.approx(one, rel=2e-5)
    assert "MASTER_PORT" not in os.environ


def _hold(folder: Path) -> None:
    lock = RunLock(folder)
    time.sleep(60)
    lock.release()


def test_a_second_run_in_one_folder_is_refused_and_a_dead_one_taken_over(tmp_path: Path) -> None:
    child = start(_hold, tmp_path)
    while not (tmp_path / OWNER_FILE).exists():
        time.sleep(0.01)
    with pytest.raises(OutputError, match=f"process {child.pid} on"):
        RunLock(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    child.join(timeout=10)
    RunLock(tmp_path).release()
    assert not (tmp_path / OWNER_FILE).exists()


def _hold_with_a_worker(folder: Path) -> None:
    lock = RunLock(folder)
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    (folder / "worker").write_text(str(worker))
    time.sleep(60)
    lock.release()


def test_the_lock_of_a_killed_run_is_free_while_its_forked_workers_live(tmp_path: Path) -> None:
    child = start(_hold_with_a_worker, tmp_path)
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        time.sleep(0.01)
    worker = int((tmp_path / "worker").read_text())
    try:
        with pytest.raises(OutputError, match=f"process {child.pid} on"):
            RunLock(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.join(timeout=10)
        os.kill(worker, 0)  # lives
        RunLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_still_lets_one_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="flock not supported"):
        lock = RunLock(tmp_path)
    with pytest.raises(OutputError, match=f"process {os.getpid()} on") as caught, pytest.warns(UserWarning):
        RunLock(tmp_path)
    assert f"delete {tmp_path / 'run.lock'}" in (caught.value.fix or "")
    lock.release()


def test_half_precision_of_the_forward_pass_trains(tmp_path: Path) -> None:
    outcome = run_toy(toy_job(tmp_path, 6, precision="bf16", bf16_on_cpu=True))
    assert outcome.step == 6 and outcome.skipped_steps == 0


def test_a_validation_without_a_number_is_not_the_bar_for_later_ones(tmp_path: Path) -> None:
    job = toy_job(tmp_path, 6, evaluate_every=2)
    found = {2: float("nan"), 4: 0.5, 6: 0.25}

    class Fixed(ToyValidation):
        def measure(self, number: int, step: int, logger: object) -> float:
            return found[step]

        def metrics(self, results: Sequence[float]) -> dict[str, float]:
            return {job.best_metric: results[0]}

    job = replace(job, validation=Fixed(ToyModel()), higher_is_better=True)
    run_toy(job)
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pth").step == 4


def test_curves_and_environment_are_written(tmp_path: Path) -> None:
    run_toy(toy_job(tmp_path, 2, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert json.loads((tmp_path / "environment.json").read_text())["versions"]["torch"] == torch.__version__


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        run_toy(toy_job(tmp_path / "file" / "run"))


def test_a_run_without_steps_saves_and_validates_its_start(tmp_path: Path) -> None:
    job = toy_job(tmp_path, 0)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    outcome = run_toy(job)
    assert outcome.step == 0 and outcome.best is not None and outcome.history[0]["step"] == 0
    stored = load_checkpoint(outcome.last)
    assert all(torch.equal(stored.model[name], value) for name, value in before.items())
    again = run_toy(toy_job(tmp_path, 0), resume=True)
    assert again.history == outcome.history
