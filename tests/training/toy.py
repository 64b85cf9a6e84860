"""A model, scenes and a run small enough to be killed often. `python -m tests.training.toy` trains it."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ponderv2.collectives import global_mean
from ponderv2.randomness import make_generator, scene_generators
from ponderv2.scenes.batch import Batch
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.training.checkpoint import Checkpoint
from ponderv2.training.checkpoint_manager import CheckpointManager
from ponderv2.training.config import OneCycleConfig, SgdConfig, TrainingConfig
from ponderv2.training.distributed import Member, make_fabric, start_together
from ponderv2.training.loop import Job, TrainingOutcome, train
from ponderv2.training.report import SilentReporter
from ponderv2.training.run_lock import RunLock


@dataclass(frozen=True)
class ToyLosses:
    """Two terms."""

    fit: Tensor
    size: Tensor

    def total(self) -> Tensor:
        """Their sum."""
        return self.fit + self.size


@dataclass(frozen=True)
class ToyStep:
    """As the step of a real model."""

    losses: ToyLosses
    score: Tensor


class ToyScenes:
    """Scenes with different numbers of points, drawn anew each time."""

    def __init__(self, n_scenes: int = 5, bad: Sequence[int] = ()) -> None:
        self.n_scenes, self.bad = n_scenes, bad

    def __len__(self) -> int:
        return self.n_scenes

    def sample(self, index: int, draw: int) -> Batch:
        """A pure function of index and draw; scenes in `bad` hold NaN."""
        generator = make_generator("toy", index, draw)
        n = 20 + 7 * index
        coord = torch.rand(n, 3, generator=generator)
        feature = torch.randn(n, 4, generator=generator) + index
        if index in self.bad:
            feature[3, 1] = float("nan")
        return Batch(
            coord=coord,
            grid_coord=(coord * 50).long(),
            feature=feature,
            offset=torch.tensor([n]),
            segment=torch.zeros(n, dtype=torch.long),
            units_per_metre=torch.ones(1),
            condition="toy",
            names=(f"scene{index}",),
        )


class ToyModel(nn.Module):
    """Predicts the coordinates of noisy points."""

    def __init__(self) -> None:
        super().__init__()
        generator = make_generator("toy model")
        self.first, self.norm, self.last = nn.Linear(4, 16), BatchNorm(16), nn.Linear(16, 3)
        self.unused = nn.Linear(2, 2)
        for parameter in (*self.first.parameters(), *self.last.parameters(), *self.unused.parameters()):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, batch: Batch, generator: torch.Generator) -> ToyStep:
        """Noise is drawn per scene, so that it does not depend on the number of processes."""
        counts = torch.diff(batch.offset, prepend=batch.offset.new_zeros(1)).tolist()
        generators = scene_generators(generator, len(counts), batch.slots)
        noise = torch.cat([torch.randn(n, 4, generator=g) for n, g in zip(counts, generators, strict=True)])
        hidden = torch.relu(self.norm(self.first(batch.feature + 0.1 * noise)))
        wrong = (self.last(hidden) - batch.coord).square().sum(dim=1)
        count = torch.tensor(float(len(wrong)))
        fit = global_mean(wrong.sum(), count)
        size = 1e-3 * global_mean(hidden.square().sum(), count)
        return ToyStep(ToyLosses(fit, size), score=-fit.detach())


@dataclass(frozen=True)
class ToyValidation:
    """Three scenes of which each shows the same, and the step a little."""

    model: ToyModel
    n_scenes: int = 3

    def __len__(self) -> int:
        return self.n_scenes

    def measure(self, number: int, step: int, logger: object) -> float:
        """A number that tells the scenes apart."""
        return float(self.model.last.weight.detach().abs().sum()) + (step % 3) + number

    def metrics(self, results: Sequence[float]) -> dict[str, float]:
        """Of the first scene, after a look at all."""
        assert [round(result - results[0]) for result in results] == list(range(self.n_scenes))
        return {"score": results[0]}


def toy_job(folder: Path, steps: int = 12, scenes: ToyScenes | None = None, **settings: object) -> Job:
    """A run of a few steps."""
    chosen: dict[str, object] = {
        "steps": steps,
        "batch_size": 2,
        "save_every": 2,
        "evaluate_every": 5,
        "tensorboard": False,
        "device": "cpu",
        "optimiser": SgdConfig(rate=0.05),
        "schedule": OneCycleConfig(warmup=0.3),
        "timeout": 60.0,
    }
    training = TrainingConfig.model_validate(chosen | settings)
    model = ToyModel()

    return Job(
        kind="toy",
        model=model,
        scenes=scenes or ToyScenes(),
        collate=Batch.collate,
        training=training,
        seed=3,
        folder=folder,
        resolved={"training": training.model_dump(mode="json")},
        validation=ToyValidation(model),
        best_metric="score",
    )


def run_toy(job: Job, resume: bool = False, member: Member | None = None) -> TrainingOutcome:
    """Trains in this process, as member of a group or alone."""
    member = member or Member()
    lock = RunLock(job.folder) if member.rank == 0 else None
    try:
        stored = _stored(job.folder) if resume else None
        fabric = make_fabric(job.training, member, member.world_size)
        return train(job, fabric, SilentReporter(), stored)
    finally:
        if lock:
            lock.release()


def _stored(folder: Path) -> Checkpoint | None:
    manager = CheckpointManager(folder / "checkpoints")
    return None if manager.is_empty() else manager.newest().checkpoint


def train_together(member: Member, folder: Path, settings: dict[str, object], first: object = None) -> None:
    """What each process of a distributed test does."""
    run_toy(toy_job(folder, **settings), member=member)  # type: ignore[arg-type]


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kill-at-sync", type=int, default=0, help="die at the n-th fsync: inside a save")
    parser.add_argument("--settings", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, object] = dict(pair.split("=") for pair in arguments.settings)
    if arguments.kill_at_sync:
        _die_inside_a_save(arguments.kill_at_sync)
    if arguments.processes > 1:
        start_together(arguments.processes, train_together, arguments.folder, settings)
    else:
        run_toy(toy_job(arguments.folder, arguments.steps, **settings), resume=True)  # type: ignore[arg-type]


def _die_inside_a_save(number: int) -> None:
    """Replaces fsync by one that kills this process when it is called for the n-th time."""
    left = [number]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync


if __name__ == "__main__":
    _main()
