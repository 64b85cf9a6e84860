"""Disks that are full, folders that may not be written, files that are damaged."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path
from typing import Any

from ponderv2.errors import CheckpointError
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.checkpoint_manager import CheckpointManager, Retention
from tests.campaigns.faults.children import Child, leftovers, ponder, run_program, small_disk, step_of, until
from tests.campaigns.faults.kills import checkpoint
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, store, words
from tests.campaigns.faults.rights import obey_permissions


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _told(child: Child) -> str:
    """The one error; empty where there is another number of them, or a traceback."""
    errors = [line for line in child.said.splitlines() if line.startswith("error:")]
    return errors[0] if len(errors) == 1 and "Traceback" not in child.said else ""


def _model(folder: Path, command: str = "pretrain", **settings: Any) -> tuple[Path, Path]:
    """Scenes and a finished run of one step."""
    scenes = store(folder / "scenes", 2)
    file = preset(folder / "tiny.yaml", command, steps=1, evaluate_every=0, **settings)
    child = ponder(folder / "log", *words(command, file, scenes, folder, "model"))
    assert child.wait() == 0, child.said
    return scenes, folder / "model"


def full_while_training(folder: Path) -> Outcome:
    """A run on a small disk that something else fills; without the right to mount one, files may not grow."""
    scenes = store(folder / "scenes", 2)
    settings = {"steps": 4000, "save_every": 3, "evaluate_every": 0, "tensorboard": True}
    file = preset(folder / "tiny.yaml", "pretrain", **settings)
    with small_disk(folder / "disk", 4_000_000) as mounted:
        line = words("pretrain", file, scenes, folder / "disk", "run")
        run = folder / "disk" / "run"
        if mounted:
            child = ponder(folder / "log", *line)
            until(lambda: step_of(run) >= 7, child)
            _fill(folder / "disk" / "other")
        else:
            assert ponder(folder / "log-0", *line, "--set", "training.steps=4").wait() == 0
            child = Child(_with_little_files, 20_000, line, log=folder / "log")
        status = child.wait()
        error = _told(child)
        found = CheckpointManager(run / "checkpoints").newest()
        ok = status == 2 and "cannot write" in error and "needed" in error and "free" in error
        ok &= not found.problems and not leftovers(run)
        (folder / "disk" / "other").unlink(missing_ok=True)
        more = ["--set", f"training.steps={found.checkpoint.step + 1}"]
        ok &= ponder(folder / "log-2", *line, *more).wait() == 0
    where = "a tmpfs of 4 MB" if mounted else "RLIMIT_FSIZE"
    said = f"status {status}, old checkpoint whole, no half file, resumed once there was space"
    return Outcome("R3", f"disk full during a run ({where})", 1, said, int(not ok), "old intact, one message")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 12, 1 << 8, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue


def full_for(folder: Path, command: str) -> Outcome:
    """`ponder render`, `reconstruct` or `eval` where no file may get larger than a few kilobytes."""
    kind = "finetune" if command == "eval" else "pretrain"
    scenes, model = _model(folder, kind)
    out = folder / "out"
    line: list[object] = [command, model, "--data", scenes, "--out", out]
    if command == "render":
        line += ["--scene", "room0", "--set", "width=32", "--split", "train"]
    elif command == "reconstruct":
        line[-1] = out / "mesh.ply"
        line += [
            "--scene",
            "room0",
            "--split",
            "train",
            "--resolution",
            "24",
            "--set",
            "crop_to_observed=false",
        ]
    before = _contents(model)
    plenty = ponder(folder / "log", *line)
    assert plenty.wait() == 0, plenty.said
    whole = _contents(out)
    child = Child(
        _with_little_files,
        _sizes(whole),
        [*line, *(["--again"] if command == "eval" else [])],
        log=folder / "log-1",
    )
    status, error = child.wait(), _told(child)
    ok = status == 2 and "cannot write" in error and "needed" in error
    ok &= _contents(out) == whole and _contents(model) == before and not leftovers(out)
    said = f"status {status}, files of before unchanged, no half file"
    return Outcome("R3", f"disk full during {command}", 1, said, int(not ok), "old state intact, one message")


def _sizes(files: dict[str, bytes]) -> int:
    """Less than the largest file."""
    return max(len(data) for data in files.values()) // 2


def _with_little_files(most: int, line: list[object]) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    run_program(*line)


def checkpoint_too_large(folder: Path) -> Outcome:
    """A resumed run whose checkpoint is larger than files may be (RLIMIT_FSIZE)."""
    scenes, model = _model(folder)
    last = model / "checkpoints" / "last.pth"
    before = last.read_bytes()
    file = preset(folder / "tiny.yaml", "pretrain", steps=2, evaluate_every=0)
    child = Child(
        _with_little_files, 20_000, words("pretrain", file, scenes, folder, "model"), log=folder / "log-1"
    )
    status, error = child.wait(), _told(child)
    ok = status == 2 and str(last) in error and "needed" in error and "free" in error
    ok &= last.read_bytes() == before and load_checkpoint(last).step == 1 and not leftovers(model)
    said = f"status {status}, old checkpoint unchanged"
    return Outcome(
        "R3", "no space for a checkpoint", 1, said, int(not ok), "old intact; bytes needed and free said"
    )


def _obedient(line: list[object]) -> None:
    obey_permissions()
    run_program(*line)


def not_allowed(folder: Path) -> list[Outcome]:
    """The output folder is read-only from the start, then loses its permission during a run."""
    scenes = store(folder / "scenes", 2)
    file = preset(folder / "tiny.yaml", "pretrain", steps=4000, save_every=2, evaluate_every=0)
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    child = Child(_obedient, words("pretrain", file, scenes, closed, "run"), log=folder / "log-1")
    status = child.wait()
    ok = status == 2 and "cannot write" in _told(child) and not list(closed.iterdir())
    first = Outcome(
        "R4", "read-only output", 1, f"status {status} before step 1", int(not ok), "refused before step 1"
    )
    child = Child(_obedient, words("pretrain", file, scenes, folder, "run"), log=folder / "log-2")
    until(lambda: step_of(folder / "run") >= 5, child)
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.chmod(0o555)
    status = child.wait()
    checkpoints.chmod(0o755)
    ok = status == 2 and "Permission denied" in _told(child)
    ok &= not CheckpointManager(checkpoints).newest().problems
    said = f"status {status}, checkpoint of before whole"
    return [first, Outcome("R4", "permission lost during a run", 1, said, int(not ok), "old intact")]


def damaged(folder: Path, n: int, flip: bool, seed: int = 0) -> Outcome:
    """`last.pth` is cut off, or one of its bits flips: noticed, and the one before is taken."""
    numbers = random.Random(seed)
    manager = CheckpointManager(folder, Retention((1,)))
    for step in (1, 2):
        manager.put(checkpoint(step))
    whole = manager.last.read_bytes()
    noticed = 0
    for _ in range(n):
        data = bytearray(whole)
        if flip:
            data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        else:
            del data[numbers.randrange(len(data)) :]
        manager.last.unlink()
        manager.last.write_bytes(data)
        try:
            load_checkpoint(manager.last)
        except CheckpointError:
            found = manager.newest()
            noticed += found.checkpoint.step == 1 and "last.pth" in found.problems[0]
    row, fault = ("R6", "a flipped bit") if flip else ("R5", "cut off")
    said = f"{noticed} of {n} noticed, each time the one before was taken and last.pth named"
    return Outcome(row, f"checkpoint: {fault}", n, said, n - noticed, f"{n} of {n}")


def resumed_from_previous(folder: Path) -> Outcome:
    """`ponder pretrain --resume` with a damaged last checkpoint, killed right after its next save."""
    scenes = store(folder / "scenes", 2)
    file = preset(folder / "tiny.yaml", "pretrain", steps=4, save_every=1, evaluate_every=0)
    line = words("pretrain", file, scenes, folder, "run")
    assert ponder(folder / "log", *line).wait() == 0
    last = folder / "run" / "checkpoints" / "last.pth"
    os.truncate(last, 5000)
    child = ponder(folder / "log-1", *line)
    status = child.wait()
    ok = (
        status == 0
        and "last.pth is damaged" in child.said
        and "continuing from previous.pth (step 3)" in child.said
    )
    manager = CheckpointManager(last.parent)
    ok &= manager.newest().checkpoint.step == 4 and load_checkpoint(manager.previous).step <= 4
    return Outcome(
        "R5",
        "--resume with a damaged last.pth",
        1,
        "continued from previous.pth, which is named",
        int(not ok),
        "falls back",
    )
