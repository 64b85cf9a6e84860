"""Batches in the order that `Order` says, prepared by this process or by workers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from ponderv2.errors import ResourceError
from ponderv2.scenes.batch import SceneBatch
from ponderv2.training.order import Cycle, Order, Place

Collate = Callable[[list[SceneBatch]], SceneBatch]


@runtime_checkable
class SceneSource(Protocol):
    """A dataset whose items follow from their place alone."""

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def sample(self, index: int, draw: int) -> SceneBatch:
        """Scene `index` as a batch of one; `draw` chooses the augmentation, the views and the pixels."""
        ...


@dataclass(frozen=True)
class Datasets:
    """One or several datasets that take turns."""

    sources: tuple[SceneSource, ...]
    ratios: tuple[int, ...] = (1,)
    """Consecutive steps of each."""

    @staticmethod
    def of(scenes: SceneSource | Datasets) -> Datasets:
        """Itself, or a single dataset as the only one."""
        return scenes if isinstance(scenes, Datasets) else Datasets((scenes,))

    @property
    def cycle(self) -> Cycle:
        """Which of them is used in which step."""
        return Cycle(tuple(len(source) for source in self.sources), self.ratios)


def feed(datasets: Datasets, collate: Collate, order: Order, workers: int) -> Iterator[SceneBatch]:
    """One batch per part. Raises ResourceError when a worker is killed."""
    loader = DataLoader(
        _Places(datasets.sources),
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        generator=torch.Generator().manual_seed(order.seed),
        prefetch_factor=2 if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            f"a data worker ended unexpectedly: {str(error).splitlines()[0]}",
            fix="--set training.workers=0, or free memory; then --resume",
        ) from error


class _Places(Dataset[SceneBatch]):
    """The datasets, indexed by place. One set of workers serves them all."""

    def __init__(self, sources: tuple[SceneSource, ...]) -> None:
        self._sources = sources

    def __getitem__(self, place: Place) -> SceneBatch:
        return self._sources[place.dataset].sample(place.index, place.draw)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group; only the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
