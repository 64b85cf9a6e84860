"""Disk cache of costly results: in the user's cache folder, keyed by digests of their input.

The folder is $PONDER_CACHE, or ponder/ in $XDG_CACHE_HOME or ~/.cache. Where nothing can be written, the
results stay in memory as long as the program runs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from ponderv2.errors import OutputError
from ponderv2.io.arrays import read_arrays
from ponderv2.io.files import cache_folder, write_bytes
from ponderv2.io.lru_cache import LruCache

FORMAT = "2"
"""Changes whenever what is stored changes its meaning."""


@dataclass(frozen=True)
class _Arrays:
    """Named arrays with their size."""

    values: Mapping[str, ndarray]

    @property
    def n_bytes(self) -> int:
        return sum(array.nbytes for array in self.values.values())


_in_memory: LruCache[_Arrays] = LruCache(512.0)
"""Used only where no file can be written."""


def cached(kind: str, content: str, make: Callable[[], Mapping[str, ndarray]]) -> Mapping[str, ndarray]:
    """What `make` gives for this content, from an earlier time where it was made already.

    `content` is a digest of everything that the result follows from. Where `make` raises, nothing is stored.
    """
    key = hashlib.sha256(f"{FORMAT} {kind} {content}".encode()).hexdigest()[:40]
    path = cache_folder() / kind / f"{key}.npz"
    found = _read(path)
    if found is not None:
        return found
    if key in _in_memory:
        return _in_memory.get(key, lambda: _Arrays(make())).values
    values = dict(make())
    if not _written(path, values):
        _in_memory.get(key, lambda: _Arrays(values))
    return values


def _read(path: Path) -> Mapping[str, ndarray] | None:
    try:
        return read_arrays(path)
    except (OSError, ValueError):
        return None


def _written(path: Path, values: Mapping[str, ndarray]) -> bool:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **dict(values))
    try:
        write_bytes(path, stream.getvalue())
        return True
    except OutputError:
        return False
