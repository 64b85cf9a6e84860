"""Does pre-training help to find the objects of generated rooms? Every figure comes from shipped presets.

Run: python -m experiments.instance_rooms --out DIR --rooms ROOMS --from RUN [RUN ...]

Models of `finetune/rooms_instance` learn from few labels, from random weights or from a pre-trained encoder:
one run of `ponder pretrain --preset rooms_both` for all seeds, or one for each. What is finished stands in
`DIR/results.json`, with its command, and is not done again: another `--out` for other settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.few_labels import FewLabels, Trial
from experiments.gain_figures import Figures
from experiments.jobs import Job, remaining, run_jobs

METRICS = ("ap50", "ap25", "ap", "miou")
BUDGETS = {
    "20 points": "data.budget.points_per_scene=20",
    "200 points": "data.budget.points_per_scene=200",
    "8 rooms": "data.budget.scenes=8",
    "2 rooms": "data.budget.scenes=2",
}
"""Labels in every room, or labelled rooms."""
STARTS = ("scratch", "pre-trained")


def rates_of(start: str, budget: str) -> tuple[float, ...]:
    """The same for both starts; first what is best for classes with weak augmentation."""
    if start == "scratch" and budget.endswith("points"):
        return 1.0e-2, 3.0e-3, 1.0e-3
    return 3.0e-3, 1.0e-3, 1.0e-2


def jobs(few: FewLabels, encoders: tuple[Path, ...], n_rates: int, n_seeds: int, own: list[str]) -> list[Job]:
    """All jobs; the first seed comes first."""
    found: list[Job] = []
    for seed in range(n_seeds):
        for budget, labels in BUDGETS.items():
            for start in STARTS:
                rates = rates_of(start, budget)
                checkpoints = () if start == "scratch" else encoders
                trial = Trial(start, checkpoints, budget, (labels, *own), rates[0])
                found.append(few.job(trial, rates[:n_rates], seed))
    return found


def main() -> None:
    """Does what is not done yet, prints a line for each figure and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("instances"))
    parser.add_argument("--rooms", type=Path, required=True, help="from `ponder prepare rooms`")
    parser.add_argument("--from", type=Path, nargs="+", dest="encoders", required=True, metavar="RUN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=3, help="how many of the learning rates are tried")
    parser.add_argument(
        "--finetune", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the preset"
    )
    parser.add_argument("--jobs", nargs="*", default=[], metavar="PHRASE", help="only jobs with such a name")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    encoders = tuple(arguments.encoders)
    if len(encoders) not in (1, arguments.seeds):
        parser.error(f"--from takes one run, or one for each of {arguments.seeds} seeds, got {len(encoders)}")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(arguments.out / "results.json")
    few = FewLabels(
        "rooms_instance", arguments.rooms, {"rooms": arguments.rooms}, METRICS, arguments.out, figures
    )
    if not arguments.table:
        found = jobs(few, encoders, arguments.rates, arguments.seeds, arguments.finetune)
        run_jobs(remaining(found, arguments.jobs))
    few.print_table()


if __name__ == "__main__":
    main()
