"""Batches in the order that `Order` says, prepared by this process or by workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from ponderv2.errors import PonderError, ResourceError, SceneError, is_out_of_memory
from ponderv2.scenes.batch import Batch
from ponderv2.training.data_workers import watched
from ponderv2.training.order import Cycle, Order, Place
from ponderv2.training.quarantine import BadScene, stand_ins, too_many

Collate = Callable[[list[Batch]], Batch]


@runtime_checkable
class SceneSource(Protocol):
    """A dataset whose items follow from their place alone."""

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def sample(self, index: int, draw: int) -> Batch:
        """Scene `index` as a batch of one; `draw` chooses the augmentation, the views and the pixels."""
        ...


@dataclass(frozen=True)
class Datasets:
    """One or several datasets that take turns."""

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
    def cycle(self) -> Cycle:
        """Which of them is used in which step."""
        return Cycle(tuple(len(source) for source in self.sources), self.ratios)


@dataclass(frozen=True)
class Fed:
    """A batch, and the scenes that others stand in for."""

    batch: Batch
    bad: tuple[BadScene, ...] = ()


def feed(
    datasets: Datasets, collate: Collate, order: Order, workers: int, max_bad_scenes: int = 0
) -> Generator[Fed, None, None]:
    """One batch per part. In place of a scene that cannot be read another one is taken.

    Raises:
        SceneError: a scene, and as many that were to stand in as are allowed, cannot be read.
        ResourceError: memory does not suffice to prepare a scene.
        WorkerDied: a worker was killed.
    """
    # More than there are cores only wait for each other, and torch warns of them.
    workers = min(workers, os.cpu_count() or 1)
    loader = DataLoader(
        _Places(datasets.sources, max_bad_scenes),
        batch_sampler=order,
        collate_fn=_Together(collate),
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        generator=torch.Generator().manual_seed(order.seed),
        prefetch_factor=2 if workers else None,
    )
    with closing(watched(loader) if workers else (part for part in loader)) as parts:
        for part in parts:
            if isinstance(part, PonderError):
                raise part
            yield part


class _Places(Dataset[Any]):
    """The datasets, indexed by place. One set of workers serves them all.

    Errors are values here: a loader would raise those of its workers again as their tracebacks.
    """

    def __init__(self, sources: tuple[SceneSource, ...], max_bad_scenes: int) -> None:
        self._sources, self._most = sources, max_bad_scenes

    def __getitem__(self, place: Place) -> Fed | PonderError:
        try:
            return self._readable(place)
        except PonderError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return ResourceError(
                f"not enough memory to prepare {self._name(place)}: {error}".splitlines()[0],
                fix="--set training.workers=0 --set data.cache_megabytes=64; then --resume",
            )

    def _readable(self, place: Place) -> Fed:
        source = self._sources[place.dataset]
        bad: list[BadScene] = []
        for one in (place, *stand_ins(place, len(source))):
            try:
                batch = source.sample(one.index, one.draw)
                return Fed(replace(batch, slots=((place.slot,),), is_merged=place.is_merged), tuple(bad))
            except (SceneError, OSError) as error:
                bad.append(BadScene(self._name(one), *_reason(error)))
            if len(bad) > self._most:
                break
        raise too_many(bad)

    def _name(self, place: Place) -> str:
        names = getattr(self._sources[place.dataset], "names", None)
        return str(names[place.index]) if names is not None else f"scene {place.index}"


class _Together:
    """Collates what could be read; the first error takes the place of the batch."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, samples: list[Fed | PonderError]) -> Fed | PonderError:
        errors = [sample for sample in samples if isinstance(sample, PonderError)]
        if errors:
            return errors[0]
        read = [sample for sample in samples if isinstance(sample, Fed)]
        return Fed(
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
