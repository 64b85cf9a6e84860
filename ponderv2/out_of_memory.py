"""Work in parts that get smaller when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ponderv2.errors import ResourceError, is_out_of_memory

Part = TypeVar("Part")
Result = TypeVar("Result")

_END: Any = object()
SMALLEST = 64
"""Items of the smallest chunk that is tried."""


def in_smaller_parts(
    work: Callable[[Part], Result],
    parts: Iterable[Part],
    split: Callable[[Part, BaseException], Iterable[Part]],
) -> Iterator[tuple[Part, Result]]:
    """Each part with `work(part)`, in order; parts for which memory runs out are replaced by smaller ones.

    `split(part, error)` returns what is done in place of a part that did not fit, and raises (from `error`)
    where nothing smaller is left. `parts` is read lazily, so that later parts can be smaller from the start.
    When `split` is called, nothing holds the arrays of the failed attempt any longer.
    """
    waiting = [iter(parts)]
    while waiting:
        part = next(waiting[-1], _END)
        if part is _END:
            waiting.pop()
            continue
        try:
            result = work(part)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)  # its frames hold the arrays
        else:
            yield part, result
            continue
        waiting.append(iter(split(part, failure)))
        _release_cached_memory()


def in_chunks(
    work: Callable[[slice], Result], n_items: int, chunk: int, what: str = "rays or points"
) -> list[Result]:
    """`work` on slices of at most `chunk` of `n_items` items; halved, down to 64, when memory runs out.

    One empty slice when there are no items. Raises ResourceError when the smallest slice does not fit;
    `what` names the items there.
    """
    size = chunk

    def slices(start: int, stop: int) -> Iterator[slice]:
        while start < stop:
            end = min(start + size, stop)
            yield slice(start, end)
            start = end

    def split(part: slice, error: BaseException) -> Iterator[slice]:
        nonlocal size
        if size <= SMALLEST:
            fix = "close other programs, or use fewer samples or a smaller volume"
            raise ResourceError(f"out of memory with {SMALLEST} {what} at once", fix=fix) from error
        size = max(size // 2, SMALLEST)
        return slices(part.start, part.stop)

    todo = slices(0, n_items) if n_items else iter([slice(0, 0)])
    return [result for _, result in in_smaller_parts(work, todo, split)]


def _release_cached_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
