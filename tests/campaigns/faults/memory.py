"""Memory runs out in a training step: the batch is split, or skipped, or the run says what to change."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ponderv2.errors import ResourceError
from ponderv2.training.checkpoint import load_checkpoint
from tests.campaigns.faults.outcome import Outcome
from tests.training.processes import run_ranks
from tests.training.toy import ToyModel, ToyScenes, ToyStep, run_toy, toy_job

SCENES = 4


class _Even(ToyScenes):
    """Scenes of one size."""

    def sample(self, index: int, draw: int) -> Any:
        batch = super().sample(index, draw)
        n = 20
        cut = {
            name: getattr(batch, name)[:n]
            for name in ("coord", "grid_coord", "feature", "segment", "instance")
        }
        return replace(batch, offset=torch.tensor([n]), **cut)


class _Hungry(ToyModel):
    """Needs 64 MB for every scene of a batch, in the forward pass or once more in the backward pass."""

    def __init__(self, most_scenes: int = SCENES, fails: str = "") -> None:
        super().__init__()
        self.most_scenes, self.fails = most_scenes, fails

    def forward(self, batch: Any, generator: torch.Generator) -> ToyStep:
        if self.fails == "forward" and len(batch.offset) > self.most_scenes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        step = super().forward(batch, generator)
        if self.fails == "backward" and len(batch.offset) > self.most_scenes:
            step.losses.fit.register_hook(_no_memory)
        if self.fails == "limit":
            torch.ones(16_000_000 * len(batch.offset)).sum()
        return step


def _no_memory(gradient: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def _job(folder: Path, model: ToyModel, **settings: Any) -> Any:
    chosen = {"batch_size": SCENES, "evaluate_every": 0, "steps": 3} | settings
    return replace(toy_job(folder, scenes=_Even(8), **chosen), model=model)


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.pth").model


def _same(folder: Path, truth: Path) -> bool:
    one, two = _state(folder), _state(truth)
    return all(torch.equal(one[name], value) for name, value in two.items())


def split(folder: Path, fails: str, most_scenes: int) -> Outcome:
    """A model that raises torch.OutOfMemoryError for larger batches than it can take."""
    outcome = run_toy(_job(folder / "run", _Hungry(most_scenes, fails)))
    parts = SCENES // most_scenes
    run_toy(_job(folder / "truth", ToyModel(), accumulate=parts))
    ok = _same(folder / "run", folder / "truth") and outcome.split_steps == 3 and outcome.skipped_steps == 0
    ok &= f"trying {parts} parts" in (folder / "run" / "log.txt").read_text()
    said = f"3 steps in {parts} parts each; the weights are those of training.accumulate={parts}, bit for bit"
    return Outcome(
        "R10", f"no memory in the {fails} pass of {SCENES} scenes", 3, said, int(not ok), "same numbers"
    )


def _limited(_: int, folder: Path) -> tuple[int, int]:
    torch.set_num_threads(1)
    model = _Hungry(fails="limit")
    job = _job(folder, model)
    torch.ones(16_000_000).sum()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + 200_000_000  # enough for two scenes of 64 MB, not for four
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcome = run_toy(job)
    return outcome.split_steps, outcome.skipped_steps


def limited(folder: Path) -> Outcome:
    """The system refuses memory to a real process, whose allocator then fails."""
    (found,) = run_ranks(_limited, 1, folder / "run")
    run_toy(_job(folder / "truth", ToyModel(), accumulate=2))
    ok = tuple(found) == (3, 0) and _same(folder / "run", folder / "truth")
    said = f"{found[0]} of 3 steps split, {found[1]} skipped; the weights are those of training.accumulate=2"
    return Outcome("R10", "RLIMIT_AS in a process", 3, said, int(not ok), "split; same numbers")


def never_enough(folder: Path) -> Outcome:
    """Not even single scenes fit: steps are skipped without a change, then the run stops."""
    job = replace(
        _job(folder / "run", _Hungry(0, "forward"), steps=30, max_bad_steps=10, save_every=1),
        resolved={"data": {"voxel": {"size": 0.02}}},
    )
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    try:
        run_toy(job)
        message = "it continued"
    except ResourceError as error:
        message = f"{error.message} | {error.fix}"
    ok = "out of memory" in message and "data.voxel.size=0.03" in message
    ok &= all(torch.equal(before[name], value) for name, value in _state(folder / "run").items())
    return Outcome(
        "R10", "no memory for single scenes", 10, message, int(not ok), "no change; setting and value said"
    )
