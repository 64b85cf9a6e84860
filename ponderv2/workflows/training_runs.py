"""What pre-training and fine-tuning share: the folder of a run, its lock, resuming, several processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ponderv2.collectives import process_rank
from ponderv2.config import differences
from ponderv2.errors import CheckpointError, OutputError, PresetError
from ponderv2.randomness import derive_seed
from ponderv2.scenes.reader import Reader
from ponderv2.tasks.kinds import task_of
from ponderv2.training.checkpoint import Checkpoint
from ponderv2.training.checkpoint_manager import CheckpointManager, ResumePoint
from ponderv2.training.config import TrainingConfig
from ponderv2.training.devices import repeatable
from ponderv2.training.distributed import Member, launch, make_fabric, restart_trouble, start_together
from ponderv2.training.job import Job, TrainingOutcome
from ponderv2.training.loop import train
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.ranks import RankProcess, Ranks, by_first_process, run_in_all
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.training.run_lock import RunLock
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig
from ponderv2.workflows.open_parts import open_parts

RunConfig = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class RunRequest:
    """Arguments of a training command."""

    config: RunConfig
    folder: Path
    start: OpenCheckpoint | None = None
    """Checkpoint whose encoder is fine-tuned; read once in every process."""
    resume: bool = False
    devices: int = 1
    nodes: int = 1
    parts: tuple[OpenCheckpoint, ...] = ()
    """Pre-trained models whose parts a new pre-training run starts from."""


NOT_REPRODUCIBLE = "results will not match an uninterrupted run"

MakeJob = Callable[[RunRequest, bool], Job]
"""Builds model, data and validation; the flag: the run is resumed, its checkpoint replaces the weights."""


def run_training(request: RunRequest, make_job: MakeJob, report: Reporter) -> TrainingOutcome:
    """Trains on `request.devices` processes; this one is rank 0.

    Raises what `train` raises, CheckpointError and OutputError.
    """
    _check_batch(request.config.training, request.devices * request.nodes)
    return start_together(request.devices, _train_as_member, request, make_job, first=report)


def run_folder(out: Path, name: str) -> Path:
    """`out/name`. Raises OutputError for names that lead elsewhere."""
    if not name or name in (".", "..") or Path(name).name != name:
        raise OutputError(f"'{name}' is not a name for a run", fix="--name letters-and-digits")
    return out / name


def fingerprint(store: Reader, split: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Equal for two runs on the same scenes."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {"name": store.info.name, "split": split, "n_scenes": len(names), "digest": digest}


def seeded_weights(seed: int) -> torch.Generator:
    """Seeds the initial weights: torch's initialisers read the global generator."""
    return torch.manual_seed(derive_seed("weights", seed))


def _train_as_member(
    member: Member, request: RunRequest, make_job: MakeJob, report: Reporter | None
) -> TrainingOutcome:
    """Runs in each process."""
    report = report or SilentReporter()
    config, folder = request.config, request.folder
    fabric = make_fabric(config.training, member, request.devices, request.nodes)
    leads = fabric.global_rank == 0
    with ExitStack() as at_end:

        def enter() -> RankProcess:
            if leads:
                at_end.callback(RunLock(folder).release)
            return RankProcess.here(fabric.global_rank)

        ranks = Ranks(tuple(run_in_all(enter)))
        try:
            with repeatable(config.training, report.warn):
                job, found = _prepared(request, make_job, report, ranks)
                if leads and (trouble := restart_trouble()):
                    report.warn(trouble)
                if found is None and job.fit_start is not None:
                    job.fit_start(fabric.device, report)
                return train(job, fabric, report, found)
        except RuntimeError as error:
            if explained := ranks.explained(error, config.training.timeout):
                raise explained from error
            raise


def _prepared(
    request: RunRequest, make_job: MakeJob, report: Reporter, ranks: Ranks
) -> tuple[Job, Checkpoint | None]:
    """The job and the checkpoint to continue from, the same in every process, or an error in each."""
    checkpoints = CheckpointManager(request.folder / "checkpoints")
    stored: list[ResumePoint | None] = []
    made: list[tuple[Job, ResumePoint | None]] = []

    def find() -> None:
        found = _stored(request, checkpoints, report) if request.resume else None
        if found is None and not checkpoints.is_empty():
            raise OutputError(
                f"{request.folder} holds a run already",
                fix="--resume continues it; --name NAME starts another",
            )
        stored.append(found)

    def before_training() -> None:
        parts, resumed = open_parts(request.config), stored[0] is not None
        task_of(request.config.model).before_training(parts, request.folder, resumed, report)

    def prepare() -> dict[str, Any]:
        found = stored[0]
        job = make_job(request, found is not None)
        made.append((job, found))
        n_validated = 0 if job.validation is None else len(job.validation)
        step = found.checkpoint.step if found else 0
        return {"checkpoint": step, "training scenes": job.data, "validation scenes": n_validated}

    run_in_all(find)
    by_first_process(before_training)
    _refuse_differences(run_in_all(prepare), ranks)
    job, found = made[0]
    if found is None:
        return job, None
    if process_rank() == 0:
        found.set_aside()
    if found.checkpoint.data != job.data:
        report.warn(f"{_scenes_differ(found.checkpoint.data, job.data)}: {NOT_REPRODUCIBLE}")
    return job, found.checkpoint


def _refuse_differences(seen: list[dict[str, Any]], ranks: Ranks) -> None:
    """Raises OutputError where processes see different files."""
    for process, one in zip(ranks.all, seen, strict=True):
        for name, value in one.items():
            if value != seen[0][name]:
                raise OutputError(
                    f"process {process.rank} on {process.host} finds another {name} than process 0 "
                    f"on {ranks.all[0].host}",
                    fix="put scenes and run folder where all machines see them under the same path",
                )


def _stored(request: RunRequest, checkpoints: CheckpointManager, report: Reporter) -> ResumePoint | None:
    """The checkpoint to continue from; None where nothing was saved yet."""
    if checkpoints.is_empty():
        report.note(f"nothing to resume in {request.folder}: starting from the first step")
        return None
    found = checkpoints.newest()
    for problem in found.problems:
        report.warn(f"{problem}; continuing from {found.path.name} (step {found.checkpoint.step})")
    changed = differences(found.checkpoint.config, request.config)
    models = [key for key in changed if key.startswith("model.")]
    if models:
        raise CheckpointError(
            f"the run in {request.folder} was started with another model: {models[0]} differs",
            fix="give the same preset and --set, or another --name",
        )
    for key in changed:
        report.warn(f"{key} differs from the run that is continued: {NOT_REPRODUCIBLE}")
    threads, before = str(torch.get_num_threads()), found.checkpoint.versions.get("threads")
    if before is not None and before != threads:
        report.note(
            f"the run was started with {before} CPU threads and continues with {threads}: sums differ in "
            f"their last bits (--set training.threads={before} keeps the number)"
        )
    report.note(f"continuing {request.folder} after step {found.checkpoint.step}")
    return found


def _scenes_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The difference of two fingerprints, as text."""
    counts = [
        sum(one["n_scenes"] for one in data.get("datasets", [data]) if "n_scenes" in one)
        for data in (before, now)
    ]
    return f"the run was started with other training scenes ({counts[0]}, now {counts[1]})"


def _check_batch(training: TrainingConfig, world_size: int) -> None:
    """Every process and micro-batch gets equally many scenes.

    `world_size`: the requested number of processes. Raises PresetError; a launcher's own number of
    processes counts where there is one.
    """
    launched = launch()
    world_size = launched.world_size if launched else world_size
    parts = world_size * training.accumulate
    if training.batch_size % parts:
        better = parts * max(1, round(training.batch_size / parts))
        raise PresetError(
            f"{training.batch_size} scenes a step cannot be shared by {world_size} processes "
            f"x {training.accumulate} parts",
            fix=f"--set training.batch_size={better}",
        )
