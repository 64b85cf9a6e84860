"""The training loop: step, log, save, validate. The data of a step follow from seed and step alone."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ponderv2.collectives import all_gather_lists, process_rank, world_size
from ponderv2.errors import TrainingError
from ponderv2.scenes.batch import Batch
from ponderv2.training.bad_scenes import BadScene, BadScenes
from ponderv2.training.checkpoint import Checkpoint, software_versions
from ponderv2.training.checkpoint_manager import CheckpointManager, Retention
from ponderv2.training.data_loader import Datasets, LoadedBatch, WorkerDied, load_batches
from ponderv2.training.devices import peak_memory, precision_in_use
from ponderv2.training.interruption import Interruption, stopped
from ponderv2.training.job import Job, TrainingOutcome
from ponderv2.training.optimiser import build_optimiser, load_optimiser, lr_at, set_lr, set_train_mode
from ponderv2.training.ranks import attempt, raise_together
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger
from ponderv2.training.sampler import RankShare, Sampler
from ponderv2.training.step import (
    Backward,
    BufferCopy,
    TrainStep,
    find_bad_number,
    memory_error,
    save_bad_batches,
)
from ponderv2.training.validation import History, validate

if TYPE_CHECKING:
    import lightning_fabric


def train(
    job: Job, fabric: "lightning_fabric.Fabric", reporter: Reporter, resume: Checkpoint | None = None
) -> TrainingOutcome:
    """Trains to the last step, from the first or from where `resume` stopped.

    Raises, after saving, Interrupted on a signal, TrainingError when values remain non-finite, SceneError
    when too many scenes cannot be read, ResourceError when memory stays too small or a data worker died.
    """
    return _Training(job, fabric, reporter, resume).run()


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self, job: Job, fabric: "lightning_fabric.Fabric", reporter: Reporter, resume: Checkpoint | None
    ) -> None:
        self.job, self.fabric, self.reporter = job, fabric, reporter
        self.settings = job.training
        self.step = resume.step if resume else 0
        self.history = History(resume.history if resume else (), job.best_metric, job.higher_is_better)
        self.losses: dict[str, float] = {}
        self.bad_in_a_row = self.n_skipped = self.stop_signal = 0
        self.bad_scenes: list[BadScene] = []
        self.excluded = BadScenes(job.folder, self.settings.max_bad_scenes)
        self.precision = precision_in_use(job.training, fabric.device.type)
        self.share = RankShare(
            self.settings.batch_size, world_size(), process_rank(), self.settings.accumulate
        )
        self.datasets = Datasets.of(job.scenes)
        mix = self.datasets.mix_probability
        schedule, last = self.datasets.schedule, self.settings.steps
        self.sampler = Sampler(schedule, job.seed, self.share, self.step, last, mix)
        self.train_step = TrainStep(job.model)
        optimiser = build_optimiser(job.model, self.settings, job.encoder_stages)
        if resume:
            job.model.load_state_dict(resume.model)
        self.module, self.optimiser = fabric.setup(self.train_step, optimiser)
        if resume and resume.optimiser:
            load_optimiser(self.optimiser.optimizer, resume.optimiser)
        if resume and resume.scaler:
            self._autocast.load_state_dict(resume.scaler)
        self.checkpoints = CheckpointManager(job.folder / "checkpoints", Retention.of(self.settings))
        self.is_saved = resume is not None
        """Whether the last checkpoint is of this step."""
        self.logger = self._open_logger()
        self._describe_precision(resume)
        if mix > 0 and self.share.part_size == 1 and world_size() > 1:
            self._note(
                "Mix3D merges pairs of scenes: with one scene a part, processes have none in some steps; "
                f"--set training.batch_size={2 * self.settings.batch_size} gives all of them scenes"
            )
        self.interruption = Interruption()
        parameters = list(job.model.parameters())
        self.backward = Backward(fabric, self.module, parameters, job.seed, self._warn)

    def run(self) -> TrainingOutcome:
        total = self.settings.steps
        try:
            with (
                closing(self._load_batches()) as loaded,
                self.interruption,
                self.reporter.progress(self.job.kind, total, self.step) as display,
            ):
                if self.step == total and not self.is_saved:  # a run without steps
                    self._save()
                if self._validation_is_due:  # the run ended between the save and the end of its validation
                    self._validate()
                while self.step < total:
                    shown = self._one_step(loaded)
                    # Of rays without a colour there is no psnr.
                    display.advance(1, **{k: v for k, v in shown.items() if k != "psnr" or v == v})
                    self._after_step(shown)
        except WorkerDied as died:
            raise died.explained(self.step) from died
        finally:
            if self.logger:
                self.logger.close()
        return TrainingOutcome(
            folder=self.job.folder,
            last=self.checkpoints.last,
            best=self.checkpoints.best if self.checkpoints.best.exists() else None,
            step=self.step,
            history=tuple(self.history.entries),
            losses=self.losses,
            skipped_steps=self.n_skipped,
            split_steps=self.backward.n_split,
            bad_scenes=tuple(self.excluded.scenes),
            precision=str(self.precision),
        )

    def _describe_precision(self, resume: Checkpoint | None) -> None:
        """Reports a precision that differs from the settings or from the run so far."""
        if self.precision.note:
            self._note(self.precision.note)
        before = resume.versions.get("precision") if resume else None
        if before is not None and before != str(self.precision):
            self._warn(f"the run was started in precision {before} and continues in {self.precision}")

    def _one_step(self, loaded: Iterator[LoadedBatch]) -> dict[str, float]:
        """Changes the weights once, or not at all on a non-finite number or when out of memory.

        Returns the numbers to log.
        """
        started = time.perf_counter()
        steps = self.settings.steps
        lr = lr_at(self.step, steps, self.settings.schedule)
        rate = set_lr(self.optimiser.optimizer, lr, (self.step + 1) / steps)
        set_train_mode(self.job.model, self.settings.frozen)
        before = BufferCopy(self.job.model)
        batches = self._next_batches(loaded)
        waited = time.perf_counter() - started
        norm = math.nan
        weights = self.sampler.weights(self.step)
        if (values := self.backward(self.step, batches, weights, before.restore)) is None:
            self._skip_for_memory(batches)
        else:
            norm = float(self._clipped())
            self.losses = self._shared(values)
            self._update(batches, before, norm, values)
        self.step += 1
        self.is_saved = False
        seconds = time.perf_counter() - started
        return {
            **self.losses,
            "rate": rate,
            "gradient_norm": norm,
            "seconds": seconds,
            "waited": waited,
            **_speed(batches, seconds),
            "memory_gib": peak_memory(self.fabric.device),
        }

    def _next_batches(self, loaded: Iterator[LoadedBatch]) -> list[Batch]:
        """The batches of this process. Where the scenes of one process fail, all raise its error."""

        def fetch() -> list[LoadedBatch]:
            try:
                return [next(loaded) for _ in self.sampler.weights(self.step)]
            except WorkerDied as died:
                raise died.explained(self.step) from died

        parts, error = attempt(fetch)
        raise_together(error, self.fabric.device)
        assert parts is not None
        self.bad_scenes += [scene for part in parts for scene in part.bad]
        return [part.batch for part in parts]

    def _clipped(self) -> Tensor | float:
        """Norm of the gradient before it is clipped."""
        return self.fabric.clip_gradients(  # pyright: ignore[reportReturnType]
            self.module,
            self.optimiser,
            max_norm=self.settings.clip_gradient or float("inf"),
            error_if_nonfinite=False,
        )

    def _skip_for_memory(self, batches: list[Batch]) -> None:
        """Counts a step that ran out of memory; too many in a row end the run."""
        self.losses = {"loss": math.nan}
        self.stop_signal = self.interruption.signal
        self.n_skipped += 1
        self.bad_in_a_row += 1
        names = ", ".join(name for batch in batches for name in batch.names)
        self._warn(f"step {self.step + 1} skipped: out of memory with single scenes of {names}")
        if self.bad_in_a_row >= self.settings.max_bad_steps:
            self._save()
            raise memory_error(batches, self.job.resolved, single=True)

    def _shared(self, values: Tensor) -> dict[str, float]:
        """Loss terms averaged over the processes; signals and bad scenes travel with them."""
        several = world_size()
        asked = values.new_zeros(several + 1)
        asked[process_rank()] = float(self.interruption.signal)
        asked[-1] = float(len(self.bad_scenes))
        together = torch.cat([values, asked]).double()
        if several > 1:
            torch.distributed.all_reduce(together)
        terms = (together[: len(values)] / several).tolist()
        *signals, n_bad = together[len(values) :].tolist()
        self.stop_signal = int(max(signals))
        if n_bad > 0:
            self._exclude(all_gather_lists(self.bad_scenes))
        return dict(zip(self.train_step.names, terms, strict=True))

    def _exclude(self, found: list[BadScene]) -> None:
        """Reports each unreadable scene once; too many end the run."""
        self.bad_scenes = []
        new = self.excluded.add(found)
        if not new:
            return
        if self.logger:
            self.excluded.write(new, self.step + 1)
        for scene in new:
            self._warn(f"step {self.step + 1}: {scene.name} was replaced by another scene: {scene.reason}")
        if self.excluded.is_full:
            self._save()
            raise self.excluded.error()

    def _update(self, batches: list[Batch], before: BufferCopy, norm: float, values: Tensor) -> None:
        """Takes the optimiser's step if all numbers are finite; too many bad steps in a row end the run."""
        loss_is_finite = abs(self.losses["loss"]) < float("inf")
        if loss_is_finite and norm < float("inf"):
            self.optimiser.step()
            self.bad_in_a_row = 0
            return
        own = dict(zip(self.train_step.names, values.tolist(), strict=True))
        bad = find_bad_number(batches, own, self.job.model)
        most = self.settings.keep_bad_batches
        culprit = bad.text + save_bad_batches(self.job.folder, self.step + 1, bad, batches, most)
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
        """Log, save, stop on a signal, validate. Saving comes first: a failing validation loses no step."""
        settings, step = self.settings, self.step
        if self.logger:
            self.logger.step(step, shown)
        is_last, is_due = step == settings.steps, self._validation_is_due
        is_kept = step % settings.save_every == 0 or step in settings.keep_steps
        if is_last or is_due or is_kept or self.stop_signal:
            self._save()
        if self.stop_signal and (is_due or not is_last):
            raise stopped(self.stop_signal, step, str(self.job.folder))
        if is_due:
            self._validate()

    @property
    def _validation_is_due(self) -> bool:
        """Whether this step is to be validated and was not yet."""
        every, step = self.settings.evaluate_every, self.step
        due = step == self.settings.steps or (every > 0 and step > 0 and step % every == 0)
        return due and not self.history.has(step) and self.job.validation is not None

    def _validate(self) -> None:
        """Adds the metrics of this step to the history, and saves it.

        Raises, in every process: Interrupted on a signal, and what the scene of any process raised.
        """
        assert self.job.validation is not None
        self.job.model.eval()
        try:
            with torch.no_grad():
                found = validate(self.job.validation, self.step, self.logger, self.interruption)
        except Exception:
            self._warn(f"the validation after step {self.step} failed; --resume repeats it, no step is lost")
            raise
        if found.metrics is not None:
            self._report_validation(found.metrics)
            self._save(is_best=self.history.add(self.step, found.metrics))
        if found.signal and (found.metrics is None or self.step < self.settings.steps):
            raise stopped(found.signal, self.step, str(self.job.folder))

    def _report_validation(self, metrics: dict[str, float]) -> None:
        if self.logger:
            self.logger.evaluation(self.step, metrics)
        numbers = {name: value for name, value in metrics.items() if not math.isnan(value)}
        self._note(
            f"step {self.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        )

    def _save(self, is_best: bool = False) -> None:
        if process_rank() != 0:
            return
        checkpoint = Checkpoint(
            kind=self.job.kind,
            config=dict(self.job.resolved),
            model={name: value.detach() for name, value in self.job.model.state_dict().items()},
            step=self.step,
            seed=self.job.seed,
            optimiser=self.optimiser.optimizer.state_dict(),
            scheduler={"steps": self.settings.steps},
            scaler=dict(self._autocast.state_dict()) or None,
            history=self.history.entries,
            data=dict(self.job.data),
            classes=dict(self.job.classes),
            versions=software_versions()
            | {"threads": str(torch.get_num_threads()), "precision": str(self.precision)},
        )
        self.checkpoints.put(checkpoint, is_best, again=self.is_saved)
        self.is_saved = True

    def _load_batches(self) -> Generator[LoadedBatch, None, None]:
        workers, most = self.settings.workers, self.settings.max_bad_scenes
        return load_batches(self.datasets, self.job.collate, self.sampler, workers, most)

    def _open_logger(self) -> RunLogger | None:
        if process_rank() != 0:
            return None
        return RunLogger(
            self.job.folder,
            self.job.resolved,
            self.step,
            self.settings.tensorboard,
            self.settings.log_megabytes,
            {"precision": str(self.precision)},
            is_validated=not self._validation_is_due,
        )

    @property
    def _autocast(self) -> Any:
        return self.fabric.strategy.precision

    def _loss_scale(self) -> float | None:
        scaler = getattr(self._autocast, "scaler", None)
        return float(scaler.get_scale()) if scaler is not None else None

    def _note(self, text: str) -> None:
        if self.logger:
            self.logger.note(text)
            self.reporter.note(text)

    def _warn(self, text: str) -> None:
        if self.logger:
            self.logger.note(text)
            self.reporter.warn(text)


def _speed(batches: list[Batch], seconds: float) -> dict[str, float]:
    """Points and rays per second of all processes."""
    points = sum(len(batch.coord) for batch in batches)
    rays = sum(len(batch.pixels.view) for batch in batches if batch.pixels is not None)
    speed = {"points_per_second": points * world_size() / seconds}
    return speed | ({"rays_per_second": rays * world_size() / seconds} if rays else {})
