"""Finds what is not finite: the input, a loss term or a gradient, and in which scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ponderv2.scenes.batch import SceneBatch


def first_bad_number(batches: Sequence[SceneBatch], losses: dict[str, float], model: nn.Module) -> str:
    """Name of the first thing that holds NaN or infinity, and the scenes it belongs to."""
    for batch in batches:
        for name, values in _tensors(batch):
            if not bool(torch.isfinite(values).all()):
                return f"{name} of {_scenes_of(batch, values)}"
    names = ", ".join(name for batch in batches for name in batch.names)
    for name, value in losses.items():
        if not torch.isfinite(torch.tensor(value)):
            return f"loss term '{name}' on {names}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"gradient of {name} on {names}"
    return f"the part of another process (here: {names})"


class BufferCopy:
    """The buffers of a model (running statistics) as they were before a step."""

    def __init__(self, model: nn.Module) -> None:
        self._pairs = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Undoes what the step did to them."""
        for buffer, before in self._pairs:
            buffer.copy_(before)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors in a dataclass, with the names of their fields."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _tensors(getattr(value, entry.name), f"{name}.{entry.name}" if name else entry.name)


def _scenes_of(batch: SceneBatch, values: Tensor) -> str:
    """Scenes whose points are bad; all scenes for what is not stored per point."""
    if len(values) != int(batch.offset[-1]):
        return ", ".join(batch.names)
    starts = [0, *batch.offset.tolist()[:-1]]
    parts = zip(batch.names, starts, batch.offset.tolist(), strict=True)
    return ", ".join(name for name, start, end in parts if not bool(torch.isfinite(values[start:end]).all()))
