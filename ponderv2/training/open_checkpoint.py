"""A checkpoint that was opened: read, verified and classified once; everything else is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.heads.config import OrthogonalEmbeddingsConfig
from ponderv2.models.config import EncoderOnlyConfig, PretextConfig, TextTargetConfig
from ponderv2.models.encoder_model import EncoderOnlyModel
from ponderv2.models.pretext import PretextModel
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.tasks.published import PointChoice, label_set_of, model_settings, our_names, points_of
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.checkpoint import FORMAT, Archive, checkpoint_file, checkpoint_of, open_archive
from ponderv2.training.published_checkpoints import (
    JOINT_CONDITIONS,
    JOINT_EMBEDDINGS,
    OfficialVariant,
    encoder_settings,
    official_state,
    variant_of,
    weights_in,
)
from ponderv2.training.weights import load_weights

Model = PretextModel | SegmentationModel | InstancesModel | EncoderOnlyModel

KINDS = ("pretext", "segmentation", "instances", "encoder")
"""Of models that can be built from a file."""
REFINED = "refined_scene"
"""Kind of a scene that was fitted to its own frames."""
RECORD = "ponder"
"""Key in the published container under which our exports keep what that container does not say."""


class Origin(Enum):
    """Who wrote a file. Whether it is a torch archive or safetensors makes no difference."""

    RUN = "ponder"
    """A run, or an export with our settings."""
    REFINED = "ponder (refined scene)"
    PUBLISHED = "the published code"
    """Also exports in its container, and bare weights."""


@dataclass(frozen=True)
class _Contents:
    """What was read, classified."""

    origin: Origin
    kind: str
    digest: str
    weights: dict[str, Tensor]
    """Without wrappers; published ones by their published names."""
    config: Mapping[str, Any]
    classes: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    variant: OfficialVariant | None = None
    """Of published files."""
    unusable: CheckpointError | None = None
    """Why there is no whole model in the file."""
    notes: tuple[str, ...] = ()
    recorded: bool = False
    """Of a published container: whether it says how its data is prepared."""


class OpenCheckpoint:
    """A file of ours or a published one, `.pth` or `.safetensors`; of a run's folder its best checkpoint.

    The file is read and hashed once, when this object is made. Sent to another process it takes its path
    along, and the file is read there, once, when something is asked of it.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError: missing, damaged, unsafe, of another program, without an encoder."""
        self.path = checkpoint_file(Path(path))
        _ = self._contents

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def _contents(self) -> _Contents:
        return _classified(open_archive(self.path))

    @property
    def origin(self) -> Origin:
        """Who wrote it."""
        return self._contents.origin

    @property
    def kind(self) -> str:
        """pretext, segmentation, instances, encoder; refined_scene; of published files also classifier."""
        return self._contents.kind

    @property
    def digest(self) -> str:
        """SHA-256 of the file's archive: the same for two files only where all weights and settings are."""
        return self._contents.digest

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved settings of the run: `data`, `model`, `training`, `scenes`. Of published files `model`
        and, where it is known, `data`."""
        return self._contents.config

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """All entries without wrappers. Those of published files by their published names."""
        return self._contents.weights

    @property
    def classes(self) -> Mapping[str, Any]:
        """Names, colours and label field of a segmentation model."""
        return self._contents.classes

    @property
    def step(self) -> int:
        """Steps done; of published files the epoch."""
        return self._contents.step

    @property
    def variant(self) -> OfficialVariant | None:
        """What the names and shapes of a published file say; None for ours."""
        return self._contents.variant

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file does not say and what is therefore assumed, one sentence each."""
        return self._contents.notes

    @property
    def says_its_data(self) -> bool:
        """Whether the file itself says how its points are prepared."""
        return not self.notes and (self.variant is None or self._contents.recorded)

    @property
    def scenes(self) -> Path | None:
        """The folder of scenes that it was trained on; None for published files."""
        scenes = self.config.get("scenes")
        return Path(scenes) if isinstance(scenes, str) and scenes else None

    @property
    def encoder_settings(self) -> Any:
        """`EncoderConfig` as plain values; None where the file does not describe its encoder."""
        model = self.config.get("model")
        if isinstance(model, Mapping) and model.get("encoder"):
            return model["encoder"]
        return encoder_settings(self.weights) if self.variant is not None else None

    @property
    def conditions(self) -> tuple[str, ...]:
        """Datasets in the order of the rows of `embedding_table`; empty where that order is the encoder's."""
        if self.variant is not None and not self._contents.recorded:
            return JOINT_EMBEDDINGS if self.variant.n_conditions == len(JOINT_EMBEDDINGS) else ()
        model = self.config.get("model")
        return tuple(str(name) for name in model.get("conditions", ())) if isinstance(model, Mapping) else ()

    @property
    def encoder_conditions(self) -> tuple[str, ...]:
        """Datasets in the order of the encoder's normalisations; empty where they have no names."""
        settings = self.encoder_settings
        names = tuple(str(name) for name in (settings or {}).get("conditions", ()))
        named_by_file = self.variant is None or self._contents.recorded or names == JOINT_CONDITIONS
        return names if named_by_file else ()

    def data(self, choice: PointChoice = PointChoice()) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Settings of the data as they stand in the file or follow from it, and what had to be assumed.

        What `choice` says comes first. Raises CheckpointError where neither says what the encoder takes.
        """
        stored = self.config.get("data")
        data = choice.applied(stored if isinstance(stored, Mapping) else {})
        if not stored and not ("voxel" in data and "features" in data):
            takes = (self.encoder_settings or {}).get("in_channels", "some")
            raise CheckpointError(
                f"{self.path} takes {takes} numbers per point and says neither which nor the size of voxels",
                fix="say both: --inputs coord,color --voxel-size 0.05",
            )
        return data, () if choice.is_complete else self.notes

    def require_model(self) -> None:
        """Raises CheckpointError where the file holds no whole model: a classifier, a refined scene."""
        if self._contents.unusable is not None:
            raise self._contents.unusable
        if self.kind not in KINDS:
            raise _no_model(self.path, self.kind)

    def model(self, device: torch.device | str = "cpu") -> Model:
        """The whole model in evaluation mode, on a device. Raises CheckpointError where there is none."""
        self.require_model()
        model = build_model(self.path, self.kind, self.config.get("model", {}))
        load_weights(model, self.our_weights(), source=str(self.path), least_share=1.0)
        return model.eval().to(device)

    def our_weights(self) -> dict[str, Tensor]:
        """All entries by the names of our models."""
        weights = self._contents.weights
        if self.variant is None:
            return weights
        return our_names(weights, self.kind if self._contents.recorded else None)


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
    """The model of a checkpoint, or of a run's folder, in evaluation mode. Raises CheckpointError."""
    return OpenCheckpoint(path).model(device)


def _classified(archive: Archive) -> _Contents:
    if archive.contents.get("format") != FORMAT and weights_in(archive.contents) is not None:
        return _published(archive)
    stored = checkpoint_of(archive)
    refined = stored.kind == REFINED
    return _Contents(
        origin=Origin.REFINED if refined else Origin.RUN,
        kind=stored.kind,
        digest=archive.digest,
        weights=stored.model,
        config=stored.config,
        classes=stored.classes,
        step=stored.step,
        notes=tuple(map(str, archive.contents.get("notes") or ())),
    )


def _published(archive: Archive) -> _Contents:
    path, contents = archive.path, archive.contents
    unusable = None
    try:
        state = official_state(contents)
        variant = variant_of(state)
        kind = "classifier" if variant.pooled else "encoder" if variant.task == "outdoor" else variant.task
        record = contents.get(RECORD)
        if isinstance(record, Mapping):
            return _exported(archive, state, variant, record)
        try:
            settings = model_settings(state)
        except CheckpointError as error:
            settings, unusable = {}, CheckpointError(f"{path}: {error.message}", fix=error.fix)
        points = points_of(variant)
        epoch = int(contents.get("epoch", 0) or 0)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", fix=error.fix) from error
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not one of the published files: {error}") from error
    head = settings.get("head", {})
    return _Contents(
        origin=Origin.PUBLISHED,
        kind=kind,
        digest=archive.digest,
        weights=state,
        config={
            **({"model": settings} if settings else {}),
            **({} if points is None else {"data": dict(points.data)}),
        },
        classes=label_set_of(settings.get("n_classes") or head.get("n_classes")),
        step=epoch,
        variant=variant,
        unusable=unusable,
        notes=() if points is None or points.note is None else (points.note,),
    )


def _exported(
    archive: Archive, state: dict[str, Tensor], variant: OfficialVariant, record: Mapping[str, Any]
) -> _Contents:
    """A file in the published container that we wrote: what the container does not say stands beside it."""
    for name, kind in (("kind", str), ("model", Mapping), ("data", Mapping), ("classes", Mapping)):
        if not isinstance(record.get(name), kind):
            raise CheckpointError(f"'{name}' of the entry '{RECORD}' is no {kind.__name__}")
    epoch = archive.contents.get("epoch", 0)
    return _Contents(
        origin=Origin.PUBLISHED,
        kind=record["kind"],
        digest=archive.digest,
        weights=state,
        config={"model": record["model"], "data": record["data"]},
        classes=record["classes"],
        step=int(epoch or 0),
        variant=variant,
        notes=tuple(map(str, record.get("notes") or ())),
        recorded=True,
    )


def build_model(path: Path, kind: str, settings: Mapping[str, Any]) -> Model:
    """A model of some settings as they stand in a file. Raises CheckpointError for what is not known."""
    try:
        match kind:
            case "pretext":
                return PretextModel(_without_files(PretextConfig.model_validate(settings)))
            case "segmentation":
                return SegmentationModel(SegmentationModelConfig.model_validate(settings).without_files())
            case "instances":
                return InstancesModel(InstancesModelConfig.model_validate(settings))
            case "encoder":
                return EncoderOnlyModel(EncoderOnlyConfig.model_validate(settings))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path} has settings that this program does not know: {place}: {first['msg']}"
        ) from error
    raise _no_model(path, kind)


def _no_model(path: Path, kind: str) -> CheckpointError:
    if kind == REFINED:
        fix = "give the run that it was made from; ponder render and ponder reconstruct read refined scenes"
    else:
        fix = "use the version of the program that wrote it"
    return CheckpointError(f"{path} holds no model of a known kind but '{kind}'", fix=fix)


def _without_files(config: PretextConfig) -> PretextConfig:
    """Class embeddings stand among the weights: the file that they once came from may be gone."""
    if not isinstance(config.semantic, TextTargetConfig):
        return config
    semantic = config.semantic.model_copy(update={"embeddings": OrthogonalEmbeddingsConfig()})
    return config.model_copy(update={"semantic": semantic})
