"""The field of a scene by a checkpoint; refinement on the frames of the scene; refined scenes as files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ponderv2.data.pretrain_dataset import holding_out
from ponderv2.data.sweeps import with_sweeps
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.reconstruction.config import RefineConfig
from ponderv2.reconstruction.refine import Recording, RefineStep, initial_scene, misfit, refine
from ponderv2.reconstruction.refined_scene import RefinedScene, scene_of_state
from ponderv2.reconstruction.scene_field import ModelField, SceneField
from ponderv2.scenes.scene import Frame, Scene, evenly_spread
from ponderv2.tasks.checkpoints import loaded_model, task_of_checkpoint
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint, software_versions
from ponderv2.training.devices import chosen_device
from ponderv2.training.open_checkpoint import REFINED, OpenCheckpoint, Origin
from ponderv2.training.report import Reporter


@dataclass(frozen=True)
class FittedScene:
    """A refined scene and what fitting it took."""

    field: RefinedScene
    steps: int
    seconds: float
    losses: dict[str, float]
    """Of the last step."""


def as_trained(scene: Scene, folder: Path, checkpoint: OpenCheckpoint | None) -> Scene:
    """The scene with the frames held out whose cameras the run never trained on.

    `folder` is that of the scene. Of a run of several data sets the settings of the one with that folder, or
    with a folder of that name, count; where there is none, cameras that any data set held out are held out.
    """
    return scene if checkpoint is None else holding_out(scene, _held_out_sensors(checkpoint.config, folder))


def _held_out_sensors(config: Mapping[str, Any], folder: Path) -> list[str]:
    shared = _sensors(config.get("data"))
    datasets = [one for one in config.get("datasets") or () if isinstance(one, Mapping)]
    if not datasets:
        return sorted(shared or ())
    folders = [Path(str(one.get("scenes"))) for one in datasets]
    own = [_sensors(one.get("data")) for one in datasets]
    sensors = [(shared or set()) if one is None else one for one in own]
    for same in (
        [one.resolve() == folder.resolve() for one in folders],
        [one.resolve().name == folder.resolve().name for one in folders],
    ):
        if any(same):  # the same folder may be there twice: of other scenes, with other cameras
            return sorted(set.intersection(*(one for one, is_it in zip(sensors, same, strict=True) if is_it)))
    return sorted(set.union(*sensors))


def _sensors(data: object) -> set[str] | None:
    """What settings of data say of held-out cameras; None where they say nothing."""
    named = data.get("held_out_sensors") if isinstance(data, Mapping) else None
    return None if named is None else set(map(str, named))


def open_field(
    checkpoint: OpenCheckpoint,
    scene: Scene,
    device: str = "auto",
    dataset: str | None = None,
    report: Reporter | None = None,
) -> SceneField:
    """The field of a scene: of a pre-trained model, or a scene that was refined before.

    `dataset` is the name of the scene's dataset, for prompted models. The scene is encoded
    and rendered on the device; refined scenes stay on the CPU, which is reported.

    Raises:
        CheckpointError: not one that renders, or refined for another scene.
        ResourceError: there is no such device.
    """
    where = chosen_device(device)
    if checkpoint.origin is Origin.REFINED:
        if report is not None and where.type != "cpu":
            report.note("a refined scene is rendered on the CPU")
        return load_refined(checkpoint, scene.name)
    task = task_of_checkpoint(checkpoint)
    if not task.renders:
        raise CheckpointError(
            f"{checkpoint.path} holds {task.model_in_words}, which cannot render",
            fix="give the pre-trained checkpoint",
        )
    loaded = loaded_model(checkpoint, where)
    return loaded.scene_field(with_sweeps(scene, loaded.data.sweeps), dataset=dataset)


def fit_scene(scene: Scene, config: RefineConfig, start: SceneField | None, report: Reporter) -> FittedScene:
    """Refines a scene on its own frames, except those held out, starting from the field `start`.

    Raises:
        SceneError: the scene has no frames that are not held out.
    """
    frames = evenly_spread([frame for frame in scene.frames if not frame.held_out], config.max_frames)
    if frames and not any(frame.has_depth for frame in frames):
        raise SceneError(
            f"scene '{scene.name}' has no depth images, which refinement fits",
            fix="without --refine (--set refine.steps=0)",
        )
    if not frames:
        raise SceneError(
            f"scene '{scene.name}' has no frames to refine on",
            fix="--refine 0, or prepare it with images",
        )
    started = time.perf_counter()
    if isinstance(start, ModelField) and start.volume.values.device.type != "cpu":
        report.note("the scene is refined on the CPU, starting from the model on the GPU")
    n_without = sum(not frame.has_color for frame in frames)
    if n_without:
        fitted_to = (
            "no colours are fitted" if n_without == len(frames) else "colours are fitted to the others"
        )
        report.note(f"{n_without} of {len(frames)} frames have depth alone: {fitted_to}")
    recording = Recording.read(frames, report.track(frames, "read frames", len(frames)))
    chosen = {frame.id for frame in frames}
    fitted = torch.tensor([frame.id in chosen for frame in scene.frames])
    field = _nearest_start(
        recording, tuple(frame.id for frame in scene.frames), fitted, config, start, report
    )
    last: dict[str, float] = {}
    with report.progress("refine", config.steps) as display:

        def show(step: RefineStep) -> None:
            last.update(step.losses)
            display.advance(1, **step.losses)

        steps = refine(field, recording, config, show)
    return FittedScene(field, steps, time.perf_counter() - started, last)


def _nearest_start(
    recording: Recording,
    frame_ids: tuple[str, ...],
    fitted: Tensor,
    config: RefineConfig,
    start: SceneField | None,
    report: Reporter,
) -> RefinedScene:
    """From the model, unless empty space explains the frames better: a poor model would only cost time."""
    empty = initial_scene(recording, frame_ids, fitted, config, None)
    if start is None:
        return empty
    given = initial_scene(recording, frame_ids, fitted, config, start)
    losses = [misfit(field, recording, config) for field in (given, empty)]
    text = f"loss of the model's volume {losses[0]:.3f}, of empty space {losses[1]:.3f}"
    if losses[0] <= losses[1]:
        report.note(f"refinement starts from the model: {text}")
        return given
    report.warn(f"refinement starts from empty space, not from the model: {text}")
    return empty


def save_refined(path: Path, fitted: FittedScene, scene_name: str, scenes: Path) -> None:
    """A checkpoint that `load_refined` reads; `scenes` is the folder of the scene. Raises OutputError."""
    field = fitted.field
    config = {
        "scene": scene_name,
        "scenes": str(scenes),
        "refine": field.config.model_dump(mode="json"),
        "frame_ids": list(field.frame_ids),
        "sizes": [list(grid.size) for grid in field.grids],
    }
    state = {name: value.detach().clone() for name, value in field.state_dict().items()}
    save_checkpoint(path, Checkpoint(REFINED, config, state, step=fitted.steps, versions=software_versions()))


def load_refined(checkpoint: OpenCheckpoint, scene_name: str) -> RefinedScene:
    """Raises CheckpointError: not of this version, or refined for another scene."""
    config = checkpoint.config
    if config.get("scene") != scene_name:
        raise CheckpointError(
            f"{checkpoint.path} was refined for scene '{config.get('scene')}', not '{scene_name}'",
            fix=f"--scene {config.get('scene')}",
        )
    try:
        settings = RefineConfig.model_validate(config["refine"])
        sizes = [(int(x), int(y), int(z)) for x, y, z in config["sizes"]]
        return scene_of_state(settings, dict(checkpoint.weights), tuple(config["frame_ids"]), sizes).eval()
    except (ValidationError, KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise CheckpointError(f"{checkpoint.path} is not a refined scene of this version: {error}") from error


def training_frames(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Those that are not held out, or all where all are."""
    return tuple(frame for frame in frames if not frame.held_out) or tuple(frames)
