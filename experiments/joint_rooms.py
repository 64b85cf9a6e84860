"""Does it help to pre-train on three datasets at once? Every figure comes from presets and commands.

Run: python -m experiments.joint_rooms --out DIR [--rooms ROOMS] [--jobs '20 points' ...]

`joint_datasets` makes three datasets of generated rooms. `pretrain/rooms_joint` pre-trains one encoder on all
of them without labels; `finetune/rooms_joint` trains on few labels of all of them, from random weights or
from that encoder. What is finished stands in `DIR/results.json`, with its command, and is not done again:
another `--out` for other settings.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from experiments.few_labels import FewLabels, Trial
from experiments.gain_figures import Figures
from experiments.jobs import Job, pretrained, remaining, run_jobs
from experiments.joint_datasets import VARIANTS, write_datasets

PRESET = "rooms_joint"
WAYS: dict[str, tuple[str, ...]] = {"": (), " one normalisation": ("model.encoder.norm_decouple=false",)}
"""How the encoder tells the datasets apart, as changes of both presets."""
BUDGETS = {"20 points": "data.budget.points_per_scene=20", "2 rooms": "data.budget.scenes=2"}
"""Labels in every room, or labelled rooms of each dataset."""
STARTS = ("scratch", "pre-trained")


def rates_of(start: str, budget: str) -> tuple[float, ...]:
    """Around the best of each start on a single dataset with weak augmentation, which comes first."""
    if start == "pre-trained":
        return 3.0e-3, 1.0e-3
    return (1.0e-2, 3.0e-3) if budget.endswith("points") else (3.0e-3, 1.0e-2)


@dataclass(frozen=True)
class Changes:
    """Settings of the presets that the command line changes."""

    pretrain: list[str]
    finetune: list[str]


def pretrain_all(few: FewLabels, way: str, seed: int, own: list[str]) -> None:
    """Pre-trains the encoder on all datasets, or continues it."""
    folder = start_folder(few.out, way, seed)
    changes = [f"seed={seed}", *WAYS[way], *own]
    found = pretrained(PRESET, folder, few.scenes, changes)
    few.figures.put(("start", f"pre-trained{way}", str(seed)), *found)


def start_folder(out: Path, way: str, seed: int) -> Path:
    """Of the run that gives the encoder."""
    return out / "runs" / f"joint{way}-{seed}".replace(" ", "_")


def jobs(few: FewLabels, n_rates: int, n_seeds: int, own: Changes) -> list[Job]:
    """All jobs; the first seed and the encoder of the presets come first."""
    found: list[Job] = []
    for seed in range(n_seeds):
        for way, changes in WAYS.items():
            gives = (("start", f"pre-trained{way}", str(seed)),)
            run = partial(pretrain_all, few, way, seed, own.pretrain)
            found.append(Job(f"pretrain{way}, seed {seed}", gives, run, few.figures))
            encoders = tuple(start_folder(few.out, way, number) for number in range(n_seeds))
            for budget, labels in BUDGETS.items():
                for start in STARTS:
                    rates = rates_of(start, budget)
                    checkpoints = () if start == "scratch" else encoders
                    settings = (labels, *changes, *own.finetune)
                    trial = Trial(f"{start}{way}", checkpoints, budget, settings, rates[0])
                    found.append(few.job(trial, rates[:n_rates], seed))
    return found


def main() -> None:
    """Does what is not done yet, prints a line for each figure and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("joint"))
    parser.add_argument("--rooms", type=Path, default=Path("data/rooms"), help="from `ponder prepare rooms`")
    parser.add_argument("--data", type=Path, help="the three datasets; by default DIR/data, made first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=2, help="how many of the learning rates are tried")
    parser.add_argument(
        "--pretrain", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the preset"
    )
    parser.add_argument(
        "--finetune", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the preset"
    )
    parser.add_argument("--jobs", nargs="*", default=[], metavar="PHRASE", help="only jobs with such a name")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.data or arguments.out / "data"
    parts = {variant.name: data / variant.name for variant in VARIANTS}
    figures = Figures(arguments.out / "results.json")
    few = FewLabels(PRESET, data, parts, ("miou",), arguments.out, figures)
    if not arguments.table:
        if arguments.data is None:
            write_datasets(arguments.rooms, data)
        own = Changes(arguments.pretrain, arguments.finetune)
        run_jobs(remaining(jobs(few, arguments.rates, arguments.seeds, own), arguments.jobs))
    few.print_table()


if __name__ == "__main__":
    main()
