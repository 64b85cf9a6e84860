"""Scenes that are damaged while a run is on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

from tests.campaigns.faults.children import Child, differences, lines, ponder, ponder_ranks, step_of, until
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, store, words

DAMAGES = ("cut", "missing", "nan", "picture")


def damage(scenes: Path, name: str, kind: str) -> None:
    """Makes a scene of the training split unreadable."""
    import numpy as np

    folder = scenes / "train" / name
    if kind == "cut":
        os.truncate(folder / "coord.npy", 100)
    elif kind == "missing":
        (folder / "frames" / "cameras.npz").unlink()
        (folder / "coord.npy").unlink()
    elif kind == "nan":
        coord = np.load(folder / "coord.npy")
        coord[7, 1] = np.nan
        np.save(folder / "coord.npy", coord)
    else:
        for path in (folder / "frames" / "depth").iterdir():
            os.truncate(path, 20)


def _line(folder: Path, file: Path, scenes: Path, name: str, *more: object) -> list[object]:
    return words("pretrain", file, scenes, folder, name, "--set", "data.cache_megabytes=0", *more)


def damaged_in_an_epoch(folder: Path, kind: str) -> Outcome:
    """One of four scenes breaks after three steps. The run continues and lists it."""
    scenes = store(folder / "scenes", 4)
    file = preset(folder / "tiny.yaml", "pretrain", steps=20, save_every=3, evaluate_every=0)
    child = ponder(folder / "log", *_line(folder, file, scenes, "run"))
    until(lambda: step_of(folder / "run") >= 3, child)
    damage(scenes, "room1", kind)
    status = child.wait()
    listed = json.loads((folder / "run" / "bad_scenes.json").read_text())
    ok = (
        status == 0
        and list(listed) == ["room1"]
        and "room1" in child.said
        and len(lines(folder / "run")) >= 20
    )
    said = "another scene stood in, the run ended as planned, the scene is named and listed with the reason"
    return Outcome(
        "scene", f"damaged ({kind}) in the middle of an epoch", 1, said, int(not ok), "the run continues"
    )


def same_choice(folder: Path, n_kills: int = 2) -> Outcome:
    """The same scene stands in with workers, after kills and in two processes."""
    numbers = random.Random(1)
    scenes = store(folder / "scenes", 4)
    damage(scenes, "room2", "cut")
    file = preset(folder / "tiny.yaml", "pretrain", steps=8, save_every=2, evaluate_every=0)
    truth = ponder(folder / "log", *_line(folder, file, scenes, "truth"))
    assert truth.wait() == 0, truth.said
    more = ponder(folder / "log", *_line(folder, file, scenes, "workers", "--set", "training.workers=2"))
    assert more.wait() == 0, more.said
    killed = 0
    while killed < n_kills:
        child = ponder(folder / "log", *_line(folder, file, scenes, "killed"))
        until(lambda: step_of(folder / "killed") >= numbers.randint(1, 5), child)
        child.send(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert ponder(folder / "log", *_line(folder, file, scenes, "killed")).wait() == 0
    ranks = ponder_ranks(folder / "log", 2, *_line(folder, file, scenes, "two"))
    two = [rank.wait() for rank in ranks]
    losses = [[line["loss"] for line in lines(folder / name) if "loss" in line] for name in ("truth", "two")]
    near = all(abs(a - b) < 1e-3 * abs(a) for a, b in zip(*losses, strict=True))
    lists = {(folder / name / "bad_scenes.json").read_text() for name in ("truth", "workers", "two")}
    ok = two == [0, 0] and near and len(lists) == 1
    ok &= not differences(folder / "workers", folder / "truth")
    ok &= not differences(folder / "killed", folder / "truth")
    said = f"2 workers and {n_kills} kills: identical; 2 processes: the same scenes, losses equal to rounding"
    return Outcome(
        "scene", "damaged from the start, other workers, kills, processes", 4, said, int(not ok), "same"
    )


def too_many(folder: Path) -> Outcome:
    """More damaged scenes than allowed end the run with their names; what was saved stays."""
    scenes = store(folder / "scenes", 4)
    file = preset(
        folder / "tiny.yaml", "pretrain", steps=20, save_every=1, evaluate_every=0, max_bad_scenes=1
    )
    child = ponder(folder / "log", *_line(folder, file, scenes, "run"))
    until(lambda: step_of(folder / "run") >= 2, child)
    for name in ("room0", "room3"):
        damage(scenes, name, "cut")
    status = child.wait()
    error = next((line for line in child.said.splitlines() if line.startswith("error:")), "")
    ok = status == 2 and "room0" in error and "room3" in error and "Traceback" not in child.said
    return Outcome(
        "scene", "2 damaged, 1 allowed", 2, error.removeprefix("error: ").split(";")[0], int(not ok), "named"
    )


def read_only(folder: Path) -> Outcome:
    """Scenes are only read: their folder may be read-only, and is the same afterwards."""
    scenes = store(folder / "scenes", 2)
    before = {path: path.read_bytes() for path in scenes.rglob("*") if path.is_file()}
    for path in [scenes, *scenes.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    file = preset(folder / "tiny.yaml", "pretrain", steps=2)
    child = Child(_without_rights, _line(folder, file, scenes, "run"), log=folder / "log")
    status = child.wait()
    for path in [scenes, *scenes.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    after = {path: path.read_bytes() for path in scenes.rglob("*") if path.is_file()}
    shutil.rmtree(scenes)
    return Outcome(
        "R4", "read-only scenes", 1, f"status {status}", int(status != 0 or before != after), "works"
    )


def _without_rights(line: list[object]) -> None:
    from tests.campaigns.faults.children import run_program
    from tests.campaigns.faults.rights import obey_permissions

    obey_permissions()
    run_program(*line)
