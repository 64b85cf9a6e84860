"""One training step: micro-batches, forward, backward, halving when out of memory, NaN and infinity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ponderv2.collectives import n_processes, process_number
from ponderv2.errors import OutputError, ResourceError, is_out_of_memory
from ponderv2.io.files import write_bytes
from ponderv2.randomness import derive_seed, make_generator
from ponderv2.scenes.batch import Batch, halves
from ponderv2.training.distributed import to_device

if TYPE_CHECKING:
    import lightning_fabric


class StepInput:
    """A batch and its random numbers. No dataclass: wrappers would cast its coordinates to half precision."""

    def __init__(self, batch: Batch, generator: torch.Generator, device: torch.device) -> None:
        self.batch = batch
        self.generator = generator
        self.device = device


@dataclass(frozen=True)
class LossTerms:
    """The numbers of a step, by name; `loss` is the total."""

    total: Tensor
    names: tuple[str, ...]
    values: Tensor


class TrainStep(nn.Module):
    """Calls the model and returns (loss with its graph, all loss terms without)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names: tuple[str, ...] = ()
        """Of the loss terms of the latest step."""

    def forward(self, step_input: StepInput) -> tuple[Tensor, Tensor]:
        """Total to call backward on, and the terms in the order of `names`."""
        step = self.model(to_device(step_input.batch, step_input.device), step_input.generator)
        terms = loss_terms(step)
        self.names = terms.names
        return terms.total, terms.values


def loss_terms(step: Any) -> LossTerms:
    """Total, every loss term, and every other scalar that the step measured."""
    total = step.losses.total()
    named: dict[str, Tensor] = {"loss": total}
    named |= {entry.name: getattr(step.losses, entry.name) for entry in fields(step.losses)}
    for entry in fields(step):
        value = getattr(step, entry.name)
        if isinstance(value, Tensor) and value.dim() == 0:
            named[entry.name] = value
    return LossTerms(total, tuple(named), torch.stack([value.detach().float() for value in named.values()]))


class Backward:
    """Forward and backward through the wrapped model."""

    def __init__(
        self,
        fabric: "lightning_fabric.Fabric",
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        seed: int,
        warn: Callable[[str], None],
    ) -> None:
        self._fabric, self._module, self._seed, self._warn = fabric, module, seed, warn
        self._parameters = parameters
        self.n_split = 0
        """Steps that were done in smaller parts than planned."""

    def __call__(
        self, step: int, batches: Sequence[Batch], weights: Sequence[float], undo: Callable[[], None]
    ) -> Tensor | None:
        """Loss terms of the step, and its gradient in the parameters.

        `weights` are the shares of the batches in the step, the same in every process.
        Where memory runs out, `undo` is called and parts half as large are tried, up to four times: exactly
        what a run with so large a `training.accumulate` does. None where not even single scenes fit.

        Raises:
            ResourceError: memory ran out in one of several processes, which cannot try again alone.
        """
        micro_batches = to_micro_batches(batches, weights)
        for attempt in range(MOST_HALVINGS + 1):
            self._forget()
            try:
                terms = [self._one(step, number, micro_batches) for number in range(len(micro_batches))]
                self.n_split += attempt > 0
                return torch.stack(terms).sum(0)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if n_processes() > 1:  # the others are in the middle of an exchange with this one
                    raise memory_error(batches, {}, single=False) from error
            # Out of the except block nothing holds the arrays of the failed pass any longer.
            self._forget()
            undo()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            smaller = split_in_half(micro_batches)
            if smaller is None or attempt == MOST_HALVINGS:
                break
            micro_batches = smaller
            self._warn(f"step {step + 1}: out of memory, trying {len(micro_batches)} parts")
        return None

    def _one(self, step: int, part: int, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Adds the gradient of one part; returns its share of the loss terms."""
        micro_batch = micro_batches[part]
        place = (self._seed, step, part)
        # Models draw from the generator they are given; what still reads the global one is repeatable too.
        torch.manual_seed(derive_seed("global", *place, process_number()))
        # The same in every part: each scene draws by its place in the batch of the step.
        generator = make_generator("step", self._seed, step, 0)
        exchange_later = part < len(micro_batches) - 1 and n_processes() > 1
        quiet = self._fabric.no_backward_sync(self._module) if exchange_later else nullcontext()  # pyright: ignore[reportArgumentType]
        with quiet:
            total, values = self._module(StepInput(micro_batch.batch, generator, self._fabric.device))
            self._fabric.backward(total * micro_batch.weight)
        return values * micro_batch.weight

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def memory_error(batches: Sequence[Batch], resolved: Any, single: bool) -> ResourceError:
    """What to say when memory stays too small, for single scenes or for all; `resolved`: the settings."""
    n_scenes = 1 if single else max(len(batch.offset) for batch in batches)
    names = ", ".join(name for batch in batches for name in batch.names)
    if n_scenes > 1:
        return ResourceError(
            f"not enough memory for {n_scenes} scenes at once ({names})",
            fix=f"--resume --set training.accumulate={2 * len(batches)}",
        )
    size = resolved.get("data", {}).get("voxel", {}).get("size")
    larger = f", or start again with larger voxels: --set data.voxel.size={1.5 * size:.3g}" if size else ""
    return ResourceError(
        f"not enough memory for a single one of the scenes {names}", fix=f"close other programs{larger}"
    )


MOST_HALVINGS = 4


@dataclass(frozen=True)
class MicroBatch:
    """Scenes that go through the model together."""

    batch: Batch
    weight: float
    """Share of the loss of the step; the shares add up to 1."""


def to_micro_batches(batches: Sequence[Batch], weights: Sequence[float]) -> list[MicroBatch]:
    """Every part as it came."""
    return [MicroBatch(batch, weight) for batch, weight in zip(batches, weights, strict=True)]


def split_in_half(micro_batches: Sequence[MicroBatch]) -> list[MicroBatch] | None:
    """Each with more than one scene in two, in the order of the scenes; None where every one has a single.

    Halves of equal size make exactly the parts of a run with twice the `training.accumulate`.
    """
    found: list[MicroBatch] = []
    for micro_batch in micro_batches:
        parts = halves(micro_batch.batch) if len(micro_batch.batch.offset) > 1 else (micro_batch.batch,)
        n_scenes = n_slots(micro_batch.batch)
        found += [MicroBatch(part, micro_batch.weight * n_slots(part) / n_scenes) for part in parts]
    return found if len(found) > len(micro_batches) else None


def n_slots(batch: Batch) -> int:
    """Its scenes, those that were merged counted each."""
    return len(batch.offset) if batch.slots is None else sum(map(len, batch.slots))


BAD_BATCHES = "bad_batches"


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


def save_bad_batches(
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
    return folder / BAD_BATCHES / f"step-{step}.safetensors"


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
