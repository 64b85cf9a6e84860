"""Models from files: ours and the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.heads.text_config import OrthogonalEmbeddingsConfig
from ponderv2.models.config import PretextConfig, TextTargetConfig
from ponderv2.models.finetuned import SegmentationModel
from ponderv2.models.instances import InstancesModel
from ponderv2.models.instances_config import InstancesModelConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.models.segmentation_config import SegmentationModelConfig
from ponderv2.scenes.labels import scannet20, scannet200
from ponderv2.training.checkpoint import Checkpoint, checkpoint_file, load_checkpoint, read_archive
from ponderv2.training.official_checkpoints import is_official, official_state, variant_of
from ponderv2.training.official_models import data_settings, model_settings, our_names
from ponderv2.training.weights import load_weights


@dataclass(frozen=True)
class StoredModel:
    """A model in evaluation mode on the CPU, and what its file says beside the weights."""

    model: PretextModel | SegmentationModel | InstancesModel
    path: Path
    config: Mapping[str, Any]
    """The resolved settings of the run that wrote it: `data`, `model`, `training`, `scenes`. Of published
    files `model` and, where it is known, `data`."""
    classes: Mapping[str, Any]
    """Names, colours and label field of a segmentation model."""
    step: int


def load_model(path: Path) -> PretextModel | SegmentationModel | InstancesModel:
    """The model of a checkpoint, or of a run's folder, in evaluation mode. Raises CheckpointError."""
    return load_stored(path).model


def load_stored(path: Path) -> StoredModel:
    """A model with the settings that it was trained under. Raises CheckpointError."""
    path = checkpoint_file(Path(path))
    contents = read_archive(path)
    if is_official(contents):
        return _published(contents, path)
    return stored_from(load_checkpoint(path), path)


def _published(contents: Mapping[str, Any], path: Path) -> StoredModel:
    state = official_state(contents)
    try:
        settings, epoch = model_settings(state), int(contents.get("epoch", 0) or 0)
        data = data_settings(variant_of(state))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", fix=error.fix) from error
    except (LookupError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not one of the published files: {error}") from error
    model = build_model(path, settings["kind"], settings)
    load_weights(model, our_names(state), source=str(path), least_share=1.0)
    config = {"model": settings, **({"data": data} if data else {})}
    return StoredModel(model.eval(), path, config, _published_classes(settings), epoch)


def _published_classes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Names and colours of models of one dataset; those of several datasets leave them to the scenes."""
    n_classes = settings.get("n_classes") or settings.get("head", {}).get("n_classes")
    known = {20: scannet20, 200: scannet200}
    if not isinstance(n_classes, int) or n_classes not in known:
        return {}
    labels = known[n_classes]
    return {"names": list(labels.CLASS_NAMES), "colors": [list(color) for color in labels.COLORS]}


def stored_from(checkpoint: Checkpoint, path: Path) -> StoredModel:
    """The model of a checkpoint that was read already."""
    model = build_model(path, checkpoint.kind, checkpoint.config.get("model", {}))
    load_weights(model, checkpoint.model, source=str(path), least_share=1.0)
    return StoredModel(model.eval(), path, checkpoint.config, checkpoint.classes, checkpoint.step)


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """All weights of a file, ours or published, under our names. Raises CheckpointError."""
    path = checkpoint_file(Path(path))
    contents = read_archive(path)
    return official_state(contents) if is_official(contents) else load_checkpoint(path).model


def build_model(
    path: Path, kind: str, settings: Mapping[str, Any]
) -> PretextModel | SegmentationModel | InstancesModel:
    """A model of some settings as they stand in a file. Raises CheckpointError for what is not known."""
    try:
        match kind:
            case "pretext":
                return PretextModel(_without_files(PretextConfig.model_validate(settings)))
            case "segmentation":
                return SegmentationModel(SegmentationModelConfig.model_validate(settings).without_files())
            case "instances":
                return InstancesModel(InstancesModelConfig.model_validate(settings))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path} has settings that this program does not know: {place}: {first['msg']}"
        ) from error
    raise CheckpointError(
        f"{path} holds no model of a known kind but '{kind}'",
        fix="give the run that it was made from; ponder render and ponder reconstruct read refined scenes",
    )


def _without_files(config: PretextConfig) -> PretextConfig:
    """Class embeddings stand among the weights: the file that they once came from may be gone."""
    if not isinstance(config.semantic, TextTargetConfig):
        return config
    semantic = config.semantic.model_copy(update={"embeddings": OrthogonalEmbeddingsConfig()})
    return config.model_copy(update={"semantic": semantic})
