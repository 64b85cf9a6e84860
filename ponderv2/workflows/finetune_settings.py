"""Fills in what a fine-tuning preset leaves to the checkpoint and to the scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ponderv2.data.config import LabelledDataConfig, PointDataConfig
from ponderv2.encoder.config import EncoderConfig
from ponderv2.errors import CheckpointError, PresetError
from ponderv2.heads.config import DecoupledHeadConfig, LanguageHeadConfig
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.config import TaskModelConfig
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.workflows.config import FinetuneConfig


def completed(
    config: FinetuneConfig, store: SceneFolders, checkpoint: OpenCheckpoint | None
) -> FinetuneConfig:
    """The settings with an encoder, its voxels and features, and a number of classes.

    Where `model.encoder` is not set, the encoder is that of the checkpoint; voxels and features then are too,
    unless the settings name their own.

    Raises:
        PresetError: no encoder and no checkpoint; features that the encoder does not take; another number of
            classes than the scenes have, or none known.
        CheckpointError: it cannot be read or does not describe its encoder.
    """
    data, encoder = config.data, config.model.encoder
    if encoder is None:
        if checkpoint is None:
            raise PresetError(
                "there is no encoder: the preset leaves it to the checkpoint, and there is none",
                fix="--from CKPT, or --set model.encoder.kind=sparse_unet",
            )
        encoder, data = _encoder_of(checkpoint, data)
        if encoder.in_channels != data.n_channels:
            raise PresetError(
                f"data.features give {data.n_channels} channels, "
                f"but the encoder of {checkpoint.path} takes {encoder.in_channels}",
                fix="leave data.features out: they follow from the checkpoint",
            )
    update: dict[str, Any] = {"encoder": encoder}
    if checkpoint is not None and getattr(config.model, "conditions", None) == ():
        update["conditions"] = checkpoint.conditions
    names = store.info.label_set(data.label_field or store.info.label_field).class_names
    n_classes = _n_classes(config, store)
    model = with_classes(config.model, store.info.name, n_classes, names).model_copy(update=update)
    return config.model_copy(update={"data": data, "model": model, "scenes": store.root})


def _encoder_of(
    checkpoint: OpenCheckpoint, data: LabelledDataConfig
) -> tuple[EncoderConfig, LabelledDataConfig]:
    """The encoder that a file holds, and how its points are to be prepared."""
    encoder = _encoder(checkpoint.path, checkpoint.encoder_settings)
    stored = checkpoint.config.get("data")
    known = {name: stored.get(name) for name in ("voxel", "features")} if isinstance(stored, Mapping) else {}
    wanted = {name: value for name, value in known.items() if value and name not in data.model_fields_set}
    try:
        points = PointDataConfig.model_validate(wanted)
    except ValidationError as error:
        raise CheckpointError(
            f"{checkpoint.path} has point settings that this program does not know"
        ) from error
    return encoder, data.model_copy(update={name: getattr(points, name) for name in wanted})


def _encoder(path: Path, values: Any) -> EncoderConfig:
    try:
        return TypeAdapter(EncoderConfig).validate_python(values)
    except ValidationError as error:
        raise CheckpointError(
            f"{path} does not say what its encoder looks like",
            fix="--set model.encoder.kind=sparse_unet",
        ) from error


def n_classes_of(model: TaskModelConfig, condition: str) -> int | None:
    """Classes of the model for a dataset; None where the scenes are to say."""
    if isinstance(model, InstancesModelConfig):
        return model.n_classes
    return model.head.classes_of(model.condition or condition)


def with_classes(
    model: TaskModelConfig, condition: str, n_classes: int, names: tuple[str, ...] = ()
) -> TaskModelConfig:
    """The same model for a number of classes, which a language head calls by their names."""
    if isinstance(model, InstancesModelConfig):
        return model.model_copy(update={"n_classes": n_classes})
    head = model.head.with_classes(model.condition or condition, n_classes)
    if isinstance(head, LanguageHeadConfig) and head.names is None and len(names) == head.n_texts:
        head = head.model_copy(update={"class_names": names})
    return model.model_copy(update={"head": head})


def _n_classes(config: FinetuneConfig, store: SceneFolders) -> int:
    field = config.data.label_field or store.info.label_field
    wanted = n_classes_of(config.model, store.info.name)
    known = len(store.info.label_set(field).class_names)
    key = "model.n_classes" if isinstance(config.model, InstancesModelConfig) else "model.head.n_classes"
    if wanted is None and not known:
        raise PresetError(f"{store.root} does not say how many classes '{field}' has", fix=f"--set {key}=N")
    if wanted is not None and known and wanted != known:
        raise PresetError(
            f"the model has {wanted} classes and {store.root} has {known}",
            fix=_fix_of_classes(config.model, store.info.name, known) or f"--set {key}={known}",
        )
    return wanted or known


def _fix_of_classes(model: TaskModelConfig, condition: str, known: int) -> str | None:
    """The setting of heads that count the classes of each dataset."""
    head = getattr(model, "head", None)
    name = model.condition or condition
    if isinstance(head, LanguageHeadConfig):
        return f"--set model.head.valid_index.{name}=[...] with the text of each of the {known} classes"
    if isinstance(head, DecoupledHeadConfig):
        return f"--set model.head.n_classes.{name}={known}"
    return None
