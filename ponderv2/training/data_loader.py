"""Batches in the order of the sampler, prepared by this process or by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from ponderv2.errors import PonderError, ResourceError, SceneError, is_out_of_memory
from ponderv2.scenes.batch import Batch
from ponderv2.training.bad_scenes import BadScene, replacements, too_many
from ponderv2.training.sampler import SampleIndex, Sampler, Schedule

Collate = Callable[[list[Batch]], Batch]


@runtime_checkable
class SceneSource(Protocol):
    """A dataset whose items are a pure function of index and draw."""

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def sample(self, index: int, draw: int) -> Batch:
        """Scene `index` as a batch of one; `draw` chooses the augmentation, the views and the pixels."""
        ...


@dataclass(frozen=True)
class Datasets:
    """One dataset, or several that alternate."""

    sources: tuple[SceneSource, ...]
    ratios: tuple[int, ...] = (1,)
    """Consecutive steps of each."""
    mix_probability: float = 0.0
    """Of merging two neighbouring scenes of a batch (Mix3D), which `collate` then has to do."""

    @staticmethod
    def of(scenes: SceneSource | Datasets) -> Datasets:
        """Itself, or a single dataset as the only one."""
        return scenes if isinstance(scenes, Datasets) else Datasets((scenes,))

    @property
    def schedule(self) -> Schedule:
        """Which of them is used in which step."""
        return Schedule(tuple(len(source) for source in self.sources), self.ratios)


@dataclass(frozen=True)
class LoadedBatch:
    """A batch, and the unreadable scenes that were replaced in it."""

    batch: Batch
    bad: tuple[BadScene, ...] = ()


def load_batches(
    datasets: Datasets, collate: Collate, sampler: Sampler, workers: int, max_bad_scenes: int = 0
) -> Generator[LoadedBatch, None, None]:
    """One batch per micro-batch. A scene that cannot be read is replaced by another one.

    Raises:
        SceneError: a scene cannot be read, nor `max_bad_scenes` replacements.
        ResourceError: out of memory while preparing a scene.
        WorkerDied: a worker was killed.
    """
    # More workers than cores only wait for each other, and torch warns of them.
    workers = min(workers, os.cpu_count() or 1)
    loader = DataLoader(
        _Samples(datasets.sources, max_bad_scenes),
        batch_sampler=sampler,
        collate_fn=_CollateOrError(collate),
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        generator=torch.Generator().manual_seed(sampler.seed),
        prefetch_factor=2 if workers else None,
    )
    with closing(watched(loader) if workers else (part for part in loader)) as parts:
        for part in parts:
            if isinstance(part, PonderError):
                raise part
            yield part


class _Samples(Dataset[Any]):
    """The datasets, indexed by `SampleIndex`. One set of workers serves them all.

    Errors are returned as values: a loader would raise those of its workers as their tracebacks.
    """

    def __init__(self, sources: tuple[SceneSource, ...], max_bad_scenes: int) -> None:
        self._sources, self._most = sources, max_bad_scenes

    def __getitem__(self, sample: SampleIndex) -> LoadedBatch | PonderError:
        try:
            return self._readable(sample)
        except PonderError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return ResourceError(
                f"out of memory while preparing {self._name(sample)}: {error}".splitlines()[0],
                fix="--set training.workers=0 --set data.cache_megabytes=64; then --resume",
            )

    def _readable(self, sample: SampleIndex) -> LoadedBatch:
        source = self._sources[sample.dataset]
        bad: list[BadScene] = []
        for one in (sample, *replacements(sample, len(source))):
            try:
                batch = source.sample(one.index, one.draw)
                placed = replace(batch, slots=((sample.slot,),), is_merged=sample.is_merged)
                return LoadedBatch(placed, tuple(bad))
            except (SceneError, OSError) as error:
                bad.append(BadScene(self._name(one), *_reason(error)))
            if len(bad) > self._most:
                break
        raise too_many(bad)

    def _name(self, sample: SampleIndex) -> str:
        names = getattr(self._sources[sample.dataset], "names", None)
        return str(names[sample.index]) if names is not None else f"scene {sample.index}"


class _CollateOrError:
    """Collates the scenes; the first error is returned instead of the batch."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, samples: list[LoadedBatch | PonderError]) -> LoadedBatch | PonderError:
        errors = [sample for sample in samples if isinstance(sample, PonderError)]
        if errors:
            return errors[0]
        read = [sample for sample in samples if isinstance(sample, LoadedBatch)]
        return LoadedBatch(
            self._collate([sample.batch for sample in read]), tuple(b for sample in read for b in sample.bad)
        )


def _reason(error: SceneError | OSError) -> tuple[str, str | None]:
    return (error.message, error.fix) if isinstance(error, SceneError) else (str(error), None)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group; only the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


DEATH_PATIENCE = 1.0
"""Seconds in which a process whose connections broke becomes visibly dead."""


class WorkerDied(Exception):
    """A data worker ended early."""

    def __init__(self, worker: BaseProcess, n_workers: int) -> None:
        self.pid, self.exit_code, self.n_workers = worker.pid, worker.exitcode or 0, n_workers
        super().__init__(f"data worker {self.pid} {self.how}")

    @property
    def how(self) -> str:
        """How it ended."""
        if self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"ended unexpectedly with status {self.exit_code}"

    def explained(self, step: int) -> ResourceError:
        """For the user; `step`: steps done."""
        remedy = "free memory or --set training.workers=0; then --resume"
        if self.exit_code == -getattr(signal, "SIGBUS", 0):
            remedy = (
                "make /dev/shm larger (docker run --shm-size=8g) or --set training.workers=0; then --resume"
            )
        return ResourceError(
            f"one of {self.n_workers} data workers (process {self.pid}) {self.how} while scenes of step "
            f"{step + 1} and the next were prepared",
            fix=remedy,
        )


def watched(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """The items of a loader with workers; the death of one is an error of the item that is waited for.

    torch raises it in whatever the main thread does when the signal comes: in a save, in a library that
    turns or swallows errors, in the report of another error. And a connection may break before it comes.

    Raises:
        WorkerDied: instead of torch's RuntimeError.
    """
    others = set(multiprocessing.active_children())
    items = iter(loader)
    watch = _Watch([process for process in multiprocessing.active_children() if process not in others])
    try:
        while True:
            try:
                item = watch.wait_for(items)
            except StopIteration:
                return
            yield item
    finally:
        del items
        watch.end()


class _Watch:
    """Takes the place of torch's handler of SIGCHLD until `end`."""

    def __init__(self, workers: list[BaseProcess]) -> None:
        self._workers, self._process, self._is_waiting = workers, os.getpid(), False
        self._before: Any = None
        # As torch does: only the main thread may have handlers.
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGCHLD, self._child_ended)

    def end(self) -> None:
        """Restores the previous handler."""
        if self._before is not None:
            signal.signal(signal.SIGCHLD, self._before)

    def wait_for(self, items: Any) -> Any:
        """The next item; StopIteration after the last."""
        self._raise_if_dead()
        try:
            self._is_waiting = True
            return next(items)
        except (StopIteration, WorkerDied):
            raise
        except Exception as error:
            self._is_waiting = False
            end = time.monotonic() + DEATH_PATIENCE
            while time.monotonic() < end:
                self._raise_if_dead(error, well=True)
                time.sleep(0.01)
            raise
        finally:
            self._is_waiting = False

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        """Reading half a message of a dead worker would block for ever."""
        if self._is_waiting and os.getpid() == self._process:
            self._raise_if_dead()

    def _raise_if_dead(self, error: Exception | None = None, well: bool = False) -> None:
        """`well`: also where it ended with status 0, as all do after the last item."""
        for worker in self._workers:
            if worker.exitcode or (well and worker.exitcode == 0):
                raise WorkerDied(worker, len(self._workers)) from error
