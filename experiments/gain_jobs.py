"""The jobs of the pre-training experiment: runs of the workflows with the shipped presets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.gain_figures import Figures, Key
from experiments.jobs import Job, command, fine_tuned_run, has_begun, pretrained, slug
from ponder_cli.presets import load_preset, settings_of
from ponderv2.workflows import evaluate, finetune, prepare, protocols
from ponderv2.workflows.config import FinetuneConfig, PrepareConfig, ProtocolsConfig

PRETRAINED = {
    "image features": "rooms",
    "clusters": "rooms_clusters",
    "plain": "rooms_plain",
    "image features, clusters": "rooms_both",
    "2D labels": "rooms_semantic",
}
"""Preset of each kind of pre-training."""
FIRST = "image features"
CEILING = "3D labels of all rooms"
STARTS = ("random", *PRETRAINED, CEILING)
BUDGETS = {
    "20 points": "data.budget.points_per_scene=20",
    "1 rooms": "data.budget.scenes=1",
    "200 points": "data.budget.points_per_scene=200",
    "4 rooms": "data.budget.scenes=4",
}
"""Labels in every room, or labelled rooms."""
RATES = {budget: ((1.0e-3, 1.0), (3.0e-3, 1.0), (1.0e-2, 1.0)) for budget in ("20 points", "1 rooms")}
"""Of fine-tuning, and the factor of the encoder, by the smallest budget of each kind: one grid for random
weights and the first kind of pre-training, on the validation rooms with seed 0. The best of that serves
the others."""
LENGTHS = (100, 200, 400, 800, 1200)
"""Steps of fine-tuning from random weights, whose curve says whether it has converged."""
CEILING_STEPS, CEILING_RATE = 1500, 1.0e-2
CURVE = 400
"""Steps between two probes of the curve of pre-training."""


@dataclass(frozen=True)
class Bench:
    """Where things are."""

    out: Path
    rooms: Path
    figures: Figures

    def prepare(self) -> None:
        """Generates the rooms where there are none."""
        if not self.rooms.is_dir():
            prepare.run(load_preset("prepare", "rooms", [f"out={self.rooms}"], PrepareConfig))

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.out / "runs"


def start_folder(bench: Bench, start: str, seed: int) -> Path:
    """Of the run that gives the encoder of a start."""
    return bench.runs / slug(start, str(seed))


def pretrain_start(bench: Bench, start: str, seed: int) -> None:
    """Pre-trains the encoder of a start, or continues it."""
    folder = start_folder(bench, start, seed)
    if start == CEILING:
        changes = [
            f"seed={seed}",
            f"training.steps={CEILING_STEPS}",
            f"training.optimiser.rate={CEILING_RATE}",
        ]
        config = load_preset("finetune", "rooms", [*changes, "training.threads=1"], FinetuneConfig)
        done = finetune.run(
            config, scenes=bench.rooms, out=bench.runs, name=folder.name, resume=has_begun(folder)
        )
        line = command("finetune", "--preset", "rooms", "--scratch", "--name", folder.name, changes=changes)
        bench.figures.put(("start", start, str(seed)), done.seconds, line)
        return
    changes = [f"seed={seed}"]
    if seed == 0:
        changes += [f"training.keep_every={CURVE}", "training.keep_newest=100"]
    found = pretrained(PRETRAINED[start], folder, bench.rooms, changes)
    bench.figures.put(("start", start, str(seed)), *found)


def probe(bench: Bench, start: str, budget: str, seed: int) -> None:
    """The frozen encoder by a linear layer and by its nearest neighbours, and beside the first start also a
    random encoder and what the sensor measured."""
    folder = start_folder(bench, start, seed)
    baselines = start == FIRST
    changes = [BUDGETS[budget], f"data.budget.seed={seed}", f"data.seed={seed}"]
    words = ["eval", f"runs/{folder.name}", "--protocols", "linear,knn", "--split", "test"]
    line = command(*words, *(["--baselines"] if baselines else []), changes=changes)
    for kind, name, value in probed(bench, folder, changes, ("linear", "knn"), baselines):
        bench.figures.put((kind, name or start, budget, str(seed)), value, line)


def probed(
    bench: Bench, checkpoint: Path, changes: list[str], kinds: tuple[str, ...], baselines: bool = False
) -> list[tuple[str, str, float]]:
    """Protocol, name of a baseline (empty for the checkpoint) and mean IoU on the test rooms."""
    settings = settings_of(changes, ProtocolsConfig)
    request = protocols.ComparisonRequest(kinds, baselines, settings)
    found = protocols.run([checkpoint], request, scenes=bench.rooms, split="test")
    names = {"random encoder": "random"}
    first = found.protocols[0]["features"]
    return [
        (
            str(row["protocol"]),
            "" if row["features"] == first else names.get(row["features"], str(row["features"])),
            float(row["miou"]),
        )
        for row in found.protocols
    ]


def curve(bench: Bench, start: str) -> None:
    """The linear probe at checkpoints on the way of pre-training."""
    folder = start_folder(bench, start, 0)
    for path in sorted((folder / "checkpoints").glob("step-*.pth")):
        steps = path.stem.removeprefix("step-")
        key = ("curve", start, steps)
        if int(steps) % CURVE == 0 and not bench.figures.has(key):
            changes = [BUDGETS["20 points"]]
            line = command(
                "eval",
                f"runs/{folder.name}/checkpoints/{path.name}",
                "--protocols",
                "linear",
                "--split",
                "test",
                changes=changes,
            )
            bench.figures.put(key, probed(bench, path, changes, ("linear",))[0][2], line)
    bench.figures.put(("curve done", start), 1.0, "")


def fine_tuned(bench: Bench, start: str, seed: int, changes: list[str], split: str) -> tuple[float, str]:
    """Mean IoU of a fine-tuned model on the rooms of a split, and the command that trains it."""
    checkpoint = None if start == "random" else start_folder(bench, start, seed)
    with fine_tuned_run("rooms", checkpoint, bench.rooms, changes, bench.out) as (done, line):
        return float(evaluate.run(done.folder, scenes=bench.rooms, split=split).metrics["miou"]), line


def rate_changes(rate: tuple[float, float]) -> list[str]:
    """Settings of one entry of the grid."""
    return [f"training.optimiser.rate={rate[0]:g}", f"training.optimiser.encoder_rate={rate[1]:g}"]


def rate_key(start: str, budget: str, rate: tuple[float, float]) -> Key:
    """Name of the figure of one entry of the grid."""
    return "rate", start, budget, f"{rate[0]:g} x {rate[1]:g}"


def choose_rate(bench: Bench, start: str, budget: str) -> None:
    """Tries the grid of learning rates with a budget and seed 0, on the validation rooms."""
    for rate in RATES[budget]:
        key = rate_key(start, budget, rate)
        if not bench.figures.has(key):
            changes = [BUDGETS[budget], *rate_changes(rate)]
            bench.figures.put(key, *fine_tuned(bench, start, 0, changes, "val"))


def chosen_rate(bench: Bench, start: str, budget: str) -> tuple[float, float]:
    """The best rate for the smallest budget of the same kind."""
    smallest = next(one for one in RATES if one.split()[1] == budget.split()[1])
    searched = start if start == "random" else FIRST
    return max(RATES[smallest], key=lambda rate: bench.figures.value(rate_key(searched, smallest, rate)))


def fine_tune(bench: Bench, start: str, budget: str, seed: int) -> None:
    """Fine-tunes a start with a budget and measures it on the test rooms."""
    changes = [BUDGETS[budget], f"data.budget.seed={seed}", f"seed={seed}"]
    changes += rate_changes(chosen_rate(bench, start, budget))
    bench.figures.put(("full", start, budget, str(seed)), *fine_tuned(bench, start, seed, changes, "test"))


def lengths(bench: Bench, start: str, budget: str) -> None:
    """The same with fewer and with more steps: whether scratch has converged."""
    rates = rate_changes(chosen_rate(bench, start, budget))
    for steps in LENGTHS:
        key = ("length", start, budget, str(steps))
        if not bench.figures.has(key):
            changes = [BUDGETS[budget], f"training.steps={steps}", *rates]
            bench.figures.put(key, *fine_tuned(bench, start, 0, changes, "test"))


def jobs(bench: Bench, n_seeds: int) -> list[Job]:
    """All jobs in the order of what they tell: the first seed and the smallest budgets first."""
    found: list[Job] = []
    for seed in range(n_seeds):
        found += frozen_jobs(bench, seed) + fine_tuning_jobs(bench, seed)
        if seed == 0:
            found += curve_jobs(bench)
    return found


def frozen_jobs(bench: Bench, seed: int) -> list[Job]:
    """Pre-training, and probes of what comes of it."""
    found: list[Job] = []
    for budget in BUDGETS:
        for start in (*PRETRAINED, CEILING):
            words = (str(seed),)
            if budget == "20 points":
                run = partial(pretrain_start, bench, start, seed)
                name = f"pretrain, {start}, seed {seed}"
                found.append(Job(name, (("start", start, *words),), run, bench.figures))
            names = (start, "random") if start == FIRST else (start,)
            gives = tuple((kind, one, budget, *words) for kind in ("linear", "knn") for one in names)
            run = partial(probe, bench, start, budget, seed)
            found.append(Job(f"probe, {start}, {budget}, seed {seed}", gives, run, bench.figures))
    return found


def fine_tuning_jobs(bench: Bench, seed: int) -> list[Job]:
    """Choice of learning rates, with the first seed, and fine-tuning."""
    found: list[Job] = []
    for budget in BUDGETS:
        for start in STARTS:
            if seed == 0 and budget in RATES and start in ("random", FIRST):
                tried = tuple(rate_key(start, budget, rate) for rate in RATES[budget])
                run = partial(choose_rate, bench, start, budget)
                found.append(Job(f"rates, {start}, {budget}", tried, run, bench.figures))
            gives = (("full", start, budget, str(seed)),)
            run = partial(fine_tune, bench, start, budget, seed)
            found.append(Job(f"full, {start}, {budget}, seed {seed}", gives, run, bench.figures))
    return found


def curve_jobs(bench: Bench) -> list[Job]:
    """Figures against steps."""
    found = [
        Job(f"curve, {start}", (("curve done", start),), partial(curve, bench, start), bench.figures)
        for start in PRETRAINED
    ]
    for start in ("random", FIRST):
        for budget in RATES:
            gives = tuple(("length", start, budget, str(steps)) for steps in LENGTHS)
            run = partial(lengths, bench, start, budget)
            found.append(Job(f"lengths, {start}, {budget}", gives, run, bench.figures))
    return found
