"""The most recently used values, up to a limit of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, runtime_checkable

from torch.utils.data import get_worker_info


@runtime_checkable
class Sized(Protocol):
    """A value that knows how much memory it takes."""

    @property
    def n_bytes(self) -> int:
        """Memory in bytes."""
        ...


Value = TypeVar("Value", bound=Sized)


class LruCache(Generic[Value]):
    """The most recently used values up to a limit. Worker processes of a loader share the limit evenly."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.n_bytes = 0
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str, read: Callable[[], Value]) -> Value:
        """The value of a key: from memory if it is there, else read."""
        value = self._values.pop(key, None)
        if value is None:
            value = read()
            self.n_bytes += value.n_bytes
        self._values[key] = value
        while self.n_bytes > self._limit() and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self.n_bytes -= oldest.n_bytes
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __getstate__(self) -> dict[str, float]:
        """Other processes start with nothing in memory."""
        return {"megabytes": self.megabytes}

    def __setstate__(self, state: dict[str, float]) -> None:
        self.megabytes = state["megabytes"]
        self.n_bytes = 0
        self._values = OrderedDict()

    def _limit(self) -> float:
        worker = get_worker_info()
        return self.megabytes * 1e6 / (1 if worker is None else worker.num_workers)
