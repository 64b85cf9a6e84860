"""Several processes: a data worker or a rank dies or hangs, two runs meet, their number changes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from ponderv2.scenes.batch import Batch
from ponderv2.training.checkpoint_manager import CheckpointManager
from ponderv2.training.distributed import Member, free_port
from tests.campaigns.faults.children import (
    Child,
    differences,
    ponder,
    ponder_ranks,
    run_program,
    step_of,
    until,
)
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, store, words
from tests.training.toy import ToyModel, ToyScenes, ToyStep, run_toy, toy_job


def worker_killed(folder: Path, n_kills: int) -> Outcome:
    """One of two data workers of `ponder pretrain` is killed, at another moment of a step each time."""
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", "pretrain", steps=60, save_every=2, evaluate_every=0)
    truth = ponder(folder / "log", *words("pretrain", file, scenes, folder, "truth"))
    assert truth.wait() == 0, truth.said
    random = Random(0)
    longest = 0.0
    broken: list[str] = []
    for kill in range(n_kills):
        name = f"run-{kill}"
        run = folder / name
        workers = ["--set", "training.workers=2"]
        child = ponder(folder / f"log-{kill}", *words("pretrain", file, scenes, folder, name, *workers))
        until(lambda run=run: step_of(run) >= 5, child)
        time.sleep(random.uniform(0, 0.05))
        worker = child.children[0]
        begun = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        status = child.wait()
        longest = max(longest, time.monotonic() - begun)
        error = next((line for line in child.said.splitlines() if line.startswith("error:")), "")
        ok = status == 2 and f"process {worker}" in error and "step" in error
        ok &= "Traceback" not in child.said and longest < 60
        found = CheckpointManager(run / "checkpoints").newest()
        ok &= not found.problems and found.checkpoint.step <= step_of(run)
        last = ponder(folder / f"log-{kill}", *words("pretrain", file, scenes, folder, name))
        ok &= last.wait() == 0 and not differences(run, folder / "truth")
        if not ok:
            broken.append(f"kill {kill}: status {status}, {error or child.said[-300:]}")
    said = f"status 2 after at most {longest:.1f} s, worker and step named, checkpoint whole, resumed exactly"
    target = "message within 60 s, checkpoint intact"
    return Outcome("R15", "SIGKILL of a data worker", n_kills, "; ".join(broken) or said, len(broken), target)


def rank_ends(folder: Path, number: int, victim: int) -> Outcome:
    """One of two training processes is killed or stopped; the other must not wait for ever."""
    timeout = 5
    scenes = store(folder / "scenes")
    settings = {"steps": 5000, "save_every": 5, "evaluate_every": 0, "timeout": timeout}
    file = preset(folder / "tiny.yaml", "pretrain", **settings)
    line = words("pretrain", file, scenes, folder, "run")
    ranks = ponder_ranks(folder / "log", 2, *line)
    until(lambda: step_of(folder / "run") >= 6, ranks[0])
    begun = time.monotonic()
    ranks[victim].send(number)
    other = ranks[1 - victim]
    status = other.wait()
    seconds = time.monotonic() - begun
    ranks[victim].send(signal.SIGKILL)
    ranks[victim].wait()
    error = next((line for line in other.said.splitlines() if line.startswith("error:")), other.said[-300:])
    how = "is stopped" if number == signal.SIGSTOP else "has ended"
    ok = status == 2 and f"process {victim} of 2 (pid {ranks[victim].pid}" in error and how in error
    ok &= not CheckpointManager(folder / "run" / "checkpoints").newest().problems
    row, name = ("R17", "SIGSTOP") if number == signal.SIGSTOP else ("R16", "SIGKILL")
    said = f"the other ended with status {status} after {seconds:.1f} s and named the rank"
    target = "ends within the timeout, rank named" if row == "R17" else "all gone within 60 s, resumable"
    return Outcome(row, f"{name} of rank {victim} of 2", 1, said, int(not ok), target)


def restarted(folder: Path, n_kills: int, command: bool = False) -> Outcome:
    """torchrun --max-restarts: the run of a killed rank continues in the same job, to the end.

    With `command` by torchrun as a program, which imports everything anew for each rank; else by the launcher
    inside it, which forks.
    """
    steps = 40
    scenes = store(folder / "scenes")
    settings = {"steps": steps, "save_every": 5, "evaluate_every": 0, "threads": 1, "timeout": 60}
    file = preset(folder / "tiny.yaml", "pretrain", **settings)
    line = words("pretrain", file, scenes, folder, "run")
    run = folder / "run"
    launch = _torchrun if command else _launch
    agent = Child(launch, n_kills, line, log=folder / "log", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    killed, wanted = 0, 2
    while agent.runs and killed < n_kills:
        ranks = agent.children
        if command:
            ranks = [pid for pid in ranks if b"LOCAL_RANK=" in _environment(pid)]
        if step_of(run) >= wanted and len(ranks) >= 2:
            os.kill(ranks[killed % 2], signal.SIGKILL)
            killed += 1
            until(lambda gone=ranks: not set(gone) & set(agent.children) or not agent.runs)
            wanted = step_of(run) + 1
        time.sleep(0.01)
    status = agent.wait()
    last = CheckpointManager(run / "checkpoints").newest().checkpoint.step
    ok = status == 0 and last == steps and killed == n_kills
    said = (
        f"{killed} of {n_kills} restarts in the job, ended with status {status} after step {last} of {steps}"
    )
    name = "torchrun" if command else "torchrun's launcher"
    return Outcome("R16", f"SIGKILL of a rank under {name}", killed, said, int(not ok), "restarts in the job")


def _launch(n_restarts: int, line: list[object]) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="faults",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=n_restarts,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, run_program)(*line)


def _torchrun(n_restarts: int, line: list[object]) -> None:
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={n_restarts}"]
    program = ["-m", "ponder_cli", *map(str, line)]
    os.execve(
        sys.executable, [sys.executable, "-m", *launch, *program], {**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def two_runs(folder: Path) -> Outcome:
    """A second run in the folder of one that works is refused, and takes over when that one is dead."""
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", "pretrain", steps=3000, save_every=2, evaluate_every=0)
    line = words("pretrain", file, scenes, folder, "run")
    first = ponder(folder / "log-1", *line)
    until(lambda: step_of(folder / "run") >= 3, first)
    begun = time.monotonic()
    second = ponder(folder / "log-2", *line)
    status = second.wait()
    seconds = time.monotonic() - begun
    refused = status == 2 and f"process {first.pid} on" in second.said and first.runs
    first.send(signal.SIGKILL)
    first.wait()
    before = step_of(folder / "run")
    third = ponder(folder / "log-3", *line)
    until(lambda: step_of(folder / "run") > before, third)
    third.send(signal.SIGTERM)
    ok = refused and third.wait() == 143
    said = (
        f"refused with status {status} after {seconds:.1f} s, pid and host named; lock of the dead taken over"
    )
    return Outcome(
        "R18", "two runs in one folder", 1, said, int(not ok), "refused, status 2; stale lock taken over"
    )


class _Notes(ToyModel):
    """Writes the scenes of every step into a file of its process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, batch: Batch, generator: torch.Generator) -> ToyStep:
        with self.path.open("a") as stream:
            stream.write(json.dumps(batch.names) + "\n")
        return super().forward(batch, generator)


def _noted(rank: int, n: int, port: int, folder: Path, settings: dict[str, Any]) -> int:
    torch.set_num_threads(1)
    path = folder / f"order-{rank}"
    job = toy_job(folder / "run", scenes=_Named(8), evaluate_every=0, **settings)
    return run_toy(replace(job, model=_Notes(path)), resume=True, member=Member(rank, n, port)).step


class _Named(ToyScenes):
    """Eight scenes whose names tell the pass."""

    def sample(self, index: int, draw: int) -> Batch:
        batch = super().sample(index, draw)
        return replace(batch, names=(f"{index}/{draw}",))


def order(folder: Path, workers: tuple[int, ...], processes: tuple[int, ...]) -> Outcome:
    """Three passes of 8 scenes, in parts with other numbers of workers or processes."""
    batch_size, passes = 4, 3
    steps = passes * 8 // batch_size
    ends = [steps * (part + 1) // len(processes) for part in range(len(processes))]
    seen: list[str] = []
    for end, n, n_workers in zip(ends, processes, workers, strict=True):
        settings = {"steps": end, "batch_size": batch_size, "workers": n_workers, "save_every": 1}
        port = free_port()
        ranks = [
            Child(_noted, rank, n, port, folder, settings, log=folder / f"log-{rank}") for rank in range(n)
        ]
        assert [rank.wait() for rank in ranks] == [0] * n, ranks[0].said
        parts = [(folder / f"order-{rank}").read_text().splitlines() for rank in range(n)]
        for row in zip(*parts, strict=True):
            seen += [name for part in row for name in json.loads(part)]
        for rank in range(n):
            (folder / f"order-{rank}").unlink()
    truth = [f"{place.index}/{place.draw}" for place in _whole(steps, batch_size)]
    duplicates = len(seen) - len(set(seen))
    ok = seen == truth and duplicates == 0 and len(seen) == passes * 8
    how = f"workers {workers}, processes {processes}"
    said = (
        f"{len(seen)} samples of {passes} passes: {duplicates} twice, {passes * 8 - len(set(seen))} missing"
    )
    return Outcome("R8", f"resumed with {how}", len(ends) - 1, said, int(not ok), "0 duplicates, 0 gaps")


def _whole(steps: int, batch_size: int) -> list[Any]:
    from ponderv2.training.sampler import RankShare, Sampler, Schedule

    batches = Sampler(Schedule((8,)), 3, RankShare(batch_size, 1, 0), 0, steps)
    return [place for batch in batches for place in batch]


def deterministic(folder: Path, command: str, workers: tuple[int, ...] = (0, 1, 2)) -> Outcome:
    """`--deterministic` runs with 0, 1, 2 workers and one of them again: bit-equal."""
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", command, steps=6, evaluate_every=3)
    more = ["--deterministic", "--set", "training.threads=1"]
    different = []
    runs = [*workers, workers[0]]
    for number, n in enumerate(runs):
        line = words(command, file, scenes, folder, f"run{number}", *more, "--set", f"training.workers={n}")
        child = ponder(folder / "log", *line)
        assert child.wait() == 0, child.said
        different += differences(folder / f"run{number}", folder / "run0")
    said = f"{len(runs)} runs with {', '.join(map(str, runs))} workers: weights, metrics and images bit-equal"
    return Outcome(
        "R19", f"--deterministic {command}", len(runs) - 1, said, len(different), "identical on CPU"
    )


def clock_jumps(folder: Path) -> Outcome:
    """Every file of a run gets a time in the future, the zone changes, and the run is resumed."""
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", "pretrain", steps=6, save_every=2, evaluate_every=0)
    line = words("pretrain", file, scenes, folder, "run")
    truth = ponder(folder / "log", *words("pretrain", file, scenes, folder, "truth"))
    assert truth.wait() == 0, truth.said
    child = ponder(folder / "log", *line)
    until(lambda: step_of(folder / "run") >= 3, child)
    child.send(signal.SIGKILL)
    child.wait()
    for number, path in enumerate(sorted((folder / "run").rglob("*"))):
        when = 4_000_000_000 if number % 2 else 1_000
        os.utime(path, (when, when))
    last = Child(_in_another_zone, line, log=folder / "log", TZ="Pacific/Kiritimati")
    ok = last.wait() == 0 and not differences(folder / "run", folder / "truth")
    said = "resumed exactly"
    return Outcome(
        "R22", "times of files in 1970 and 2096, another time zone", 1, said, int(not ok), "no effect"
    )


def _in_another_zone(line: list[object]) -> None:
    time.tzset()
    run_program(*line)
