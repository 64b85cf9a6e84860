"""Does pre-training by rendering save labels on streets? Every figure comes from the presets and commands.

Run: python -m experiments.streets_gain --streets DATA --out DIR [--jobs 'seed 0' ...]

DATA are generated streets (`ponder prepare streets`, 40 of them with 6 key frames); they are made first where
there are none. Each figure is written into `DIR/results.json` as soon as it is known, with the command that
gives it, and is not measured again: interrupt and repeat the same line to continue. A seventh of the training
streets is held out for choosing settings; the figures are of the validation streets.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from experiments.gain_figures import Figures, Key, print_table
from experiments.jobs import Job, add_job_options, carry_out, command, fine_tuned_run, pretrained, slug
from ponder_cli.presets import load_preset, settings_of
from ponderv2.workflows import evaluate, prepare, protocols
from ponderv2.workflows.config import PrepareConfig, ProtocolsConfig

PRETRAINED = {"LiDAR": "streets_demo"}
"""Preset of each kind of pre-training."""
STARTS = ("random", *PRETRAINED)
BUDGETS = {
    "8 frames": ["data.budget.drives=8", "data.budget.scenes_per_drive=1"],
    "20 points": ["data.budget.points_per_scene=20"],
    "200 points": ["data.budget.points_per_scene=200"],
}
"""A key frame of each of eight streets; or points of every key frame of all streets."""
RATES = ("1e-2", "3e-3")
"""Of fine-tuning: that of the preset, and a lower one. Both are shown, none is chosen."""
FINE_TUNING = ["training.steps=100"]
"""Half the steps of the preset, so that both rates with three seeds take two hours of one core."""
CHOICE_EVERY = 7
PRESET, CHOICE, TEST = "streets_lidarseg", "choice", "val"


@dataclass(frozen=True)
class Bench:
    """Where things are."""

    out: Path
    streets: Path
    figures: Figures
    n_steps: int | None = None
    """Steps of everything, in place of those of the presets: for trying the experiment out."""

    @property
    def data(self) -> Path:
        """The same streets with a split for choices."""
        return self.out / "streets"

    def prepare(self) -> None:
        """Generates the streets where there are none, and divides them."""
        if not self.streets.is_dir():
            changes = [
                f"out={self.streets}",
                "source.scenes=40",
                "source.key_frames=6",
                "source.sweeps=false",
            ]
            prepare.run(load_preset("prepare", "streets", changes, PrepareConfig))
        if not self.data.is_dir():
            divide(self.streets, self.data)

    def steps(self) -> list[str]:
        """Changes for a trial."""
        return [] if self.n_steps is None else [f"training.steps={self.n_steps}"]


def divide(streets: Path, target: Path) -> None:
    """The streets with links to their files and tables of their own, beside which stand the splits."""
    from ponderv2.data.scene_folder import open_folder

    store = open_folder(streets)
    drives = {
        split: list(dict.fromkeys(name.partition("/")[0] for name in store.names(split)))
        for split in ("train", TEST)
    }
    splits = {
        "train": [one for number, one in enumerate(drives["train"]) if number % CHOICE_EVERY != 0],
        CHOICE: drives["train"][::CHOICE_EVERY],
        TEST: drives[TEST],
    }
    temporary = target.with_name(f"{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for folder in streets.iterdir():
        if folder.name.startswith("v1.0-"):
            shutil.copytree(folder, temporary / folder.name)
            (temporary / folder.name / "splits.json").write_text(json.dumps(splits))
        else:
            (temporary / folder.name).symlink_to(folder.absolute())
    temporary.replace(target)


def pretrain_start(bench: Bench, start: str, seed: int) -> None:
    """Pre-trains the encoder of a start, or continues it."""
    changes = [f"seed={seed}", *bench.steps()]
    found = pretrained(PRETRAINED[start], start_folder(bench, start, seed), bench.data, changes)
    bench.figures.put(("start", start, str(seed)), *found)


def start_folder(bench: Bench, start: str, seed: int) -> Path:
    """Of the run that gives the encoder of a start."""
    return bench.out / "runs" / slug(start, str(seed))


def probe(bench: Bench, start: str, budget: str, seed: int) -> None:
    """The frozen encoder, and beside the first start a random one and the input itself, by a linear layer."""
    folder = start_folder(bench, start, seed)
    changes = [*BUDGETS[budget], f"data.budget.seed={seed}", f"data.seed={seed}"]
    baselines = start == next(iter(PRETRAINED))
    request = protocols.ComparisonRequest(("linear",), baselines, settings_of(changes, ProtocolsConfig))
    found = protocols.run([folder], request, scenes=bench.data, split=TEST)
    words = [
        "eval",
        f"runs/{folder.name}",
        "--protocols",
        "linear",
        "--split",
        TEST,
        *(["--baselines"] if baselines else []),
    ]
    names = {found.protocols[0]["features"]: start, "random encoder": "random"}
    for row in found.protocols:
        name = names.get(row["features"], str(row["features"]))
        line = command(*words, changes=changes)
        bench.figures.put((str(row["protocol"]), name, budget, str(seed)), float(row["miou"]), line)


def fine_tuned(bench: Bench, start: str, seed: int, changes: list[str], split: str) -> tuple[float, str]:
    """Mean IoU of a fine-tuned model on the scenes of a split, and the command that trains it."""
    checkpoint = None if start == "random" else start_folder(bench, start, seed)
    changes = [*changes, *FINE_TUNING, *bench.steps()]
    with fine_tuned_run(PRESET, checkpoint, bench.data, changes, bench.out) as (done, line):
        return float(evaluate.run(done.folder, scenes=bench.data, split=split).metrics["miou"]), line


def fine_tune(bench: Bench, start: str, budget: str, seed: int, rate: str = RATES[0]) -> None:
    """Fine-tunes a start with a budget."""
    changes = [*BUDGETS[budget], f"data.budget.seed={seed}", f"seed={seed}"]
    changes += [] if rate == RATES[0] else [f"training.optimiser.rate={rate}"]
    bench.figures.put(full_key(start, budget, seed, rate), *fine_tuned(bench, start, seed, changes, TEST))


def full_key(start: str, budget: str, seed: int, rate: str = RATES[0]) -> Key:
    """Of the figure of a fine-tuned start."""
    kind = "full" if rate == RATES[0] else f"full at {rate}"
    return (kind, start, budget, str(seed))


def jobs(bench: Bench, n_seeds: int) -> list[Job]:
    """All jobs: frozen encoders of all seeds, then fine-tuning, a budget and a seed after the other."""
    found: list[Job] = []
    for seed in range(n_seeds):
        word = str(seed)
        for start in PRETRAINED:
            run = partial(pretrain_start, bench, start, seed)
            found.append(
                Job(f"pretrain, {start}, seed {seed}", (("start", start, word),), run, bench.figures)
            )
        for budget in BUDGETS:
            for start in PRETRAINED:
                names = (start, "random") if start == next(iter(PRETRAINED)) else (start,)
                gives = tuple(("linear", one, budget, word) for one in names)
                run = partial(probe, bench, start, budget, seed)
                found.append(Job(f"probe, {start}, {budget}, seed {seed}", gives, run, bench.figures))
    seeds = range(n_seeds)
    fully = [(budget, seed, rate) for budget in reversed(BUDGETS) for rate in RATES for seed in seeds]
    for budget, seed, rate in fully:
        for start in STARTS:
            run = partial(fine_tune, bench, start, budget, seed, rate)
            name = f"full, {start}, {budget}, seed {seed}, rate {rate}"
            found.append(Job(name, (full_key(start, budget, seed, rate),), run, bench.figures))
    return found


def main() -> None:
    """Does what is not done yet, and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("streets_gain"))
    parser.add_argument(
        "--streets", type=Path, help="generated streets; by default DIR/generated, made first"
    )
    add_job_options(parser)
    parser.add_argument("--steps", type=int, help="of every run, to try the experiment out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(arguments.out / "results.json")
    streets = arguments.streets or arguments.out / "generated"
    bench = Bench(arguments.out, streets, figures, arguments.steps)
    if carry_out(jobs(bench, arguments.seeds), arguments, bench.prepare):
        print_table(figures, "the validation streets")


if __name__ == "__main__":
    main()
