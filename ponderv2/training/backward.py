"""The gradient of one step, in smaller parts when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ponderv2.collectives import n_processes, process_number
from ponderv2.errors import ResourceError, is_out_of_memory
from ponderv2.randomness import derive_seed, make_generator
from ponderv2.scenes.batch import Batch
from ponderv2.training.portions import MOST_HALVINGS, Portion, halved, portions_of
from ponderv2.training.stepper import Work

if TYPE_CHECKING:
    import lightning_fabric


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
        portions = portions_of(batches, weights)
        for attempt in range(MOST_HALVINGS + 1):
            self._forget()
            try:
                terms = [self._one(step, number, portions) for number in range(len(portions))]
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
            smaller = halved(portions)
            if smaller is None or attempt == MOST_HALVINGS:
                break
            portions = smaller
            self._warn(f"step {step + 1}: not enough memory, trying {len(portions)} parts one after another")
        return None

    def _one(self, step: int, part: int, portions: Sequence[Portion]) -> Tensor:
        """Adds the gradient of one part; returns its share of the loss terms."""
        portion = portions[part]
        place = (self._seed, step, part)
        # Models draw from the generator they are given; what still reads the global one is repeatable too.
        torch.manual_seed(derive_seed("global", *place, process_number()))
        # The same in every part: each scene draws by its place in the batch of the step.
        generator = make_generator("step", self._seed, step, 0)
        exchange_later = part < len(portions) - 1 and n_processes() > 1
        quiet = self._fabric.no_backward_sync(self._module) if exchange_later else nullcontext()  # pyright: ignore[reportArgumentType]
        with quiet:
            total, values = self._module(Work(portion.batch, generator, self._fabric.device))
            self._fabric.backward(total * portion.weight)
        return values * portion.weight

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
