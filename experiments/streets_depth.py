"""What does pre-training a 2D network by rendering streets bring where few images have depths?

Run: python -m experiments.streets_depth --out DIR [--streets DATA] [--jobs 'seed 0' ...]

Every figure comes from the presets and commands, is written into `DIR/results.json` with the command that
gives it once it is known, and is not measured again: interrupt and repeat the same line to continue. DATA
are generated streets, made first where there are none. Pre-training sees the images and LiDAR scans of all
training streets; depth is learned from the six images of one key frame of each of eight of them, at one
learning rate for all starts, and measured on the streets for validation.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from experiments.gain_figures import Figures
from experiments.jobs import Job, add_job_options, carry_out, fine_tuned_run, pretrained, slug
from ponder_cli.presets import load_preset
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig

PRESET = "streets_depth"
RANDOM = ("model.encoder.weights=random",)
PRETRAINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ImageNet, pre-trained": (),
        # Nothing is known yet: statistics of the images themselves, and the whole rate.
        "random, pre-trained": (
            *RANDOM,
            "model.encoder.norm_eval=false",
            "training.optimiser.encoder_rate=1.0",
        ),
        "ImageNet, pre-trained by rendering alone": ("model.lift.depth.loss_weight=0.0",),
    }
)
"""Changes of the preset `streets_camera`."""
SCRATCH: Mapping[str, tuple[str, ...]] = MappingProxyType({"ImageNet": (), "random": RANDOM})
"""Starts without pre-training, and changes of the preset of depth."""
STARTS = ("random", "random, pre-trained", "ImageNet", "ImageNet, pre-trained")
ONCE = ("ImageNet, pre-trained by rendering alone",)
"""Starts that are measured with the first seed alone."""
BUDGET = ("data.budget.drives=8", "data.budget.scenes_per_drive=1")
METRICS = ("abs_rel", "rmse", "delta1")
STEPS = {"pretrain": 160, "full": 60}


@dataclass(frozen=True)
class Bench:
    """Where things are."""

    out: Path
    streets: Path
    figures: Figures
    n_steps: int | None = None
    """Steps of everything, for trying the experiment out."""

    def prepare(self) -> None:
        """Generates the streets where there are none."""
        if not self.streets.is_dir():
            sizes = ["source.scenes=40", "source.key_frames=6", "source.sweeps=false"]
            prepare.run(load_preset("prepare", "streets", [f"out={self.streets}", *sizes], PrepareConfig))

    def steps(self, kind: str) -> list[str]:
        """Steps of a run, which is validated at its end."""
        steps = self.n_steps or STEPS[kind]
        return [f"training.steps={steps}", f"training.evaluate_every={steps}"]

    def folder(self, start: str, seed: int) -> Path:
        """Of the run that gives the encoder of a start."""
        return self.out / "runs" / slug(start, str(seed))


def pretrain_start(bench: Bench, start: str, seed: int) -> None:
    """Pre-trains the encoder of a start, or continues it."""
    changes = [*PRETRAINED[start], f"seed={seed}", *bench.steps("pretrain")]
    found = pretrained("streets_camera", bench.folder(start, seed), bench.streets, changes)
    bench.figures.put(("start", start, str(seed)), *found)


def read_out(bench: Bench, kind: str, start: str, seed: int) -> None:
    """Depth from a start: the linear probe, or everything trained."""
    checkpoint = None if start in SCRATCH else bench.folder(start, seed)
    changes = [*SCRATCH.get(start, ()), *BUDGET, f"data.budget.seed={seed}", f"seed={seed}"]
    changes += [] if kind == "linear" else bench.steps("full")
    protocol = "linear" if kind == "linear" else None
    with fine_tuned_run(PRESET, checkpoint, bench.streets, changes, bench.out, protocol) as (done, line):
        for metric in METRICS:
            bench.figures.put((kind, start, metric, str(seed)), done.metrics[metric], line)


def jobs(bench: Bench, n_seeds: int) -> list[Job]:
    """All jobs in the order of what they tell: the first seed first."""
    found: list[Job] = []
    for seed in range(n_seeds):
        word = str(seed)
        for start in reversed(STARTS):
            if start in PRETRAINED:
                found.append(_pretraining(bench, start, seed))
            found += [_reading(bench, kind, start, word) for kind in ("linear", "full")]
    for start in ONCE:
        found.append(_pretraining(bench, start, 0))
        found += [_reading(bench, kind, start, "0") for kind in ("linear", "full")]
    return found


def _pretraining(bench: Bench, start: str, seed: int) -> Job:
    run = partial(pretrain_start, bench, start, seed)
    return Job(f"pretrain, {start}, seed {seed}", (("start", start, str(seed)),), run, bench.figures)


def _reading(bench: Bench, kind: str, start: str, word: str) -> Job:
    gives = tuple((kind, start, metric, word) for metric in METRICS)
    run = partial(read_out, bench, kind, start, int(word))
    return Job(f"{kind}, {start}, seed {word}", gives, run, bench.figures)


def print_table(figures: Figures) -> None:
    """Mean and sample deviation over the seeds, and the commands of the first."""
    for kind in ("linear", "full"):
        cells: dict[tuple[str, str], list[float]] = {}
        lines: dict[str, str] = {}
        for (start, metric, seed), value, line in figures.rows(kind):
            cells.setdefault((start, metric), []).append(value)
            if seed == "0":
                lines[start] = line
        print(f"\n{kind}\n\n| start | AbsRel | RMSE, m | delta < 1.25, % | seeds |\n|" + " --- |" * 5)
        for start in (*STARTS, *ONCE):
            each = [cells.get((start, metric), []) for metric in METRICS]
            if each[0]:
                words = [_shown(each[0], 3), _shown(each[1], 2), _shown([100 * v for v in each[2]], 1)]
                print(f"| {start} | {' | '.join(words)} | {len(each[0])} |")
        for start, line in lines.items():
            print(f"    {start}: {line}")


def _shown(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main() -> None:
    """Does what is not done yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("streets_depth"))
    parser.add_argument("--streets", type=Path, help="generated streets; by default DIR/generated")
    add_job_options(parser)
    parser.add_argument("--steps", type=int, help="of every run, to try the experiment out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(arguments.out / "results.json")
    streets = arguments.streets or arguments.out / "generated"
    bench = Bench(arguments.out, streets, figures, arguments.steps)
    if carry_out(jobs(bench, arguments.seeds), arguments, bench.prepare):
        print_table(figures)


if __name__ == "__main__":
    main()
