"""Prepared scenes -> pre-trained encoder: train by rendering, validate on photographs that were held out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ponderv2.collectives import n_processes, process_number
from ponderv2.errors import PresetError, SceneError
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.dataset import PretrainDataset
from ponderv2.scenes.scene import Scene
from ponderv2.scenes.storage import SceneStore
from ponderv2.training.logbook import Logbook
from ponderv2.training.loop import Job
from ponderv2.workflows.configs import PretrainConfig
from ponderv2.workflows.gathering import gathered
from ponderv2.workflows.previews import preview, write_png
from ponderv2.workflows.report import Reporter, SilentReporter
from ponderv2.workflows.training_runs import (
    RunRequest,
    fingerprint,
    run_folder,
    run_training,
    seeded_weights,
)
from ponderv2.workflows.view_metrics import compare_views, mean_metrics


@dataclass(frozen=True)
class PretrainResult:
    """What a pre-training run left behind."""

    checkpoint: Path
    """The best by PSNR of held-out views, or the last where nothing could be validated."""
    folder: Path
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation: psnr (decibel), ssim, depth_l1 and depth_median (metres)."""
    losses: dict[str, float] = field(default_factory=dict)
    """Of the last step."""
    skipped_steps: int = 0
    seconds: float = 0.0


def run(
    config: PretrainConfig,
    *,
    scenes: Path | None = None,
    out: Path = Path("runs"),
    name: str = "pretrain",
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    report: Reporter | None = None,
) -> PretrainResult:
    """Trains an encoder and a renderer on the scenes' photographs, into `out/name`.

    `scenes` replaces the folder that the settings name. `devices`: processes on this machine.

    Raises:
        SceneError: there is nothing to train on, or it has no labels and the model renders classes.
        PresetError: the scenes are of another dataset or have other classes than the model.
        OutputError: the folder holds another run, or cannot be written.
        CheckpointError: `resume` found nothing readable, or another model.
        Interrupted: after Ctrl-C or SIGTERM, once everything is saved.
        TrainingError: the numbers stayed not finite.
    """
    started = time.perf_counter()
    config = config.model_copy(update={"scenes": Path(scenes or config.scenes)})
    folder = run_folder(Path(out), name)
    request = RunRequest(config, folder, resume=resume, devices=devices, nodes=nodes)
    _training_scenes(config)
    outcome = run_training(request, make_job, report or SilentReporter())
    metrics = dict(outcome.history[-1]) if outcome.history else {}
    metrics.pop("step", None)
    return PretrainResult(
        checkpoint=outcome.best or outcome.last,
        folder=folder,
        steps=outcome.step,
        metrics=metrics,
        losses=outcome.losses,
        skipped_steps=outcome.skipped_steps,
        seconds=time.perf_counter() - started,
    )


def make_job(request: RunRequest, resumed: bool) -> Job:
    """Model, data and validation of a pre-training run. `resumed` changes nothing: weights are replaced."""
    config = request.config
    assert isinstance(config, PretrainConfig)
    store, names = _training_scenes(config)
    seeded_weights(config.seed)
    model = PretextModel(config.model)
    training = PretrainDataset(store, config.train_split, config.data, config.seed)
    validation = _Validation(config, store, model, request.folder)
    return Job(
        kind="pretext",
        model=model,
        scenes=training,
        collate=training.collate,
        training=config.training,
        seed=config.seed,
        folder=request.folder,
        resolved=config.model_dump(mode="json"),
        data=fingerprint(store, config.train_split, names),
        evaluate=validation if validation.n_scenes else None,
        best_metric="psnr",
    )


def _training_scenes(config: PretrainConfig) -> tuple[SceneStore, tuple[str, ...]]:
    store = SceneStore.open(config.scenes)
    names = store.scene_names(config.train_split)
    if not names:
        raise SceneError(
            f"{config.scenes} has no scenes in '{config.train_split}'",
            fix=f"--set train_split={store.info.splits[0]}",
        )
    _check_targets(config.model, store, store.read(names[0], config.train_split))
    return store, names


def _check_targets(model: PretextConfig, store: SceneStore, first: Scene) -> None:
    """What the model is to learn has to be in the scenes. Raises PresetError and SceneError."""
    if model.conditions and store.info.name not in model.conditions:
        known = ", ".join(model.conditions)
        raise PresetError(
            f"{store.root} holds scenes of '{store.info.name}', the model knows the datasets: {known}",
            fix=f"--set model.conditions=[{store.info.name}]",
        )
    if model.semantic is None:
        return
    if first.frames and all(frame.semantic_path is None for frame in first.frames):
        raise SceneError(
            f"the photographs of scene '{first.name}' have no labels, and the model renders classes",
            fix="--preset indoor, which needs no labels",
        )
    rows = getattr(model.semantic, "valid_index", None)
    wanted, there = model.semantic.n_classes if rows is None else len(rows), len(store.info.class_names)
    if there and wanted != there:
        raise PresetError(
            f"the model renders {wanted} classes and {store.root} has {there}",
            fix=f"--set model.semantic.n_classes={there}",
        )


class _Validation:
    """Renders held-out views of a few scenes; the scenes are shared by the processes."""

    def __init__(self, config: PretrainConfig, store: SceneStore, model: PretextModel, folder: Path) -> None:
        # Captures of one place have no scenes to spare: their held-out photographs are validated.
        split = config.val_split if store.scene_names(config.val_split) else config.train_split
        self._data = PretrainDataset(store, split, config.data, config.seed)
        self._model, self._folder, self._settings = model, folder, config.training
        self.n_scenes = min(config.training.evaluate_scenes, len(self._data))

    def __call__(self, step: int, logbook: Logbook | None) -> dict[str, float]:
        """Mean metrics over views; the first view of each scene is kept as a picture."""
        rows: list[dict[str, float]] = []
        for index in range(process_number(), self.n_scenes, n_processes()):
            scene = self._data.validation(index)
            pairs = compare_views(self._model, scene, self._settings.evaluate_width)
            for number, pair in enumerate(pairs):
                rows.append(pair.metrics())
                if number == 0:
                    name = scene.batch.names[0].replace("/", "_")
                    picture = preview(pair)
                    write_png(self._folder / "previews" / f"step-{step:06d}-{name}.png", picture)
                    if logbook:
                        logbook.picture(f"previews/{name}", picture, step)
        return mean_metrics(gathered(rows))
