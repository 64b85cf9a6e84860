"""Encoders side by side: every protocol on the same labelled scenes, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ponderv2.errors import CheckpointError, PresetError, SceneError
from ponderv2.evaluation.neighbours import Purity
from ponderv2.evaluation.semantic import named_metrics, segmentation_metrics
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.checkpoints import loaded_model, open_checkpoint, task_of_checkpoint
from ponderv2.tasks.encoder_probes import (
    FitProbe,
    LabelledScenes,
    ProbeResult,
    fit_linear_layer,
    fit_neighbours,
    labelled_scenes,
    probe,
    purity,
)
from ponderv2.tasks.feature_sources import EncoderFeatures, FeatureSource, RawFeatures, with_random_weights
from ponderv2.tasks.loaded_model import LoadedModel, with_options
from ponderv2.tasks.protocols import PROBES, PROTOCOLS, TRAINED
from ponderv2.tasks.task import Task, part_of
from ponderv2.training.devices import chosen_device
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.published_checkpoints import PointChoice
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows import evaluate
from ponderv2.workflows.config import ProtocolsConfig
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes
from ponderv2.workflows.training_runs import seeded_weights

USUAL_PROBES = ("knn", "linear")
"""Where no protocol is asked for."""
CALIBRATION_SCENES = 16
"""Training scenes from which a random encoder gets the statistics of its normalisations."""


@dataclass(frozen=True)
class ComparisonRequest:
    """What is compared, and how."""

    protocols: tuple[str, ...] = ()
    """Of `PROTOCOLS`; empty: what the checkpoints are made for."""
    baselines: bool = False
    """Also a random encoder and the raw input, which say what a probe is worth."""
    settings: ProtocolsConfig = field(default_factory=ProtocolsConfig)
    points: PointChoice = field(default_factory=PointChoice)
    reuse: bool = True
    """Use cached predictions of fine-tuned models."""
    device: str = "auto"


@dataclass(frozen=True)
class ComparisonResult:
    """Every protocol on the same scenes. Metrics are shares, 0..1."""

    scenes: Path
    split: str
    n_scenes: int
    protocols: list[dict[str, Any]] = field(default_factory=list)
    """One row for every protocol and encoder."""
    purity: list[dict[str, Any]] = field(default_factory=list)
    """One row for every encoder."""
    classes: list[dict[str, Any]] = field(default_factory=list)
    """Intersection over union, or purity, of every class: a row for each protocol and encoder."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Given:
    """A checkpoint, opened."""

    opened: OpenCheckpoint
    task: Task[Any]

    @property
    def name(self) -> str:
        """Of its run, or of the file."""
        path = self.opened.path
        return path.parent.parent.name if path.parent.name == "checkpoints" else path.stem

    @property
    def protocol(self) -> str | None:
        """What it was trained by; None of a model without classes."""
        if "full" not in self.task.protocols:
            return None
        recorded = self.opened.config.get("protocol")
        model = self.opened.config.get("model", {})
        frozen = "decoder" if model.get("train_decoder", False) else "linear"
        return str(recorded or (frozen if model.get("freeze_encoder", False) else "full"))


def run(
    checkpoints: Sequence[Path],
    request: ComparisonRequest | None = None,
    *,
    scenes: Path | None = None,
    split: str | None = None,
    report: Reporter | None = None,
) -> ComparisonResult:
    """Measures encoders and fine-tuned models on the scenes of a split.

    `purity`, `knn` and `linear` are measured on the features of a checkpoint's encoder; a fine-tuned model is
    a row of the protocol that it was trained by. The scenes are those of `scenes`, else those that the
    first fine-tuned model was trained on, else those of the first checkpoint.

    Raises:
        PresetError: a protocol that does not exist, or no run of one that has to be trained.
        CheckpointError: unreadable, or its task has no protocols.
        SceneError: no scenes in the split, none with labels, or other classes than a model knows.
        ResourceError: there is no such device, or too little memory.
    """
    report, request = report or SilentReporter(), request or ComparisonRequest()
    given = [_open(Path(path)) for path in checkpoints]
    trained, probed, probes = _shared_out(given, request.protocols)
    first = (trained or probed)[0].opened
    store = open_scenes(SceneChoice(None if scenes is None else Path(scenes)), first, report)
    split = split or evaluate.validated_split(first.config, store.root)
    if not store.names(split):
        raise SceneError(f"{store.root} has no scenes in '{split}'", fix=f"--split {store.info.splits[0]}")
    for text in store.warnings(split, labels=True):
        report.note(text)
    result = ComparisonResult(store.root, split, len(store.names(split)))
    if request.settings.data.label_field is None:
        request = _with_label_field(request, first, store.root)
    if probed:
        _probe_all(result, probed, probes, store, request, report)
    for one in trained:
        _add_trained(result, one, store, request, report)
    result.protocols.sort(key=lambda row: PROTOCOLS.index(row["protocol"]))
    return result


def _with_label_field(request: ComparisonRequest, first: OpenCheckpoint, root: Path) -> ComparisonRequest:
    """Probes compare the labels that the first checkpoint was made for, where it says which."""
    own = part_of(first.config, root).get("label_field") or first.config.get("data", {}).get("label_field")
    data = request.settings.data.model_copy(update={"label_field": own})
    return replace(request, settings=request.settings.model_copy(update={"data": data}))


def _open(path: Path) -> _Given:
    """Raises CheckpointError where the task has no protocols."""
    opened = open_checkpoint(path)
    task = task_of_checkpoint(opened)
    if not task.protocols:
        raise CheckpointError(
            f"{path} holds {task.model_in_words}, which gives points no class: it has no protocols",
            fix=f"ponder eval {path} measures what it was trained for",
        )
    return _Given(opened, task)


def _shared_out(
    given: Sequence[_Given], wanted: tuple[str, ...]
) -> tuple[list[_Given], list[_Given], tuple[str, ...]]:
    """The fine-tuned models that are rows of their own; the encoders to be probed, and how."""
    unknown = [name for name in wanted if name not in PROTOCOLS]
    if unknown:
        raise PresetError(
            f"there is no protocol '{unknown[0]}'", fix=f"choose of: --protocols {','.join(PROTOCOLS)}"
        )
    trained = [one for one in given if one.protocol is not None and one.protocol in (wanted or PROTOCOLS)]
    if wanted and not any(name in TRAINED for name in wanted):
        trained = []
    for name in wanted:
        if name in TRAINED and not any(one.protocol == name for one in trained):
            raise PresetError(
                f"none of the checkpoints was fine-tuned by the protocol '{name}'",
                fix=f"ponder finetune --protocol {name} --from {given[0].opened.path}, and give its run too",
            )
    probes = tuple(name for name in wanted or USUAL_PROBES if name in PROBES)
    others = [one for one in given if one not in trained]
    probed = others if others or not wanted else list(given)
    return trained, probed if probes else [], probes


def _probe_all(
    result: ComparisonResult,
    probed: Sequence[_Given],
    probes: tuple[str, ...],
    store: SceneFolders,
    request: ComparisonRequest,
    report: Reporter,
) -> None:
    """Rows of all encoders and, after those of the first one, of the baselines."""
    for number, one in enumerate(probed):
        loaded = loaded_model(one.opened, chosen_device(request.device), request.points)
        for note in loaded.notes:
            report.warn(with_options(note))
        result.notes.extend(loaded.notes)
        encoder = _encoder_of(one, loaded, store, report)
        encoder = replace(encoder, hide=request.settings.data.hide)
        plan = _Plan(probes, loaded, store, result.split, request.settings)
        for source in _sources(one, encoder, plan, request.baselines and number == 0):
            _add_probes(result, source, plan, report)


@dataclass(frozen=True)
class _Plan:
    """Probes and scenes, prepared as one encoder needs them."""

    probes: tuple[str, ...]
    loaded: LoadedModel
    store: SceneFolders
    split: str
    settings: ProtocolsConfig

    @property
    def fits(self) -> list[FitProbe]:
        """The probes that see labels of training scenes."""
        known = {
            "knn": fit_neighbours(self.settings.knn),
            "linear": fit_linear_layer(self.settings.linear),
        }
        return [known[name] for name in self.probes if name in known]

    def training(self) -> LabelledScenes:
        """With the labels that probes may see."""
        data = self.settings.data
        return labelled_scenes(self.store, data.train_split, self.loaded.data, data, budget=True)

    def evaluated(self) -> LabelledScenes:
        """With all labels."""
        return labelled_scenes(self.store, self.split, self.loaded.data, self.settings.data, budget=False)


def _encoder_of(one: _Given, loaded: LoadedModel, store: SceneFolders, report: Reporter) -> EncoderFeatures:
    """Raises CheckpointError for an encoder of images."""
    if loaded.model.encoder_config.needs != "points":
        raise CheckpointError(
            f"the encoder of {one.opened.path} sees images, and probes need a feature for every point"
        )
    prompts = loaded.model.prompts
    condition = prompts.choose(None, store.info.name)
    if prompts.known and condition != store.info.name:
        report.note(f"{one.name}: the prompt of '{condition}' stands for the scenes of '{store.info.name}'")
    return EncoderFeatures(one.name, loaded, condition)


def _sources(one: _Given, encoder: EncoderFeatures, plan: _Plan, baselines: bool) -> Iterator[FeatureSource]:
    yield encoder
    if not baselines:
        return
    # Purity alone needs no training scenes, and there may be none.
    scenes = plan.training() if plan.fits else plan.evaluated()
    some = (scenes.data.scene(index) for index in range(min(len(scenes.data), CALIBRATION_SCENES)))
    seeded_weights(plan.settings.data.seed)
    model = one.task.build()
    assert isinstance(model, EncoderModel)
    yield with_random_weights(encoder, model, some)
    yield RawFeatures.of(scenes.data.scene(0).cloud, plan.loaded.data, encoder.device, encoder.hide)


def _add_probes(result: ComparisonResult, source: FeatureSource, plan: _Plan, report: Reporter) -> None:
    evaluated = plan.evaluated()
    data = plan.settings.data
    if "purity" in plan.probes:
        found = purity(source, evaluated, plan.settings.purity, data.seed, report)
        result.purity.append(_purity_row(source, found))
        of_class = dict(zip(_class_names(evaluated), found.of_class.tolist(), strict=False))
        result.classes.append({"protocol": "purity", "features": source.name, **of_class})
    if plan.fits:
        for one in probe(source, plan.fits, (plan.training(), data), evaluated, report):
            _add_probe(result, one, _class_names(evaluated))
            if one.note is not None and one.note not in result.notes:
                report.warn(one.note)
                result.notes.append(one.note)


def _purity_row(source: FeatureSource, found: Purity) -> dict[str, Any]:
    return {
        "features": source.name,
        "purity": found.mean,
        "chance": found.mean_chance,
        "purity_of_points": found.over_points,
        "classes": int((found.n_counted > 0).sum()),
        "points": int(found.n_counted.sum()),
    }


def _class_names(scenes: LabelledScenes) -> list[str]:
    names = scenes.data.store.info.label_set(scenes.data.label_field).class_names
    return list(names) or [f"class {number}" for number in range(scenes.n_classes)]


def _add_probe(result: ComparisonResult, one: ProbeResult, names: Sequence[str]) -> None:
    metrics = named_metrics(one.confusion)
    result.protocols.append(
        {
            "protocol": one.protocol,
            "features": one.source.name,
            **{name: metrics[name] for name in ("miou", "macc", "allacc")},
            "labelled_voxels": one.n_labelled,
            "trained_parameters": one.n_trained,
            "parameters": one.source.n_parameters + one.n_trained,
            "milliseconds_per_scene": one.milliseconds,
        }
    )
    iou = segmentation_metrics(one.confusion, skip_absent=True).iou.tolist()
    result.classes.append(
        {"protocol": one.protocol, "features": one.source.name, **dict(zip(names, iou, strict=False))}
    )


def _add_trained(
    result: ComparisonResult, one: _Given, store: SceneFolders, request: ComparisonRequest, report: Reporter
) -> None:
    """A fine-tuned model, measured as `ponder eval` measures it alone."""
    measured = evaluate.run(
        one.opened.path,
        scenes=store.root,
        split=result.split,
        reuse=request.reuse,
        device=request.device,
        points=request.points,
        report=report,
    )
    model = one.task.build()
    assert one.protocol is not None
    result.protocols.append(
        {
            "protocol": one.protocol,
            "features": one.name,
            **{name: measured.metrics.get(name) for name in ("miou", "macc", "allacc")},
            "labelled_voxels": None,
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "parameters": sum(p.numel() for p in model.parameters()),
            "milliseconds_per_scene": measured.milliseconds,
        }
    )
    result.classes.append(
        {
            "protocol": one.protocol,
            "features": one.name,
            **{str(row["class"]): row.get("iou") for row in measured.classes},
        }
    )
    result.notes.extend(measured.notes)
