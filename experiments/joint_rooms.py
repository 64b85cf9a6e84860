"""Does it help to learn from three datasets at once? Prompted joint training against one dataset at a time.

Run from the project's root: `python -m experiments.joint_rooms --rooms DIR`. Three datasets are made of
generated rooms: other rooms, another look, other classes (`joint_datasets`). Every dataset gets as many steps
of its own in a joint run as alone, so that three single runs cost what one joint run costs. Pre-training
uses no labels. What is finished is kept in `--out` and is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.gain_figures import shown
from experiments.gain_learning import ENCODER, PretrainSettings, one_cycle
from experiments.gain_rooms import CropSettings, training_batch, training_piece, whole_room
from experiments.joint_datasets import VARIANTS, VOCABULARY, Split, Variant, read_datasets, rows_of
from ponderv2.data.scene_folder import open_folder
from ponderv2.encoder.config import PromptedSparseUNetConfig, SparseUNetConfig
from ponderv2.evaluation.probes import LabelledRows, chosen_fit, sample_rows
from ponderv2.evaluation.semantic import confusion_matrix, segmentation_metrics
from ponderv2.heads.config import LanguageHeadConfig, SegmentationLossConfig
from ponderv2.heads.language import LanguageHead
from ponderv2.models.encoder_model import calibrate_normalisation
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.sampler import Schedule, sample_index_at

State = dict[str, Tensor]
NAMES = tuple(variant.name for variant in VARIANTS)
CONTEXT = 32
CALIBRATION_ROOMS = 16
PROBE_POINTS = 150
"""Labelled points of every room that a head is fitted to."""


@dataclass(frozen=True)
class JointSettings:
    """Everything that the figures depend on."""

    n_rooms: int = 112
    n_test: int = 12
    n_pixels: int = 4000
    pretrain_steps: int = 280
    """Of a joint run; a dataset alone has its share of them."""
    finetune_steps: int = 350
    n_pieces: int = 2
    pretrain_rate: float = 6.0e-3
    finetune_rate: float = 1.0e-2
    voxel: float = 0.15
    n_seeds: int = 3


@dataclass(frozen=True)
class Way:
    """How a model is trained."""

    name: str
    joint: bool
    prompted: bool
    pretrained: bool
    probed: bool = False
    """The head starts as a probe, on features with statistics of the training rooms of every dataset."""

    @property
    def encoder(self) -> SparseUNetConfig | PromptedSparseUNetConfig:
        """The small encoder of the benchmarks, perhaps with a norm and a prompt per dataset."""
        if not self.prompted:
            return ENCODER
        shared = {k: v for k, v in ENCODER.model_dump().items() if k not in ("kind", "unit_norm_momentum")}
        # Beginning with the identity helps when there are few steps; published is a small random modulation.
        return PromptedSparseUNetConfig(**shared, conditions=NAMES, context_channels=CONTEXT, zero_init=True)


WAYS = (
    Way("single, from scratch", joint=False, prompted=False, pretrained=False),
    Way("single, pre-trained", joint=False, prompted=False, pretrained=True),
    Way("joint without prompts, from scratch", joint=True, prompted=False, pretrained=False),
    Way("joint, from scratch", joint=True, prompted=True, pretrained=False),
    Way("joint, pre-trained", joint=True, prompted=True, pretrained=True),
    Way("single, pre-trained, probe", joint=False, prompted=False, pretrained=True, probed=True),
    Way("joint, pre-trained, probe", joint=True, prompted=True, pretrained=True, probed=True),
)


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
    """Datasets, settings, and where results go."""

    settings: JointSettings
    datasets: dict[str, Split]
    out: Path
    results: Results


def steps_of(total: int, variants: tuple[Variant, ...]) -> int:
    """Steps of a run on some of the datasets when the joint run has `total`."""
    shares = sum(variant.ratio for variant in VARIANTS)
    return total * sum(variant.ratio for variant in variants) // shares


def batches(
    bench: Bench, variants: tuple[Variant, ...], steps: int, seed: int, n_rays: int
) -> Iterator[Batch]:
    """One dataset a batch, in turn; the library's own cycle."""
    settings = bench.settings
    rooms = [bench.datasets[variant.name].train for variant in variants]
    schedule = Schedule(tuple(map(len, rooms)), tuple(variant.ratio for variant in variants))
    generator = torch.Generator().manual_seed(seed)
    crop = CropSettings(voxel=settings.voxel, n_rays=n_rays)
    for step in range(steps):
        at = schedule.at(step)
        pieces = []
        for slot in range(settings.n_pieces):
            place = sample_index_at(at.earlier * settings.n_pieces + slot, schedule.sizes[at.dataset], seed)
            room = rooms[at.dataset][place.index]
            pieces.append(training_piece(room, crop, generator))
        yield replace(training_batch(pieces, "cpu"), condition=variants[at.dataset].name)


def pretrained(bench: Bench, way: Way, variants: tuple[Variant, ...], seed: int) -> State:
    """Encoder and prompts after pre-training by rendering, without labels."""
    kind = "prompted" if way.prompted else "plain"
    path = bench.out / f"pretrained-{kind}-{''.join(variant.name for variant in variants)}-{seed}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    settings = bench.settings
    model_config = PretrainSettings().model().model_copy(update={"encoder": way.encoder})
    if way.prompted:
        model_config = model_config.model_copy(update={"conditions": NAMES, "context_channels": CONTEXT})
    torch.manual_seed(seed)
    model = PretextModel(model_config).train()
    unlabelled = partial(torch.full_like, fill_value=-1)
    started, steps = time.perf_counter(), steps_of(settings.pretrain_steps, variants)

    def loss_of(batch: Batch, step: int) -> Tensor:
        assert batch.pixels is not None
        pixels = replace(batch.pixels, label=unlabelled(batch.pixels.label))
        blind = replace(batch, segment=unlabelled(batch.segment), pixels=pixels)
        return model(blind, torch.Generator().manual_seed(seed * 1000003 + step)).losses.total()

    rays = CropSettings().n_rays
    _train(model, batches(bench, variants, steps, seed, rays), loss_of, settings.pretrain_rate, steps)
    kept = ("backbone.", "embedding_table.")
    state = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(kept)}
    torch.save(state, path)
    bench.results.put(f"seconds {path.stem}", round(time.perf_counter() - started, 1))
    return state


def _train(model: nn.Module, stream: Iterator[Batch], loss_of: object, rate: float, steps: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = one_cycle(optimiser, [rate], steps)
    for step, batch in enumerate(stream):
        optimiser.zero_grad()
        loss_of(batch, step).backward()  # type: ignore[operator]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()


def finetuned(bench: Bench, way: Way, variants: tuple[Variant, ...], seed: int) -> SegmentationModel:
    """A model that classifies points of these datasets by the names of their classes."""
    settings = bench.settings
    head = LanguageHeadConfig(
        n_texts=len(VOCABULARY), n_channels=64, valid_index={v.name: rows_of(v) for v in VARIANTS}
    )
    state = pretrained(bench, way, variants, seed) if way.pretrained else None
    torch.manual_seed(1000 + seed)
    model = SegmentationModel(
        SegmentationModelConfig(encoder=way.encoder, head=head, losses=SegmentationLossConfig(lovasz=0.0))
    ).train()
    if state is not None:
        missing = model.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys, missing
    if way.probed:
        start_as_probe(bench, model, variants)
    steps = steps_of(settings.finetune_steps, variants)
    stream = batches(bench, variants, steps, 500 + seed, n_rays=0)
    _train(model, stream, lambda batch, _: model(batch).losses.total(), settings.finetune_rate, steps)
    return model.eval()


def start_as_probe(bench: Bench, model: SegmentationModel, variants: tuple[Variant, ...]) -> None:
    """The head as the library fits it (`--protocol linear`), after the statistics of whole rooms.

    Those of pre-training are of small pieces, and of a dataset that has one step in seven they lag behind
    the weights, which change in the six others.
    """
    parts: list[LabelledRows] = []
    for variant in variants:
        rooms = bench.datasets[variant.name].train
        whole = [whole_room(room, bench.settings.voxel) for room in rooms]
        pieces = [replace(batch, condition=variant.name) for batch, _ in whole]
        calibrate_normalisation(model.eval(), pieces[:CALIBRATION_ROOMS])
        texts = torch.tensor(rows_of(variant))
        rivals = torch.zeros(len(VOCABULARY), dtype=torch.bool)
        rivals[texts] = True
        for number, (room, batch, (_, inverse)) in enumerate(zip(rooms, pieces, whole, strict=True)):
            generator = torch.Generator().manual_seed(number)
            chosen, weight = sample_rows(room.segment, PROBE_POINTS, generator)
            with torch.no_grad():
                feature = model.encode_points(batch)[inverse[chosen]]
            scene = torch.full((len(chosen),), len(parts))
            label = texts[room.segment[chosen]]
            parts.append(LabelledRows(feature, label, weight, scene, rivals.expand(len(chosen), -1)))
    linear = chosen_fit(LabelledRows.cat(parts), len(VOCABULARY)).linear
    assert isinstance(model.head, LanguageHead)
    model.head.start_as(linear.weight, linear.bias)
    model.train()


@torch.no_grad()
def mean_iou(bench: Bench, model: SegmentationModel, variant: Variant) -> float:
    """Over the classes of a dataset and the points of its test rooms."""
    n_classes = len(variant.class_names)
    confusion = torch.zeros(n_classes, n_classes, dtype=torch.long)
    for room in bench.datasets[variant.name].test:
        batch, inverse = whole_room(room, bench.settings.voxel)
        found = model.logits(replace(batch, condition=variant.name)).argmax(1)[inverse]
        confusion += confusion_matrix(found, room.segment, n_classes)
    return segmentation_metrics(confusion, skip_absent=True).mean_iou


def run_way(bench: Bench, way: Way, seed: int) -> None:
    """All figures of a way of training with one seed."""
    groups = [VARIANTS] if way.joint else [(variant,) for variant in VARIANTS]
    for variants in groups:
        names = {variant.name: f"{way.name} | {variant.name} | seed {seed}" for variant in variants}
        if all(name in bench.results.figures for name in names.values()):
            continue
        started = time.perf_counter()
        model = finetuned(bench, way, variants, seed)
        for variant in variants:
            bench.results.put(names[variant.name], mean_iou(bench, model, variant))
        seconds = round(time.perf_counter() - started, 1)
        bench.results.put(f"seconds {way.name} {''.join(names)} {seed}", seconds)


def summary(figures: dict[str, float | list[float]]) -> dict[str, dict[str, list[float]]]:
    """Per way and dataset the mean IoU of every seed; `mean` is over the datasets."""
    found: dict[str, dict[str, list[float]]] = {}
    for way in WAYS:
        rows = {
            name: [float(v) for k, v in figures.items() if k.startswith(f"{way.name} | {name} |")]  # type: ignore[arg-type]
            for name in NAMES
        }
        complete = min(map(len, rows.values()))
        rows["mean"] = [statistics.mean(rows[name][seed] for name in NAMES) for seed in range(complete)]
        found[way.name] = rows
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Mean and sample deviation over seeds, per cent."""
    columns = (*NAMES, "mean")
    lines = [f"{'mean IoU, per cent':36} | " + " | ".join(f"{name:>12}" for name in columns)]
    for way, rows in found.items():
        lines.append(f"{way:36} | " + " | ".join(f"{shown(rows[name]):>12}" for name in columns))
    return "\n".join(lines)


def main() -> None:
    """Train, test, print."""
    defaults = JointSettings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rooms", type=Path, default=Path("data/gain_rooms"), help="prepared generated rooms"
    )
    parser.add_argument("--out", type=Path, default=Path("joint"))
    parser.add_argument("--pretrain-steps", type=int, default=defaults.pretrain_steps)
    parser.add_argument("--finetune-steps", type=int, default=defaults.finetune_steps)
    parser.add_argument("--n-rooms", type=int, default=defaults.n_rooms)
    parser.add_argument("--n-test", type=int, default=defaults.n_test)
    parser.add_argument("--seeds", type=int, default=defaults.n_seeds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = JointSettings(
        n_rooms=arguments.n_rooms,
        n_test=arguments.n_test,
        pretrain_steps=arguments.pretrain_steps,
        finetune_steps=arguments.finetune_steps,
        n_seeds=arguments.seeds,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    _keep_settings(arguments.out / "settings.json", settings)
    store = open_folder(arguments.rooms)
    datasets = read_datasets(store, settings.n_rooms, settings.n_test, settings.n_pixels)
    bench = Bench(settings, datasets, arguments.out, Results.open(arguments.out / "results.json"))
    for seed in range(settings.n_seeds):
        for way in WAYS:
            run_way(bench, way, seed)
            bench = replace(bench, results=Results.open(bench.results.path))
    figures = Results.open(bench.results.path).figures
    found = summary(figures)
    print(table(found))
    if arguments.json:
        contents = {"settings": asdict(settings), "mean_iou": found, "figures": figures}
        arguments.json.write_text(json.dumps(contents, indent=1))


def _keep_settings(path: Path, settings: JointSettings) -> None:
    """Figures of different settings are not mixed in one folder; more seeds may be added."""
    wanted = {name: value for name, value in asdict(settings).items() if name != "n_seeds"}
    if path.is_file() and json.loads(path.read_text()) != wanted:
        raise SystemExit(
            f"{path} says that the figures there were made with other settings; choose another --out"
        )
    path.write_text(json.dumps(wanted, indent=1))


if __name__ == "__main__":
    main()
