"""A long run: memory, open files and the folder of the run stay as they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.campaigns.faults.children import ponder, step_of
from tests.campaigns.faults.outcome import Outcome
from tests.campaigns.faults.presets import preset, words
from tests.scenes.closed_form_room import write_store

ENCODER = "{kind: sparse_unet, in_channels: 6, base_channels: 8, channels: [8, 8], layers: [1, 1]}"
WARM = 0.2
"""Share of the steps after which caches and allocators are filled."""


def long_run(folder: Path, steps: int) -> Outcome:
    """`ponder finetune` on tiny scenes with everything that a run writes, watched through /proc."""
    scenes = folder / "scenes"
    write_store(scenes, n_scenes=2, n_points=100, splits=("train", "val"))
    often = max(steps // 100, 1)
    bounds = {
        "keep_every": often,
        "keep_newest": 3,
        "log_megabytes": 0.5,
        "tensorboard": True,
        "workers": 1,
        "batch_size": 1,
    }
    file = preset(
        folder / "tiny.yaml", "finetune", steps=steps, save_every=often, evaluate_every=2 * often, **bounds
    )
    child = ponder(
        folder / "log", *words("finetune", file, scenes, folder, "run", "--set", f"model.encoder={ENCODER}")
    )
    run = folder / "run"
    memory: list[float] = []
    files: list[int] = []
    sizes: list[int] = []
    measured = 0
    while child.runs:
        step = step_of(run)
        if step >= measured + often and step < steps:
            measured = step
            if step >= WARM * steps:
                memory.append(_memory(child.pid))
                files.append(len(os.listdir(f"/proc/{child.pid}/fd")))
                sizes.append(_size(run))
        time.sleep(0.05)
    status = child.wait()
    third = max(len(memory) // 3, 1)
    growth = _mean(memory[-third:]) / _mean(memory[:third]) - 1
    # Files are open for a moment while checkpoints are written and batches come from the worker.
    opened = min(files[-third:]) - min(files[:third])
    course = ", ".join(f"{memory[len(memory) * part // 5] / 2**20:.1f}" for part in range(5))
    checkpoints = len(list((run / "checkpoints").glob("step-*.pth")))
    ok = status == 0 and growth < 0.02 and opened <= 0
    ok &= checkpoints == 3 and _size(run) < 6e6
    said = (
        f"memory {growth:+.2%} from the first to the last third ({course} MiB on the way), "
        f"open files {min(files)} at the least, {opened:+d} in the end, "
        f"run folder at most {max(sizes) / 1e6:.1f} MB, {checkpoints} step checkpoints kept"
    )
    target = "memory < 2 %, open files constant, folder bounded"
    return Outcome("R23", f"{steps} steps on tiny scenes", steps, said, int(not ok), target)


def _memory(pid: int) -> float:
    """Resident bytes of its own and shared with its worker; not the pages of the program's files.

    Those are counted when they are first touched, which lasts long in a process that was forked.
    """
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(1024.0 * int(text.split(f"{name}:")[1].split()[0]) for name in ("RssAnon", "RssShmem"))


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # replaced meanwhile
            continue
    return total


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
