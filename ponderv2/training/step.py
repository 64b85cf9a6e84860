"""One training step: micro-batches, forward, backward, halving when out of memory, NaN and infinity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ponderv2.collectives import process_rank, world_size
from ponderv2.errors import OutputError, ResourceError
from ponderv2.io.files import write_bytes
from ponderv2.out_of_memory import in_smaller_parts
from ponderv2.randomness import derive_seed, make_generator
from ponderv2.scenes.batch import Batch

if TYPE_CHECKING:
    import lightning_fabric


class StepInput:
    """A batch and its generator. No dataclass: Fabric would cast its coordinates to half precision."""

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
    """The module that Fabric wraps: one forward pass to (loss with its graph, all loss terms without)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names: tuple[str, ...] = ()
        """Of the latest loss terms."""

    def forward(self, step_input: StepInput) -> tuple[Tensor, Tensor]:
        """Total to call backward on, and the terms in the order of `names`."""
        step = self.model(step_input.batch.to(step_input.device), step_input.generator)
        terms = loss_terms(step)
        self.names = terms.names
        return terms.total, terms.values


def loss_terms(step: Any) -> LossTerms:
    """Total, every loss term, and every other scalar that the step measured."""
    total = step.losses.total()
    named: dict[str, Tensor] = {"loss": total}
    named |= named_terms(step.losses)
    for entry in fields(step):
        value = getattr(step, entry.name)
        if isinstance(value, Tensor) and value.dim() == 0:
            named[entry.name] = value
    return LossTerms(total, tuple(named), torch.stack([value.detach().float() for value in named.values()]))


def named_terms(losses: Any) -> dict[str, Tensor]:
    """The terms of the losses of a step: a mapping, or a dataclass whose fields they are."""
    if isinstance(losses, Mapping):
        return dict(losses)
    return {entry.name: getattr(losses, entry.name) for entry in fields(losses)}


MOST_HALVINGS = 4
"""Times that the micro-batches of a step are halved when memory runs out."""


@dataclass(frozen=True)
class MicroBatch:
    """Scenes that pass through the model together."""

    batch: Batch
    weight: float
    """Share of the loss of the step; the shares add up to 1."""


def to_micro_batches(batches: Sequence[Batch], weights: Sequence[float]) -> list[MicroBatch]:
    """The planned parts of a step."""
    return [MicroBatch(batch, weight) for batch, weight in zip(batches, weights, strict=True)]


def split_in_half(micro_batches: Sequence[MicroBatch]) -> list[MicroBatch] | None:
    """Each micro-batch of several scenes as two, in the order of the scenes; None where all have one scene.

    Halves of equal size make exactly the parts of a run with twice the `training.accumulate`.
    """
    found: list[MicroBatch] = []
    for micro_batch in micro_batches:
        parts = micro_batch.batch.halves() if len(micro_batch.batch.offset) > 1 else (micro_batch.batch,)
        n_scenes = n_slots(micro_batch.batch)
        found += [MicroBatch(part, micro_batch.weight * n_slots(part) / n_scenes) for part in parts]
    return found if len(found) > len(micro_batches) else None


def n_slots(batch: Batch) -> int:
    """Number of scenes; merged scenes are counted separately."""
    return len(batch.offset) if batch.slots is None else sum(map(len, batch.slots))


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
        """Steps that needed smaller micro-batches than planned."""

    def __call__(
        self, step: int, batches: Sequence[Batch], weights: Sequence[float], undo: Callable[[], None]
    ) -> Tensor | None:
        """Returns the loss terms of the step and leaves its gradient in the parameters.

        `weights`: share of each batch in the loss of the step, the same in every process.
        When memory runs out, `undo` is called and the micro-batches are halved, up to four times, as with a
        larger `training.accumulate`. Returns None where not even single scenes fit.

        Raises:
            ResourceError: out of memory in one of several processes, which cannot try again alone.
        """
        planned = to_micro_batches(batches, weights)
        n_halvings = 0

        def run(micro_batches: list[MicroBatch]) -> Tensor:
            self._forget()
            terms = [self._one(step, number, micro_batches) for number in range(len(micro_batches))]
            return torch.stack(terms).sum(0)

        def halved(micro_batches: list[MicroBatch], error: BaseException) -> list[list[MicroBatch]]:
            nonlocal n_halvings
            if world_size() > 1:  # the others are in the middle of an exchange with this one
                raise memory_error(batches, {}, single=False) from error
            self._forget()
            undo()
            smaller = split_in_half(micro_batches)
            if smaller is None or n_halvings == MOST_HALVINGS:
                return []
            n_halvings += 1
            self._warn(f"step {step + 1}: out of memory, trying {len(smaller)} parts")
            return [smaller]

        for _, terms in in_smaller_parts(run, [planned], halved):
            self.n_split += n_halvings > 0
            return terms
        return None

    def _one(self, step: int, part: int, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Adds the gradient of one micro-batch; returns its share of the loss terms."""
        micro_batch = micro_batches[part]
        place = (self._seed, step, part)
        # Models draw from the generator they are given; this makes reads of the global one repeatable too.
        torch.manual_seed(derive_seed("global", *place, process_rank()))
        # The same in every micro-batch: each scene draws by its slot in the batch of the step.
        generator = make_generator("step", self._seed, step, 0)
        exchange_later = part < len(micro_batches) - 1 and world_size() > 1
        quiet = self._fabric.no_backward_sync(self._module) if exchange_later else nullcontext()  # pyright: ignore[reportArgumentType]
        with quiet:
            total, values = self._module(StepInput(micro_batch.batch, generator, self._fabric.device))
            self._fabric.backward(total * micro_batch.weight)
        return values * micro_batch.weight

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def memory_error(batches: Sequence[Batch], resolved: Any, single: bool) -> ResourceError:
    """The error when no micro-batch fits. `resolved`: all settings; `single`: not even one scene fits."""
    n_scenes = 1 if single else max(len(batch.offset) for batch in batches)
    names = ", ".join(name for batch in batches for name in batch.names)
    if n_scenes > 1:
        return ResourceError(
            f"out of memory with {n_scenes} scenes per micro-batch ({names})",
            fix=f"--resume --set training.accumulate={2 * len(batches)}",
        )
    size = resolved.get("data", {}).get("voxel", {}).get("size")
    larger = f", or start again with larger voxels: --set data.voxel.size={1.5 * size:.3g}" if size else ""
    return ResourceError(
        f"out of memory even with one scene per micro-batch: {names}", fix=f"close other programs{larger}"
    )


class BufferCopy:
    """The buffers of a model (running statistics) as they were before a step."""

    def __init__(self, model: nn.Module) -> None:
        self._pairs = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Undoes what the step did to them."""
        for buffer, before in self._pairs:
            buffer.copy_(before)


BAD_BATCHES = "bad_batches"


@dataclass(frozen=True, order=True)
class BadNumber:
    """The first NaN or infinity of a step: input before loss before gradient."""

    stage: int
    """0 input, 1 loss, 2 gradient, 3 not found in this process."""
    rank: int
    """The process that found it."""
    text: str
    """Its name and the scenes it belongs to."""


def find_bad_number(batches: Sequence[Batch], losses: dict[str, float], model: nn.Module) -> BadNumber:
    """The first one of all processes, the same in each; every process must call it.

    `losses` are those of the scenes of this process; gradients are already those of all.
    """
    found = _first_bad_number(batches, losses, model, process_rank())
    if world_size() == 1:
        return found
    every: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(every, found)
    return min(every)


def _first_bad_number(
    batches: Sequence[Batch], losses: dict[str, float], model: nn.Module, rank: int
) -> BadNumber:
    for batch in batches:
        for name, values in named_tensors(batch):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                return BadNumber(0, rank, f"{name} of {_scenes_of(batch, values)}")
    names = ", ".join(name for batch in batches for name in batch.names)
    for name, value in losses.items():
        if name != "psnr" and not torch.isfinite(torch.tensor(value)):  # without coloured rays it is NaN
            return BadNumber(1, rank, f"loss term '{name}' on {names}")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return BadNumber(2, rank, f"gradient of {name} on {names}")
    return BadNumber(3, rank, f"something on {names}")


def save_bad_batches(folder: Path, step: int, found: BadNumber, batches: Sequence[Batch], most: int) -> str:
    """Writes the batches that hold the bad number, up to `most` steps of a run; every process must call it.

    `bad_batches/step-N.safetensors` holds `PART.FIELD`, and as metadata the problem, names and condition.
    Returns where the file is, for the message. A file that cannot be written does not end the run.
    """
    path = folder / BAD_BATCHES / f"step-{step}.safetensors"
    others = sorted(path.parent.glob("*.safetensors"))
    if found.rank == process_rank() and (len(others) < most or path in others):
        with suppress(OutputError):
            _write_batches(path, step, found, batches)
    if world_size() > 1:
        torch.distributed.barrier()
    if path.exists():
        return f" (its scenes are kept in {path})"
    return f" (the first such scenes are kept in {path.parent})" if path.parent.exists() else ""


def _write_batches(path: Path, step: int, found: BadNumber, batches: Sequence[Batch]) -> None:
    from safetensors.torch import save

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
    write_bytes(path, save(tensors, notes))


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a dataclass, with the names of their fields."""
    if isinstance(value, Tensor):
        yield name, value
    elif is_dataclass(value):
        for entry in fields(value):
            field = f"{name}.{entry.name}" if name else entry.name
            yield from named_tensors(getattr(value, entry.name), field)


def _scenes_of(batch: Batch, values: Tensor) -> str:
    """Scenes with bad points; all scenes for a tensor that is not per point."""
    if len(values) != int(batch.offset[-1]):
        return ", ".join(batch.names)
    starts = [0, *batch.offset.tolist()[:-1]]
    parts = zip(batch.names, starts, batch.offset.tolist(), strict=True)
    return ", ".join(name for name, start, end in parts if not bool(torch.isfinite(values[start:end]).all()))
