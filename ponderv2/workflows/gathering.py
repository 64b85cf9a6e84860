"""Lists that several processes filled, joined in all of them."""

from __future__ import annotations

from typing import TypeVar

import torch

from ponderv2.collectives import n_processes

Row = TypeVar("Row")


def gathered(rows: list[Row]) -> list[Row]:
    """The rows of all processes, in order of rank; the same list in each."""
    if n_processes() == 1:
        return rows
    parts: list[list[Row]] = [[] for _ in range(n_processes())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]
