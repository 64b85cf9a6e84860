"""SIGKILL: at random moments of every command that takes long, and at each boundary of a save."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ponderv2.errors import CheckpointError
from ponderv2.io.files import remove_leftovers
from ponderv2.training.checkpoint import Checkpoint
from ponderv2.training.checkpoint_manager import CheckpointManager, Retention
from tests.campaigns.faults.children import Child, differences, leftovers, ponder, step_of
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, store, words
from tests.training.processes import start

SAVE_EVERY = 2


def training_killed(folder: Path, command: str, n_kills: int, n_in_saves: int, seed: int = 0) -> Outcome:
    """Runs are killed and resumed until they end; each must end as one that nobody killed."""
    numbers = random.Random(seed)
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", command, steps=8, save_every=SAVE_EVERY, evaluate_every=4)

    def line(name: str) -> list[object]:
        return words(command, file, scenes, folder, name)

    begun = time.monotonic()
    truth = ponder(folder / "log", *line("truth"))
    assert truth.wait() == 0, truth.said
    whole = time.monotonic() - begun
    killed = in_saves = lost = runs = 0
    unreadable = most = 0
    wrong: list[str] = []
    while killed < n_kills or in_saves < n_in_saves:
        name = f"run{runs}"
        runs += 1
        while True:
            inside = in_saves < n_in_saves
            if inside:
                child = Child(_dies_in_a_save, numbers.randrange(1, 30), line(name), log=folder / "log")
                status = child.wait()
            else:
                status = ponder(folder / "log", *line(name)).kill_after(numbers.uniform(0.02, 1.1) * whole)
            if status == 0:
                break
            assert status == -signal.SIGKILL, (folder / "log").read_text()
            killed += 1
            in_saves += inside
            lag, readable = _state(folder / name)
            unreadable += not readable
            most = max(most, lag)
            if killed >= n_kills and in_saves >= n_in_saves:
                last = ponder(folder / "log", *line(name))
                assert last.wait() == 0, last.said
                break
        different = differences(folder / name, folder / "truth") + leftovers(folder / name)
        lost += bool(different)
        wrong += different
    lost += unreadable + (most > SAVE_EVERY)
    ends = f"with other {', '.join(wrong)}" if wrong else "as the undisturbed one"
    return Outcome(
        "R1",
        f"kill -9 of {command}: {killed - in_saves} at random moments, {in_saves} inside a save",
        killed,
        f"{runs} runs ended {ends}; {unreadable} unreadable checkpoints; at most {most} steps done again",
        lost,
        f"all resume; 0 unreadable; at most {SAVE_EVERY} steps lost; results identical",
    )


def _state(run: Path) -> tuple[int, bool]:
    """Steps since the newest checkpoint, and whether it could be read."""
    manager = CheckpointManager(run / "checkpoints")
    if manager.is_empty():
        return step_of(run), True
    try:
        found = manager.newest()
    except CheckpointError:
        return 0, False
    return step_of(run) - found.checkpoint.step, not found.problems


def evaluation_killed(folder: Path, n_kills: int, seed: int = 0) -> Outcome:
    """`ponder eval` is killed and started again; the numbers are those of one that nobody killed."""
    numbers = random.Random(seed)
    scenes = store(folder / "scenes", 4)
    file = preset(folder / "tiny.yaml", "finetune", steps=2, evaluate_every=0)
    made = ponder(folder / "log", *words("finetune", file, scenes, folder, "model"))
    assert made.wait() == 0, made.said

    def line(name: str) -> list[object]:
        place = ["--out", folder / name, "--json", folder / f"{name}.json"]
        return ["eval", folder / "model", "--data", scenes, "--tta", "fragments", *place]

    begun = time.monotonic()
    truth = ponder(folder / "log", *line("truth"))
    assert truth.wait() == 0, truth.said
    whole = time.monotonic() - begun
    killed = lost = runs = 0
    while killed < n_kills:
        name = f"run{runs}"
        runs += 1
        while killed < n_kills:
            status = ponder(folder / "log", *line(name)).kill_after(numbers.uniform(0.02, 1.6) * whole)
            if status == 0:
                break
            assert status == -signal.SIGKILL, (folder / "log").read_text()
            killed += 1
        assert ponder(folder / "log", *line(name)).wait() == 0
        lost += _result(folder / f"{name}.json") != _result(folder / "truth.json")
        ours, theirs = (folder / one / "confusion.png" for one in (name, "truth"))
        lost += ours.read_bytes() != theirs.read_bytes()
    said = f"{runs} evaluations ended with the numbers and images of the undisturbed one"
    return Outcome("R1", "kill -9 of eval", killed, said, lost, "results identical")


def _result(path: Path) -> Any:
    import json

    values = json.loads(path.read_text())
    return values["metrics"], values["classes"]


BOUNDARIES = {"write", "flush", "fsync", "link", "replace", "rename", "open", "close", "unlink", "mkdir"}


def _dies_at(boundary: int) -> None:
    """Kills this process before or after the n-th call into the system that a save makes, whichever it is."""
    left = [boundary]

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event not in ("c_call", "c_return") or getattr(called, "__name__", "") not in BOUNDARIES:
            return
        names: list[str] = []
        caller: FrameType | None = frame
        while caller is not None:
            names.append(caller.f_code.co_name)
            caller = caller.f_back
        if "put" not in names or "_archive" in names:
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def _dies_in_a_save(boundary: int, line: list[object]) -> None:
    from tests.campaigns.faults.children import run_program

    _dies_at(boundary)
    run_program(*line)


def checkpoint(step: int) -> Checkpoint:
    """Weights that tell the step."""
    return Checkpoint("toy", {"model": {}}, {"weight": torch.full((200, 50), float(step))}, step=step)


def _save(folder: Path, step: int, boundary: int) -> None:
    if boundary:
        _dies_at(boundary)
    CheckpointManager(folder, Retention((step,))).put(checkpoint(step), is_best=True)
    sys.setprofile(None)


def saves_killed(folder: Path, boundaries: Callable[[int], bool] = lambda _: True) -> Outcome:
    """A save is killed before and after each of its calls into the system."""
    killed = lost = 0
    boundary = 0
    while True:
        boundary += 1
        if not boundaries(boundary):
            continue
        place = folder / f"{boundary}"
        for step in (1, 2):
            _save(place, step, 0)
        child = start(_save, place, 3, boundary)
        child.join(timeout=300)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
        found = CheckpointManager(place).newest()
        manager = CheckpointManager(place)
        whole = found.checkpoint.step in (2, 3) and not found.problems and manager.last.exists()
        value = float(found.checkpoint.model["weight"].mean())
        remove_leftovers(place)
        _save(place, 4, 0)
        lost += not (whole and value == found.checkpoint.step and manager.newest().checkpoint.step == 4)
        lost += bool([path for path in place.iterdir() if path.name.startswith(".")])
    said = "the checkpoint before or the new one was there and whole every time; nothing was left over"
    target = "the previous or the new checkpoint always loads; 0 leftovers"
    return Outcome("R2", "kill -9 at every boundary of a save", killed, said, lost, target)
