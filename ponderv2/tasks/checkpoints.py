"""Checkpoints as models of tasks: opened with what is known of published weights, and built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ponderv2.errors import CheckpointError
from ponderv2.tasks.instances.config import IGNORED_CLASSES
from ponderv2.tasks.kinds import ModelConfig, task_of
from ponderv2.tasks.loaded_model import LoadedModel, check_inputs, point_settings
from ponderv2.tasks.published import variant_of
from ponderv2.tasks.published_points import label_set_of, points_of
from ponderv2.tasks.rendering.published import outdoor_names, pretext_settings
from ponderv2.tasks.segmentation.published import head_settings
from ponderv2.tasks.segmentation.published import our_names as segmentation_names
from ponderv2.training.devices import chosen_device
from ponderv2.training.open_checkpoint import REFINED, OpenCheckpoint, Published, PublishedModel
from ponderv2.training.published_checkpoints import PointChoice, conditions_of_state, encoder_settings
from ponderv2.training.weights import load_weights
from ponderv2.weights import choice_note, named_checkpoint

if TYPE_CHECKING:
    from ponderv2.tasks.task import Task


def open_checkpoint(path: Path) -> OpenCheckpoint:
    """A file of ours or a published one, or the best of a run folder. Raises CheckpointError."""
    return OpenCheckpoint(Path(path), PUBLISHED)


def task_of_checkpoint(checkpoint: OpenCheckpoint) -> Task[Any]:
    """The task whose model the file holds, with the settings of that model.

    Raises CheckpointError where it holds no whole model: a classifier, a refined scene, another version.
    """
    return task_of_settings(checkpoint.path, checkpoint.kind, checkpoint.settings)


def task_of_settings(path: Path, kind: str, settings: Mapping[str, Any]) -> Task[Any]:
    """The same for settings as they stand in a file."""
    try:
        checked = TypeAdapter(ModelConfig).validate_python({**settings, "kind": kind})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "union_tag_invalid":
            raise _no_model(path, kind) from error
        place = ".".join(map(str, first["loc"][1:]))
        raise CheckpointError(
            f"{path} has settings that this program does not know: {place}: {first['msg']}",
            fix="use the version of the program that wrote it; ponder finetune --from takes its encoder",
        ) from error
    return task_of(checked.without_files())


def load_model(checkpoint: OpenCheckpoint | Path, device: torch.device | str = "cpu") -> Any:
    """The whole model of a checkpoint in evaluation mode, on a device. Raises CheckpointError."""
    opened = checkpoint if isinstance(checkpoint, OpenCheckpoint) else open_checkpoint(checkpoint)
    model: nn.Module = task_of_checkpoint(opened).build()
    load_weights(model, opened.our_weights(), source=str(opened.path), least_share=1.0)
    return model.eval().to(device)


def load(
    path: Path | str | None = None,
    device: str | torch.device = "cpu",
    *,
    voxel_size: float | None = None,
    inputs: Sequence[str] | None = None,
) -> LoadedModel:
    """The model of a checkpoint or of a run folder, in evaluation mode.

    Args:
        path: Ours or published, `.pth` or `.safetensors`, or a bare `state_dict` of an encoder. The default
            is `"rooms"`, the encoder that ships with the program (a folder of that name: `"./rooms"`).
        device: `cpu`, `cuda`, `auto` (a GPU where there is one). Encoding and rendering run there.
        voxel_size: Metres, where the file does not say it (published files).
        inputs: What the encoder sees of each point, where the file does not say it: `("coord", "color")`.

    What the file does not say and is therefore assumed is reported by `warnings.warn`, and so is a path
    that has the name of the encoder that is taken.

    Raises:
        CheckpointError: missing, damaged, unsafe, of another program, or nothing says what the encoder takes.
        ResourceError: there is no such device.
    """
    choice = PointChoice(voxel_size, None if inputs is None else tuple(inputs))
    note = choice_note(path)
    if note is not None:
        warnings.warn(note, stacklevel=2)
    loaded = loaded_model(open_checkpoint(named_checkpoint(path)), chosen_device(device), choice)
    for note in loaded.notes:
        warnings.warn(f"{note} (voxel_size= and inputs= say otherwise)", stacklevel=2)
    return loaded


def loaded_model(
    checkpoint: OpenCheckpoint, device: torch.device | str, choice: PointChoice = PointChoice()
) -> LoadedModel:
    """The model of an open checkpoint, on a device. Raises what `load` raises."""
    task_of_checkpoint(checkpoint)
    data, notes = checkpoint.data(choice)
    points = point_settings(checkpoint.path, data)
    model = load_model(checkpoint, device)
    if choice.answers:
        check_inputs(model, points, checkpoint.path)
    return LoadedModel(
        model=model,
        data=points,
        path=checkpoint.path,
        config={**checkpoint.config, "data": data},
        classes=checkpoint.classes,
        digest=checkpoint.digest,
        notes=tuple(f"{checkpoint.path}: {note}" for note in notes),
    )


def _no_model(path: Path, kind: str) -> CheckpointError:
    if kind == REFINED:
        fix = "give the run that it was made from; ponder render and ponder reconstruct read refined scenes"
    else:
        fix = "use the version of the program that wrote it"
    return CheckpointError(f"{path} holds no model of a known kind but '{kind}'", fix=fix)


def recognise(state: Mapping[str, Tensor]) -> PublishedModel:
    """The model that published weights (unwrapped) belong to. Raises CheckpointError if none."""
    variant = variant_of(state)
    unusable, settings = None, {}
    try:
        settings = model_settings(state)
    except CheckpointError as error:
        unusable = error
    points = points_of(variant)
    head = settings.get("head", {})
    return PublishedModel(
        kind="classifier" if variant.pooled else "pretext" if variant.task == "outdoor" else variant.task,
        settings=settings,
        unusable=unusable,
        points=None if points is None else points.data,
        note=None if points is None else points.note,
        classes=label_set_of(settings.get("n_classes") or head.get("n_classes")),
        facts={
            "task": variant.task,
            "generation": variant.generation,
            "head": variant.head,
            "classes": variant.n_classes,
        },
    )


def model_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of the whole model in a published file (unwrapped), with its `kind`; of files without a head
    those of the encoder alone.

    Raises CheckpointError for classifiers of scenes.
    """
    variant = variant_of(state)
    if variant.task in ("pretext", "outdoor"):
        return pretext_settings(state)
    if variant.pooled:
        raise CheckpointError(
            "the file holds a classifier of scenes, of which only the encoder is known",
            fix="ponder finetune --from FILE takes its encoder",
        )
    settings: dict[str, Any] = {"kind": "encoder", "encoder": encoder_settings(state)}
    if variant.prompted:
        settings["conditions"] = list(conditions_of_state(state))
    if variant.task == "instances":
        ignored = list(IGNORED_CLASSES.get(variant.n_classes, (0, 1)))
        settings |= {"kind": "instances", "n_classes": variant.n_classes, "ignored_classes": ignored}
    if variant.task == "segmentation":
        settings |= {"kind": "segmentation", "head": head_settings(state, variant)}
    return settings


def our_names(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Published weights (unwrapped) of a model under our names."""
    task = variant_of(state).task
    if task == "outdoor":
        return outdoor_names(state)
    kind = task if kind == "classifier" else kind
    return segmentation_names(state) if kind == "segmentation" else dict(state)


PUBLISHED = Published(recognise, our_names)
