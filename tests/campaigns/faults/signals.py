"""SIGINT, SIGTERM and SIGUSR1 at random steps: saved, said, left with its own status, resumed exactly."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from ponderv2.training.checkpoint_manager import CheckpointManager
from tests.campaigns.faults.children import Child, differences, ponder, ponder_ranks, step_of, until
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, store, words
from tests.training.toy import ToyScenes, run_toy, toy_job

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


def signalled(folder: Path, n_signals: int, seed: int = 0, command: str = "pretrain") -> Outcome:
    """Each run gets a signal after a random step, in turn one of the three, and is resumed."""
    numbers, steps = random.Random(seed), 40
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", command, steps=steps, save_every=1000, evaluate_every=0)
    truth = ponder(folder / "log", *words(command, file, scenes, folder, "truth"))
    assert truth.wait() == 0, truth.said
    sent = lost = 0
    slowest = 0.0
    run = 0
    while sent < n_signals:
        name, run = f"run{run}", run + 1
        for number in STATUS:
            if sent == n_signals:
                break
            place = folder / name
            wanted = step_of(place) + numbers.randint(1, 5)
            child = ponder(folder / f"log-{sent}", *words(command, file, scenes, folder, name))
            until(lambda w=wanted, p=place: step_of(p) >= w, child)
            begun = time.monotonic()
            child.send(number)
            status = child.wait()
            slowest = max(slowest, time.monotonic() - begun)
            sent += 1
            saved = CheckpointManager(place / "checkpoints").newest().checkpoint.step
            reported = "--resume" in child.said and f"after step {saved}" in child.said
            lost += not (status == STATUS[number] and reported and saved == step_of(place) < steps)
        last = ponder(folder / "log", *words(command, file, scenes, folder, name))
        assert last.wait() == 0, last.said
        lost += bool(differences(folder / name, folder / "truth"))
    return Outcome(
        "R7",
        "SIGINT, SIGTERM and SIGUSR1 in turn after random steps",
        sent,
        f"status 130, 143 and 138, saved and left within {slowest:.1f} s, 0 steps lost, resumed exactly",
        lost,
        "checkpoint within 30 s or one step; status 130, 143, 138; resume identical",
    )


def ranks_signalled(folder: Path) -> Outcome:
    """Of two processes under a launcher only the second gets SIGUSR1: both stop after the same step."""
    scenes = store(folder / "scenes")
    file = preset(folder / "tiny.yaml", "pretrain", steps=400, save_every=1000, evaluate_every=0)
    line = words("pretrain", file, scenes, folder, "run")
    ranks = ponder_ranks(folder / "log", 2, *line)
    until(lambda: step_of(folder / "run") >= 3, ranks[0])
    ranks[1].send(signal.SIGUSR1)
    statuses = [rank.wait() for rank in ranks]
    saved = CheckpointManager(folder / "run" / "checkpoints").newest().checkpoint.step
    kept = statuses == [138, 138] and saved == step_of(folder / "run")
    said = f"statuses {statuses}, saved at step {saved}"
    return Outcome("R7", "SIGUSR1 to one of two processes", 1, said, int(not kept), "both save and leave")


class _Slow(ToyScenes):
    """Takes a minute for a scene."""

    def sample(self, index: int, draw: int) -> Any:
        (self.begun / f"{index}").touch()
        time.sleep(60)
        return super().sample(index, draw)

    def __init__(self, begun: Path) -> None:
        super().__init__()
        self.begun = begun


def _slow_run(folder: Path) -> None:
    try:
        run_toy(toy_job(folder / "run", 5, scenes=_Slow(folder)))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def interrupted_twice(folder: Path) -> Outcome:
    """The second Ctrl-C does not wait for the end of the step."""
    child = Child(_slow_run, folder, log=folder / "log")
    until(lambda: [path for path in folder.iterdir() if path.name.isdigit()], child)
    child.send(signal.SIGINT)
    time.sleep(0.5)
    waited = child.runs
    begun = time.monotonic()
    child.send(signal.SIGINT)
    status = child.wait()
    seconds = time.monotonic() - begun
    said = f"the first is remembered, the second ends it after {seconds:.2f} s with status {status}"
    return Outcome(
        "R7", "SIGINT twice in a step of a minute", 1, said, int(not waited or status != 130), "at once"
    )
