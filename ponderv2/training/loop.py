"""The one training loop: step, log, evaluate, save. What a step sees follows from seed and step alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ponderv2.collectives import n_processes, process_number
from ponderv2.errors import TrainingError
from ponderv2.randomness import generator_of, seed_of
from ponderv2.scenes.batch import SceneBatch
from ponderv2.training.checkpoint import Checkpoint, software_versions
from ponderv2.training.config import TrainingConfig
from ponderv2.training.feed import Collate, Datasets, SceneSource, feed
from ponderv2.training.finite import BufferCopy, first_bad_number
from ponderv2.training.interruption import Interruption
from ponderv2.training.logbook import Logbook
from ponderv2.training.optimiser import build_optimiser, load_optimiser, pace_at, set_pace
from ponderv2.training.order import Order, Share
from ponderv2.training.shelf import Shelf
from ponderv2.training.stepper import Stepper, Work

if TYPE_CHECKING:
    import lightning_fabric


@runtime_checkable
class Advance(Protocol):
    """A display of steps done."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """`n` more steps; `fields` are numbers worth seeing."""


@runtime_checkable
class Listener(Protocol):
    """Whoever watches the training."""

    def note(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """One line not to be missed."""

    def progress(self, label: str, total: int, completed: int = 0) -> AbstractContextManager[Advance]:
        """A display of steps done."""
        ...


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and how it is judged."""

    kind: str
    """pretext | segmentation."""
    model: nn.Module
    """`model(batch, generator)` gives a step with `.losses`: named scalars with `.total()`."""
    scenes: SceneSource | Datasets
    """What is trained on; of several datasets each batch comes from one."""
    collate: Collate
    training: TrainingConfig
    seed: int
    folder: Path
    resolved: Mapping[str, Any]
    """All settings of the run, as plain values."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprint of the data."""
    classes: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Callable[[int, Logbook | None], dict[str, float]] | None = None
    """Metrics after a step; runs in every process and must give the same in each."""
    best_metric: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class TrainingOutcome:
    """What a run left behind."""

    folder: Path
    last: Path
    best: Path | None
    step: int
    history: tuple[dict[str, float], ...]
    losses: dict[str, float]
    """Of the last step of this call; empty when there was nothing left to do."""
    skipped_steps: int


def train(
    job: Job, fabric: "lightning_fabric.Fabric", listener: Listener, resume: Checkpoint | None = None
) -> TrainingOutcome:
    """Trains to the last step, from the first or from where `resume` stopped.

    Raises Interrupted after a signal and TrainingError when numbers stay not finite; both after saving.
    """
    return _Training(job, fabric, listener, resume).run()


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self, job: Job, fabric: "lightning_fabric.Fabric", listener: Listener, resume: Checkpoint | None
    ) -> None:
        self.job, self.fabric, self.listener = job, fabric, listener
        self.settings = job.training
        self.step = resume.step if resume else 0
        self.history: list[dict[str, float]] = list(resume.history) if resume else []
        self.losses: dict[str, float] = {}
        self.bad_in_a_row = self.n_skipped = 0
        self.share = Share(
            self.settings.batch_size, n_processes(), process_number(), self.settings.accumulate
        )
        self.stepper = Stepper(job.model)
        optimiser = build_optimiser(job.model, self.settings)
        if resume:
            job.model.load_state_dict(resume.model)
        self.module, self.optimiser = fabric.setup(self.stepper, optimiser)
        if resume and resume.optimiser:
            load_optimiser(self.optimiser.optimizer, resume.optimiser)
        if resume and resume.scaler:
            self._precision.load_state_dict(resume.scaler)
        self.shelf = Shelf(job.folder / "checkpoints", self.settings.keep_steps)
        self.logbook = self._open_logbook()
        self.interruption = Interruption()

    def run(self) -> TrainingOutcome:
        total = self.settings.steps
        parts = self._parts()
        try:
            with self.interruption, self.listener.progress(self.job.kind, total, self.step) as display:
                while self.step < total:
                    shown = self._one_step(parts)
                    display.advance(1, **shown)
                    self._after_step(shown)
        finally:
            if self.logbook:
                self.logbook.close()
        return TrainingOutcome(
            folder=self.job.folder,
            last=self.shelf.last,
            best=self.shelf.best if self.shelf.best.exists() else None,
            step=self.step,
            history=tuple(self.history),
            losses=self.losses,
            skipped_steps=self.n_skipped,
        )

    def _one_step(self, parts: Iterator[SceneBatch]) -> dict[str, float]:
        """Changes the weights once, or not at all when a number is not finite. Returns what to show."""
        started = time.perf_counter()
        rate = set_pace(
            self.optimiser.optimizer, pace_at(self.step, self.settings.steps, self.settings.schedule)
        )
        _set_training(self.job.model, self.settings.frozen)
        before = BufferCopy(self.job.model)
        batches = [next(parts) for _ in range(self.share.n_parts)]
        waited = time.perf_counter() - started
        self.optimiser.zero_grad(set_to_none=True)
        values = torch.stack(
            [self._forward_backward(part, batch) for part, batch in enumerate(batches)]
        ).mean(0)
        norm = self.fabric.clip_gradients(
            self.module,
            self.optimiser,
            max_norm=self.settings.clip_gradient or float("inf"),
            error_if_nonfinite=False,
        )
        self.losses = self._shared(values)
        self._update(batches, before, float(norm))  # pyright: ignore[reportArgumentType]
        self.step += 1
        seconds = time.perf_counter() - started
        return {
            **self.losses,
            "rate": rate,
            "gradient_norm": float(norm),  # pyright: ignore[reportArgumentType]
            "seconds": seconds,
            "waited": waited,
            **_speed(batches, seconds),
            "memory_gib": _memory(self.fabric.device),
        }

    def _forward_backward(self, part: int, batch: SceneBatch) -> Tensor:
        """Adds the gradient of one part; returns its loss terms."""
        place = (self.job.seed, self.step, part)
        # Models draw from the generator they are given; what still reads the global one is repeatable too.
        torch.manual_seed(seed_of("global", *place, process_number()))
        generator = generator_of("step", *place)
        exchange_later = part < self.share.n_parts - 1 and n_processes() > 1
        quiet = self.fabric.no_backward_sync(self.module) if exchange_later else nullcontext()
        with quiet:
            total, values = self.module(Work(batch, generator, self.fabric.device))
            self.fabric.backward(total / self.share.n_parts)
        return values

    def _shared(self, values: Tensor) -> dict[str, float]:
        """Loss terms averaged over the processes. Whether to stop travels with them: all decide alike."""
        stop = values.new_tensor([float(self.interruption.requested)])
        together = torch.cat([values, stop]).double()
        if n_processes() > 1:
            torch.distributed.all_reduce(together)
        *terms, asked = (together / n_processes()).tolist()
        self.stop_asked = asked > 0
        return dict(zip(self.stepper.names, terms, strict=True))

    def _update(self, batches: list[SceneBatch], before: BufferCopy, norm: float) -> None:
        """Lets the optimiser act if the numbers are finite; else counts, and gives up after too many."""
        loss_is_finite = abs(self.losses["loss"]) < float("inf")
        if loss_is_finite and norm < float("inf"):
            self.optimiser.step()
            self.bad_in_a_row = 0
            return
        culprit = first_bad_number(batches, self.losses, self.job.model)
        scale = self._loss_scale()
        if scale is not None:
            self.optimiser.step()  # Skips by itself and halves the loss scale.
        before.restore()
        self.n_skipped += 1
        self._warn(f"step {self.step + 1} skipped: not finite: {culprit}")
        if loss_is_finite and scale is not None and scale > 1.0:
            return
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= self.settings.max_bad_steps:
            self.optimiser.zero_grad(set_to_none=True)
            self._save()
            raise TrainingError(
                f"{self.bad_in_a_row} steps in a row up to step {self.step + 1} were not finite: {culprit}",
                fix=f"--set training.optimiser.rate={self.settings.optimiser.rate / 3:.1e}",
            )

    def _after_step(self, shown: dict[str, float]) -> None:
        """Log, evaluate, save, and stop if asked."""
        settings, step = self.settings, self.step
        if self.logbook:
            self.logbook.step(step, shown)
        is_last = step == settings.steps
        is_best = False
        due = settings.evaluate_every and step % settings.evaluate_every == 0
        if self.job.evaluate and (due or is_last):
            is_best = self._evaluate()
        if is_last or is_best or step % settings.save_every == 0 or step in settings.keep_steps:
            self._save(is_best)
        if self.stop_asked and not is_last:
            self._save()
            raise self.interruption.error(step, str(self.job.folder))

    def _evaluate(self) -> bool:
        """Metrics of this step into the history; whether they are the best so far."""
        assert self.job.evaluate is not None
        self.job.model.eval()
        with torch.no_grad():
            metrics = self.job.evaluate(self.step, self.logbook)
        if self.logbook:
            self.logbook.evaluation(self.step, metrics)
        self._note(
            f"step {self.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        )
        name = self.job.best_metric
        sign = 1.0 if self.job.higher_is_better else -1.0
        earlier = [sign * entry[name] for entry in self.history if name in entry]
        self.history.append({"step": float(self.step), **metrics})
        return name in metrics and all(sign * metrics[name] > value for value in earlier)

    def _save(self, is_best: bool = False) -> None:
        if process_number() != 0:
            return
        checkpoint = Checkpoint(
            kind=self.job.kind,
            config=dict(self.job.resolved),
            model={name: value.detach() for name, value in self.job.model.state_dict().items()},
            step=self.step,
            seed=self.job.seed,
            optimiser=self.optimiser.optimizer.state_dict(),
            scheduler={"steps": self.settings.steps},
            scaler=dict(self._precision.state_dict()) or None,
            history=self.history,
            data=dict(self.job.data),
            classes=dict(self.job.classes),
            versions=software_versions(),
        )
        self.shelf.put(checkpoint, is_best)

    def _parts(self) -> Iterator[SceneBatch]:
        datasets = Datasets.of(self.job.scenes)
        order = Order(datasets.cycle, self.job.seed, self.share, self.step, self.settings.steps)
        return feed(datasets, self.job.collate, order, self.settings.workers)

    def _open_logbook(self) -> Logbook | None:
        if process_number() != 0:
            return None
        return Logbook(self.job.folder, self.job.resolved, self.step, self.settings.tensorboard)

    @property
    def _precision(self) -> Any:
        return self.fabric.strategy.precision

    def _loss_scale(self) -> float | None:
        scaler = getattr(self._precision, "scaler", None)
        return float(scaler.get_scale()) if scaler is not None else None

    def _note(self, text: str) -> None:
        if self.logbook:
            self.logbook.note(text)
            self.listener.note(text)

    def _warn(self, text: str) -> None:
        if self.logbook:
            self.logbook.note(text)
            self.listener.warn(text)


def _set_training(model: nn.Module, frozen: tuple[str, ...]) -> None:
    """Training mode, except for modules that are frozen: their running statistics stay."""
    model.train()
    if not frozen:
        return
    for name, module in model.named_modules():
        if f"{name}.".startswith(frozen):
            module.eval()


def _speed(batches: list[SceneBatch], seconds: float) -> dict[str, float]:
    """Points and rays per second of all processes."""
    points = sum(len(batch.coord) for batch in batches)
    rays = sum(len(batch.pixels.view) for batch in batches if batch.pixels is not None)
    speed = {"points_per_second": points * n_processes() / seconds}
    return speed | ({"rays_per_second": rays * n_processes() / seconds} if rays else {})


def _memory(device: torch.device) -> float:
    """Most memory held so far, GiB: of the graphics card, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
