"""Work in parts that get smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ponderv2.errors import ResourceError, is_out_of_memory

Part = TypeVar("Part")

SMALLEST = 64


def in_parts(work: Callable[[slice], Part], n_items: int, chunk: int) -> list[Part]:
    """`work` on slices of at most `chunk` of `n_items` items; halved, down to 64, when memory runs out.

    One empty slice when there are no items. Raises ResourceError when the smallest part does not fit.
    """
    parts: list[Part] = []
    start = 0
    while start < n_items or not parts:
        try:
            part = work(slice(start, min(start + chunk, n_items)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if chunk <= SMALLEST:
                raise ResourceError(
                    f"not enough memory for {SMALLEST} rays or points at once", fix="close other programs"
                ) from error
            chunk = max(chunk // 2, SMALLEST)
            continue
        parts.append(part)
        start += chunk
    return parts
