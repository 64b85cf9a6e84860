"""Does pre-training by rendering save labels? Every figure comes from the shipped presets and the commands.

Run: python -m experiments.pretraining_gain --out DIR [--jobs 'seed 0' ...]

The rooms are generated first. Each figure is written into `DIR/results.json` as soon as it is known, with the
command that gives it, and is not measured again: interrupt and repeat the same line to continue. Seed 0 of
everything comes first. The table is printed at the end, and at any time by `--table`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.gain_figures import Figures, print_table, write_plots
from experiments.gain_jobs import Bench, jobs
from experiments.jobs import add_job_options, carry_out


def main() -> None:
    """Does what is not done yet, and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gain"))
    parser.add_argument("--rooms", type=Path, help="prepared rooms; by default DIR/rooms, made first")
    add_job_options(parser)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(arguments.out / "results.json")
    bench = Bench(arguments.out, arguments.rooms or arguments.out / "rooms", figures)
    if carry_out(jobs(bench, arguments.seeds), arguments, bench.prepare):
        print_table(figures)
        write_plots(figures, arguments.out)


if __name__ == "__main__":
    main()
