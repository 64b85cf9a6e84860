"""Does pre-training by rendering help? Linear probes and fine-tuning with few labels, on generated rooms.

Run: `python -m experiments.pretraining_gain --rooms DIR [--stage probe|finetune|all]`.
The rooms are generated first where the folder does not exist. What is finished is kept in `--out` and is
not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.gain_learning import (
    Encoded,
    FinetuneSettings,
    PretrainSettings,
    calibrate,
    encode_room,
    evaluate,
    finetune,
    fit_probe,
    new_encoder,
    pretrain,
    score_probe,
    with_few_points,
)
from experiments.gain_rooms import Room, read_rooms
from experiments.gain_targets import found_classes
from ponderv2.data.scene_folder import open_folder
from ponderv2.encoder.config import MaskConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer.config import ClassesConfig, RenderLossConfig

State = dict[str, Tensor]
N_FOUND = 48
STARTS = ("random", "plain", "surroundings", "semantic", "control")
"""Where an encoder starts: not trained; colour, depth and distance; these and classes that were found
without labels, from the surroundings of points;
these and rendered 2D classes; ordinary training with the 3D labels of all rooms."""


@dataclass(frozen=True)
class Budget:
    """Either few labelled rooms, or few labelled points in every room."""

    kind: str
    amount: int

    @property
    def name(self) -> str:
        return f"{self.amount} {self.kind}"


@dataclass(frozen=True)
class GainSettings:
    """Everything that the figures depend on."""

    n_rooms: int = 120
    n_validation: int = 8
    """Of the held-out rooms, for choosing learning rates; the others are the test rooms."""
    n_test: int = 12
    n_pixels: int = 8000
    voxel: float = 0.15
    pretrain_steps: int = 1500
    control_steps: int = 800
    finetune_steps: int = 300
    rates: tuple[tuple[float, bool, float], ...] = (
        (1.2e-2, False, 1.0),
        (3e-2, False, 1.0),
        (3e-3, True, 1.0),
        (1e-3, True, 1.0),
        (3e-3, True, 0.3),
    )
    """Learning rate, whether the head starts as a linear probe, and the encoder's share of the rate."""
    rooms_budgets: tuple[int, ...] = (1, 2, 4, 8)
    points_budgets: tuple[int, ...] = (20, 50, 100, 200)
    choice: dict[str, int] = field(default_factory=lambda: {"rooms": 2, "points": 20})
    """The budget of each kind at which the learning rates are chosen, once for each start."""
    seeds: tuple[int, ...] = (0, 1, 2)

    def budgets(self) -> list[Budget]:
        """All budgets, smallest first."""
        rooms = [Budget("rooms", amount) for amount in self.rooms_budgets]
        return rooms + [Budget("points", amount) for amount in self.points_budgets]


@dataclass
class Results:
    """Figures by name, in a file that is written after each of them."""

    path: Path
    figures: dict[str, float | list[float]]

    @staticmethod
    def open(path: Path) -> Results:
        """What an earlier run left, or nothing."""
        return Results(path, json.loads(path.read_text()) if path.is_file() else {})

    def put(self, name: str, value: float | list[float]) -> None:
        """Keep a figure."""
        self.figures = {**(json.loads(self.path.read_text()) if self.path.is_file() else {}), name: value}
        self.path.write_text(json.dumps(self.figures, indent=1, sort_keys=True))
        print(f"{name}: {value}", flush=True)


@dataclass(frozen=True)
class Bench:
    """The rooms, the settings and where results go."""

    settings: GainSettings
    train: list[Room]
    validation: list[Room]
    test: list[Room]
    n_classes: int
    out: Path
    device: str
    results: Results

    def labelled(self, budget: Budget, seed: int) -> list[Room]:
        """The rooms with the labels that a budget leaves; the choice depends on the seed."""
        if budget.kind == "points":
            return [with_few_points(room, budget.amount, seed) for room in self.train]
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(1000 + seed))
        return [self.train[i] for i in order[: budget.amount].tolist()]


def pretrain_settings(start: str, n_classes: int) -> PretrainSettings:
    """What each kind of pre-training renders."""
    mask = MaskConfig(block_size=4, ratio=0.3)
    classes = RenderLossConfig(semantic=3.0, semantic_target=ClassesConfig())
    match start:
        case "plain":
            return PretrainSettings(rate=6e-3, mask=mask)
        case "surroundings":
            return PretrainSettings(rate=6e-3, mask=mask, n_targets=N_FOUND, losses=classes)
        case "semantic":
            return PretrainSettings(rate=6e-3, n_targets=n_classes, losses=classes)
        case _:
            raise ValueError(f"no pre-training of kind '{start}'")


def weights(bench: Bench, start: str) -> State | None:
    """The encoder of a kind of start, trained if that has not been done."""
    if start == "random":
        return None
    path = bench.out / f"{start}.pt"
    if path.is_file():
        return torch.load(path, map_location=bench.device)
    begun = time.perf_counter()
    if start == "control":
        full = FinetuneSettings(steps=bench.settings.control_steps, rate=1e-2)
        trained = finetune(None, bench.train, bench.n_classes, full, 0, bench.device)
        state = trained.backbone.state_dict()
    else:
        state = _pretrained(bench, start)
    torch.save(state, path)
    bench.results.put(f"seconds {start}", round(time.perf_counter() - begun))
    return state


def _pretrained(bench: Bench, start: str) -> State:
    rooms = bench.train
    if start == "surroundings":
        labels = found_classes(rooms, N_FOUND)
        rooms = [replace(room, label=label) for room, label in zip(rooms, labels, strict=True)]

    def gate(step: int, model: PretextModel, seconds: float) -> None:
        labelled = bench.labelled(Budget("points", 20), 0)[:60]
        encoded = list(_encoded(bench, model.backbone, labelled).values())
        held_out = list(_encoded(bench, model.backbone, bench.validation).values())
        fitted = fit_probe(encoded, labelled, bench.n_classes)
        bench.results.put(f"gate {start} {step}", score_probe(fitted, held_out, bench.validation))

    steps = bench.settings.pretrain_steps
    gates = tuple(steps * part // 6 for part in (2, 4))
    return pretrain(rooms, pretrain_settings(start, bench.n_classes), steps, 0, bench.device, gate, gates)


def probe_stage(bench: Bench, starts: list[str], budgets: list[Budget]) -> None:
    """Frozen linear probes on the test rooms; seeds choose the labels and the random encoder."""
    for start in starts:
        names = [f"probe {start} {budget.name}" for budget in budgets]
        if all(name in bench.results.figures for name in names):
            continue
        found: dict[str, list[float]] = {name: [] for name in names}
        state = weights(bench, start)
        for seed in bench.settings.seeds:
            if seed == bench.settings.seeds[0] or start == "random":
                encoder = new_encoder(state, seed, bench.device)
                if start == "random":
                    calibrate(encoder, bench.train[:10], bench.settings.voxel, bench.device)
                encoded = _encoded(bench, encoder, bench.train)
                test = _encoded(bench, encoder, bench.test)
            for name, budget in zip(names, budgets, strict=True):
                labelled = bench.labelled(budget, seed)
                fitted = fit_probe([encoded[room.name] for room in labelled], labelled, bench.n_classes)
                found[name].append(score_probe(fitted, list(test.values()), bench.test))
        for name, values in found.items():
            bench.results.put(name, values)


def _encoded(bench: Bench, encoder: nn.Module, rooms: list[Room]) -> dict[str, Encoded]:
    return {room.name: encode_room(encoder, room, bench.settings.voxel, bench.device) for room in rooms}


def finetune_once(
    bench: Bench, start: str, budget: Budget, settings: FinetuneSettings, seed: int, held_out: list[Room]
) -> float:
    """Mean IoU on held-out rooms after fine-tuning with a budget."""
    labelled = bench.labelled(budget, seed)
    trained = finetune(weights(bench, start), labelled, bench.n_classes, settings, seed, bench.device)
    return evaluate(trained, held_out, bench.n_classes, bench.settings.voxel, bench.device)


def chosen_settings(bench: Bench, start: str, kind: str) -> FinetuneSettings:
    """The best learning rates of a start, by the validation rooms with seed 0."""
    budget = Budget(kind, bench.settings.choice[kind])
    grid = [
        FinetuneSettings(bench.settings.finetune_steps, rate=rate, probe_first=first, encoder_share=share)
        for rate, first, share in bench.settings.rates
    ]
    scores = []
    for settings in grid:
        head = "probe" if settings.probe_first else "random"
        name = f"choice {start} {kind} rate {settings.rate:g} head {head} encoder {settings.encoder_share:g}"
        if name not in bench.results.figures:
            bench.results.put(name, finetune_once(bench, start, budget, settings, 0, bench.validation))
        scores.append(float(bench.results.figures[name]))  # pyright: ignore[reportArgumentType]
    return grid[scores.index(max(scores))]


def finetune_stage(bench: Bench, starts: list[str], budgets: list[Budget]) -> None:
    """Fine-tuning on all budgets, smallest first."""
    for budget in budgets:
        for start in starts:
            settings = chosen_settings(bench, start, budget.kind)
            for seed in bench.settings.seeds:
                name = f"finetune {start} {budget.name} seed {seed}"
                if name not in bench.results.figures:
                    bench.results.put(name, finetune_once(bench, start, budget, settings, seed, bench.test))


def table(figures: dict[str, float | list[float]], budgets: list[Budget]) -> str:
    """Mean and sample deviation in per cent, one row per start."""
    lines = ["start        | " + " | ".join(f"{budget.name:>12}" for budget in budgets)]
    for start in STARTS:
        cells = []
        for budget in budgets:
            prefix = f"finetune {start} {budget.name} seed "
            cells.append(shown([float(v) for k, v in figures.items() if k.startswith(prefix)]))  # pyright: ignore
        lines.append(f"{start:12} | " + " | ".join(f"{cell:>12}" for cell in cells))
    lines += [f"{name}: {shown(list(value))}" for name, value in figures.items() if isinstance(value, list)]
    return "\n".join(lines)


def shown(values: list[float]) -> str:
    """Mean +- sample deviation, per cent."""
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):.1f} +- {100 * deviation:.1f}"


def generate(folder: Path, settings: GainSettings) -> None:
    """As many rooms as are needed; those that are there already stay."""
    from ponderv2.datasets.generated.config import SyntheticConfig
    from ponderv2.workflows import prepare
    from ponderv2.workflows.config import PrepareConfig

    n_held_out = settings.n_validation + settings.n_test
    source = SyntheticConfig(rooms=settings.n_rooms + n_held_out, val_rooms=n_held_out)
    prepare.run(PrepareConfig(description="rooms of the benchmark", source=source, out=folder))


def load(arguments: argparse.Namespace, settings: GainSettings) -> Bench:
    """Read the rooms, after generating them if there are none."""
    if not arguments.rooms.is_dir():
        generate(arguments.rooms, settings)
    store = open_folder(arguments.rooms)
    n_held_out = settings.n_validation + settings.n_test
    train = read_rooms(store, "train", settings.n_rooms, settings.n_pixels)
    held_out = read_rooms(store, "val", n_held_out, 20)
    if len(held_out) < n_held_out:
        raise SystemExit(f"{n_held_out} held-out rooms are needed, there are {len(held_out)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    return Bench(
        settings,
        train,
        held_out[: settings.n_validation],
        held_out[settings.n_validation :],
        len(store.info.class_names),
        arguments.out,
        arguments.device,
        Results.open(arguments.out / "results.json"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rooms", type=Path, default=Path("data/gain_rooms"), help="folder of prepared rooms"
    )
    parser.add_argument("--out", type=Path, default=Path("gain"))
    parser.add_argument("--stage", choices=("probe", "finetune", "all"), default="all")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--steps", type=int, default=GainSettings.pretrain_steps, help="of pre-training")
    parser.add_argument("--finetune-steps", type=int, default=GainSettings.finetune_steps)
    parser.add_argument("--budgets", nargs="+", help="such as 2rooms 20points; all when not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = GainSettings(
        pretrain_steps=arguments.steps,
        finetune_steps=arguments.finetune_steps,
        seeds=tuple(range(arguments.seeds)),
    )
    wanted = arguments.budgets
    budgets = [b for b in settings.budgets() if wanted is None or f"{b.amount}{b.kind}" in wanted]
    bench = load(arguments, settings)
    (arguments.out / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    if arguments.stage in ("probe", "all"):
        probe_stage(bench, arguments.starts, budgets)
    if arguments.stage in ("finetune", "all"):
        finetune_stage(bench, arguments.starts, budgets)
    print(table(Results.open(bench.results.path).figures, budgets))


if __name__ == "__main__":
    main()
