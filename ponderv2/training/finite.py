"""Finds what is not finite: the input, a loss term or a gradient, and in which scene; keeps the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponderv2.collectives import n_processes
from ponderv2.errors import OutputError
from ponderv2.io.files import write_bytes
from ponderv2.scenes.batch import Batch

FOLDER = "bad_batches"


@dataclass(frozen=True, order=True)
class BadNumber:
    """The first thing that holds NaN or infinity; what comes first in a step is less."""

    stage: int
    """0 input, 1 loss, 2 gradient, 3 not found in this process."""
    rank: int
    """The process that found it."""
    text: str
    """Its name and the scenes it belongs to."""


def first_bad_number(
    batches: Sequence[Batch], losses: dict[str, float], model: nn.Module, rank: int = 0
) -> BadNumber:
    """In this process. `losses` are those of its own scenes; gradients are already those of all."""
    for batch in batches:
        for name, values in named_tensors(batch):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                return BadNumber(0, rank, f"{name} of {_scenes_of(batch, values)}")
    names = ", ".join(name for batch in batches for name in batch.names)
    for name, value in losses.items():
        if name != "psnr" and not torch.isfinite(torch.tensor(value)):  # of rays without colour it is nan
            return BadNumber(1, rank, f"loss term '{name}' on {names}")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return BadNumber(2, rank, f"gradient of {name} on {names}")
    return BadNumber(3, rank, f"something on {names}")


def of_all_processes(found: BadNumber) -> BadNumber:
    """The one that comes first in the step, the same in every process. All of them must call it."""
    if n_processes() == 1:
        return found
    every: list[Any] = [None] * n_processes()
    torch.distributed.all_gather_object(every, found)
    return min(every)


def keep_batches(
    folder: Path, step: int, found: BadNumber, batches: Sequence[Batch], most: int
) -> Path | None:
    """Writes the scenes of a step that was skipped as plain tensors; None when `most` are there already.

    `step-N.safetensors` holds `PART.FIELD` and as metadata what was wrong, the names and the condition.
    That it cannot be written must not end the run.
    """
    from safetensors.torch import save

    path = batches_path(folder, step)
    there = sorted(path.parent.glob("*.safetensors"))
    if len(there) >= most and path not in there:
        return None
    tensors = {
        f"{part}.{name}": values.detach().cpu().clone().contiguous()
        for part, batch in enumerate(batches)
        for name, values in named_tensors(batch)
    }
    notes = {
        "step": str(step),
        "problem": found.text,
        "names": "\n".join(",".join(batch.names) for batch in batches),
        "condition": batches[0].condition,
    }
    try:
        write_bytes(path, save(tensors, notes))
    except OutputError:
        return None
    return path


def batches_path(folder: Path, step: int) -> Path:
    """Where the scenes of a step are kept."""
    return folder / FOLDER / f"step-{step}.safetensors"


class BufferCopy:
    """The buffers of a model (running statistics) as they were before a step."""

    def __init__(self, model: nn.Module) -> None:
        self._pairs = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Undoes what the step did to them."""
        for buffer, before in self._pairs:
            buffer.copy_(before)


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a dataclass, with the names of their fields."""
    if isinstance(value, Tensor):
        yield name, value
    elif is_dataclass(value):
        for entry in fields(value):
            field = f"{name}.{entry.name}" if name else entry.name
            yield from named_tensors(getattr(value, entry.name), field)


def _scenes_of(batch: Batch, values: Tensor) -> str:
    """Scenes whose points are bad; all scenes for what is not stored per point."""
    if len(values) != int(batch.offset[-1]):
        return ", ".join(batch.names)
    starts = [0, *batch.offset.tolist()[:-1]]
    parts = zip(batch.names, starts, batch.offset.tolist(), strict=True)
    return ", ".join(name for name, start, end in parts if not bool(torch.isfinite(values[start:end]).all()))
