"""What a start gives with few labels: fine-tuning runs of a preset at several rates, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean

from experiments.gain_figures import Figures, Key, shown
from experiments.jobs import Job, fine_tuned_run
from ponderv2.workflows import evaluate


@dataclass(frozen=True)
class Trial:
    """One fine-tuning run."""

    start: str
    """What it starts from, in words."""
    checkpoints: tuple[Path, ...]
    """That, of each seed, or one for all; none: random weights."""
    budget: str
    """Labels, in words."""
    changes: tuple[str, ...]
    """Settings of the preset, those of the labels among them."""
    rate: float
    seed: int = 0

    @property
    def checkpoint(self) -> Path | None:
        """Run that the encoder comes from."""
        several = len(self.checkpoints) > 1
        return self.checkpoints[self.seed if several else 0] if self.checkpoints else None


@dataclass(frozen=True)
class FewLabels:
    """A question: how well models of a preset do that start from this or that."""

    preset: str
    scenes: Path
    """Folder to train on."""
    parts: Mapping[str, Path]
    """Folders to measure on, by name."""
    metrics: tuple[str, ...]
    """Of `ponder eval`; the first chooses the rate, by its mean over the parts."""
    out: Path
    figures: Figures

    def key(self, split: str, trial: Trial, part: str, metric: str) -> Key:
        """Name of a figure of one run."""
        return split, trial.start, trial.budget, f"{trial.rate:g}", part, metric, str(trial.seed)

    def measured(self, trial: Trial, splits: tuple[str, ...]) -> None:
        """Trains and measures on the rooms of some splits, unless that was done."""
        part, metric = list(self.parts)[-1], self.metrics[-1]  # the last to be written
        if all(self.figures.has(self.key(split, trial, part, metric)) for split in splits):
            return
        changes = [
            *trial.changes,
            f"data.budget.seed={trial.seed}",
            f"seed={trial.seed}",
            f"training.optimiser.rate={trial.rate:g}",
        ]
        with fine_tuned_run(self.preset, trial.checkpoint, self.scenes, changes, self.out) as (done, line):
            for split in splits:
                for part, scenes in self.parts.items():
                    found = evaluate.run(done.folder, scenes=scenes, split=split).metrics
                    for metric in self.metrics:
                        self.figures.put(self.key(split, trial, part, metric), float(found[metric]), line)

    def score(self, trial: Trial) -> float:
        """Mean of the first metric over the validation rooms of the parts; the run is made if need be."""
        self.measured(trial, ("val", "test"))
        return mean(self.figures.value(self.key("val", trial, part, self.metrics[0])) for part in self.parts)

    def full(self, trial: Trial, rates: tuple[float, ...], seed: int) -> None:
        """The test figures with the rate that is best with seed 0 on the validation rooms."""
        tried = [replace(trial, rate=rate, seed=0) for rate in rates]
        best = tried[0] if len(tried) == 1 else max(tried, key=self.score)
        chosen = replace(best, seed=seed)
        self.measured(chosen, ("test",))
        for part in self.parts:
            for metric in self.metrics:
                entry = self.figures.read()[" | ".join(self.key("test", chosen, part, metric))]
                self.figures.put(self._full(trial, part, metric, seed), entry["value"], entry["command"])

    def job(self, trial: Trial, rates: tuple[float, ...], seed: int) -> Job:
        """That as a job."""
        gives = tuple(self._full(trial, part, metric, seed) for part in self.parts for metric in self.metrics)
        name = f"{trial.start}, {trial.budget}, seed {seed}"
        return Job(name, gives, partial(self.full, trial, rates, seed), self.figures)

    def _full(self, trial: Trial, part: str, metric: str, seed: int) -> Key:
        return "full", trial.start, trial.budget, part, metric, str(seed)

    def _column(self, part: str, metric: str) -> str:
        named = ((part, self.parts), (metric, self.metrics))
        return " ".join(one for one, several in named if len(several) > 1)

    def print_table(self) -> None:
        """Test figures in per cent, means over the seeds, and the commands of the first seed."""
        cells: dict[tuple[str, str], dict[str, list[float]]] = {}
        commands: dict[tuple[str, str], str] = {}
        for (start, budget, part, metric, seed), value, line in self.figures.rows("full"):
            cells.setdefault((budget, start), {}).setdefault(self._column(part, metric), []).append(value)
            if seed == "0":
                commands[budget, start] = line
        columns = [self._column(part, metric) for part in self.parts for metric in self.metrics]
        print("| labels | start | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 2))
        for row, values in sorted(cells.items()):
            print(f"| {' | '.join(row)} | " + " | ".join(shown(values.get(c, [])) for c in columns) + " |")
        for row, line in sorted(commands.items()):
            print(f"    {', '.join(row)}: {line}")
