"""NaN and infinity in the input, a loss term or a gradient, in one process and in one of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ponderv2.errors import TrainingError
from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import Member, free_port
from ponderv2.training.step import BAD_BATCHES
from tests.campaigns.faults.children import lines
from tests.campaigns.faults.outcome import Outcome
from tests.training.processes import run_ranks
from tests.training.toy import ToyLosses, ToyModel, ToyScenes, ToyStep, run_toy, toy_job

PLACES = ("input", "loss", "gradient")


class _Exploding(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient * float("inf")


class _Scenes(ToyScenes):
    """Scene 2 is marked in its first pass, or always; of the input its numbers are NaN."""

    def __init__(self, place: str, always: bool) -> None:
        super().__init__()
        self.place, self.always = place, always

    def sample(self, index: int, draw: int) -> Any:
        batch = super().sample(index, draw)
        if self.always or (index, draw) == (2, 0):
            batch.segment[0] = 7
            if self.place == "input":
                batch.feature[3, 1] = float("nan")
        return batch


class _Model(ToyModel):
    """Its loss or gradient is bad where a scene is marked."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, batch: Any, generator: torch.Generator) -> ToyStep:
        step = super().forward(batch, generator)
        if not bool((batch.segment == 7).any()) or self.place == "input":
            return step
        fit = step.losses.fit
        fit = fit * float("nan") if self.place == "loss" else _Exploding.apply(fit)
        return ToyStep(ToyLosses(fit, step.losses.size), step.score)


def _job(folder: Path, place: str, always: bool, **settings: Any) -> Any:
    from dataclasses import replace

    job = toy_job(folder, scenes=_Scenes(place, always), save_every=1, evaluate_every=0, **settings)
    return replace(job, model=_Model(place))


def _rank(rank: int, port: int, folder: Path, place: str, always: bool, settings: dict[str, Any]) -> str:
    torch.set_num_threads(1)
    job = _job(folder, place, always, **settings)
    try:
        return str(run_toy(job, member=Member(rank, 2, port)).skipped_steps)
    except TrainingError as error:
        return error.message


def bad_once(folder: Path, place: str, world_size: int = 1) -> Outcome:
    """One step is bad: it changes nothing, is counted, and its scenes are kept."""
    steps = 4
    settings = {"steps": steps, "batch_size": 2, "keep_steps": tuple(range(1, steps + 1))}
    if world_size == 1:
        skipped = [str(run_toy(_job(folder, place, False, **settings)).skipped_steps)]
    else:
        skipped = run_ranks(_rank, world_size, free_port(), folder, place, False, settings)
    losses = [line["gradient_norm"] for line in lines(folder) if "loss" in line]
    bad = losses.index(None) + 1
    states = [load_checkpoint(folder / "checkpoints" / f"step-{step}.pth") for step in (max(bad - 1, 1), bad)]
    same = all(torch.equal(states[0].model[name], value) for name, value in states[1].model.items())
    momenta = [_momenta(state.optimiser) for state in states]
    same &= bad == 1 or all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    kept = list((folder / BAD_BATCHES).glob("*.safetensors"))
    ok = same and skipped == ["1"] * world_size and len(kept) == 1 and "scene2" in _notes(kept[0])["problem"]
    said = f"skipped once in each process, nothing changed, scenes kept in {BAD_BATCHES}/"
    where = f"{place} of one step, {world_size} process{'es' if world_size > 1 else ''}"
    return Outcome(
        "R9", f"NaN or infinity in the {where}", 1, said, int(not ok), "skipped, unchanged, counted"
    )


def bad_always(folder: Path, place: str, world_size: int = 1) -> Outcome:
    """Every step is bad: the run stops after a few, names the scenes and where they are kept."""
    settings = {"steps": 20, "batch_size": 2, "max_bad_steps": 10}
    if world_size == 1:
        try:
            run_toy(_job(folder, place, True, **settings))
            said = ["it continued"]
        except TrainingError as error:
            said = [error.message]
    else:
        said = run_ranks(_rank, world_size, free_port(), folder, place, True, settings)
    ok = all("10 steps in a row up to step 10" in text and "scene" in text for text in said)
    ok &= len(set(said)) == 1 and len(list((folder / BAD_BATCHES).glob("*"))) == 3
    stored = load_checkpoint(folder / "checkpoints" / "last.pth").model.values()
    ok &= all(bool(torch.isfinite(value).all()) for value in stored if value.is_floating_point())
    target = "stops after 10 in a row, scene named and kept, all processes alike"
    return Outcome(
        "R9",
        f"in the {place} of every step, {world_size} process(es)",
        10,
        said[0].replace(str(folder), "RUN"),
        int(not ok),
        target,
    )


def _momenta(state: Any) -> list[Tensor]:
    return [entry["momentum_buffer"] for entry in state["state"].values()]


def _notes(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()
