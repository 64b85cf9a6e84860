"""Does pre-training help instance segmentation of generated rooms? Average precision over seeds.

Run: python -m experiments.instance_rooms --rooms DIR [--from RUN] [--json FILE]

Each run trains the model of `finetune/rooms_instance` on a few rooms and is measured on the test rooms. The
learning rate of each start comes from one grid, by the validation rooms with seed 0. Without --from only
random weights are tried. What is finished stands in the JSON file and is not done again: an interrupted
experiment continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch

from ponder_cli.presets import load_preset
from ponderv2.workflows import evaluate, finetune
from ponderv2.workflows.config import FinetuneConfig

RATES = (1.0e-3, 3.0e-3, 1.0e-2)
METRICS = ("ap", "ap50", "ap25", "miou")
Row = dict[str, float | int | str]


def config(args: argparse.Namespace, seed: int, rate: float) -> FinetuneConfig:
    """The shipped preset with a few rooms."""
    changes = [
        f"seed={seed}",
        f"data.budget.scenes={args.labelled}",
        f"data.budget.seed={seed}",
        f"training.steps={args.steps}",
        f"training.optimiser.rate={rate}",
        "training.threads=1",
    ]
    return load_preset("finetune", "rooms_instance", changes, FinetuneConfig)


def one_run(args: argparse.Namespace, start: str, seed: int, rate: float, split: str) -> Row:
    """Trains and measures one model."""
    begin = time.process_time()
    with TemporaryDirectory() as folder:
        result = finetune.run(
            config(args, seed, rate),
            checkpoint=args.start if start == "pretrained" else None,
            scenes=args.rooms,
            out=Path(folder),
            name="run",
        )
        numbers = evaluate.run(result.folder, scenes=args.rooms, split=split)
    figures = {name: numbers.metrics[name] for name in METRICS}
    spent = time.process_time() - begin
    return {"start": start, "seed": seed, "rate": rate, "split": split, **figures, "cpu_seconds": spent}


def summary(rows: list[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds, per start."""
    found: list[Row] = []
    for start in sorted({str(row["start"]) for row in rows}):
        own = [row for row in rows if row["start"] == start and row["split"] == "test"]
        if not own:
            continue
        line: Row = {"start": start, "seeds": len(own)}
        for name in METRICS:
            values = [float(row[name]) for row in own]
            line |= {name: mean(values), f"{name}_std": stdev(values) if len(values) > 1 else 0.0}
        found.append(line)
    return found


def main() -> None:
    """Prints a line per run and the means, and keeps everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=Path, required=True, help="from `ponder prepare rooms`")
    parser.add_argument("--from", type=Path, dest="start", help="run of `ponder pretrain --preset rooms`")
    parser.add_argument("--labelled", type=int, default=8, help="rooms to train on")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("instance_rooms.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = {"labelled": args.labelled, "steps": args.steps}
    rows: list[Row] = []
    if args.json.is_file():
        stored = json.loads(args.json.read_text())
        if stored["about"] != about:
            raise SystemExit(f"{args.json} holds other settings: {stored['about']}")
        rows = stored["runs"]

    def measured(start: str, seed: int, rate: float, split: str) -> Row:
        for row in rows:
            if (row["start"], row["seed"], row["rate"], row["split"]) == (start, seed, rate, split):
                return row
        rows.append(one_run(args, start, seed, rate, split))
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
        text = json.dumps({"about": about, "runs": rows, "means": summary(rows)}, indent=2)
        args.json.write_text(text + "\n")
        return rows[-1]

    starts = ["scratch", *(["pretrained"] if args.start else [])]
    best = {
        start: max(RATES, key=lambda rate: float(measured(start, 0, rate, "val")["ap50"])) for start in starts
    }
    for seed in range(args.seeds):
        for start in starts:
            measured(start, seed, best[start], "test")
    for line in summary(rows):
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()})


if __name__ == "__main__":
    main()
