"""Does pre-training help instance segmentation of generated rooms? Average precision over seeds.

Run: python -m experiments.instance_rooms --rooms DIR [--from CKPT] [--json FILE]

Each run trains the model of `finetune/demo_instance` on parts of a few rooms and is measured on all rooms of
the other split. Without --from only random weights are tried. What is finished stands in the JSON file and is
not done again, so that an interrupted experiment continues where it stopped.
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

METRICS = ("ap", "ap50", "ap25", "miou")
Row = dict[str, float | int | str]


def config(args: argparse.Namespace, seed: int) -> FinetuneConfig:
    """The shipped preset on columns of the rooms, so that a step is cheap."""
    changes = [
        f"seed={seed}",
        f"scenes={args.rooms}",
        f"data.budget.scenes={args.labelled}",
        "data.crop.shape=column",
        f"data.crop.radius={args.radius}",
        f"training.steps={args.steps}",
        "training.evaluate_every=0",
        f"training.save_every={args.steps}",
        "training.tensorboard=false",
    ]
    return load_preset("finetune", "demo_instance", changes, FinetuneConfig)


def one_run(args: argparse.Namespace, start: str, seed: int) -> Row:
    """Trains and measures one model."""
    begin = time.process_time()
    with TemporaryDirectory() as folder:
        result = finetune.run(
            config(args, seed),
            checkpoint=args.start if start == "pretrained" else None,
            scenes=args.rooms,
            out=Path(folder),
            name="run",
        )
        numbers = evaluate.run(result.folder, scenes=args.rooms)
    figures = {name: numbers.metrics[name] for name in METRICS}
    return {"start": start, "seed": seed, **figures, "cpu_seconds": time.process_time() - begin}


def summary(rows: list[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds, per start."""
    found: list[Row] = []
    for start in sorted({str(row["start"]) for row in rows}):
        own = [row for row in rows if row["start"] == start]
        line: Row = {"start": start, "seeds": len(own)}
        for name in METRICS:
            values = [float(row[name]) for row in own]
            line |= {name: mean(values), f"{name}_std": stdev(values) if len(values) > 1 else 0.0}
        found.append(line)
    return found


def main() -> None:
    """Prints a line per run and the means, and keeps everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=Path, required=True, help="from `ponder prepare synthetic`")
    parser.add_argument("--from", type=Path, dest="start", help="run of `ponder pretrain --preset demo`")
    parser.add_argument("--labelled", type=int, default=8, help="rooms to train on")
    parser.add_argument("--radius", type=float, default=1.5, help="of a training column, metres")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("instance_rooms.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = {"labelled": args.labelled, "radius": args.radius, "steps": args.steps}
    rows: list[Row] = []
    if args.json.is_file():
        stored = json.loads(args.json.read_text())
        if stored["about"] != about:
            raise SystemExit(f"{args.json} holds other settings: {stored['about']}")
        rows = stored["runs"]
    done = {(row["start"], row["seed"]) for row in rows}
    for seed in range(args.seeds):
        for start in ["scratch", *(["pretrained"] if args.start else [])]:
            if (start, seed) in done:
                continue
            rows.append(one_run(args, start, seed))
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
            text = json.dumps({"about": about, "runs": rows, "means": summary(rows)}, indent=2)
            args.json.write_text(text + "\n")
    for line in summary(rows):
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()})


if __name__ == "__main__":
    main()
