"""A checkpoint that was opened: read, verified and classified once; everything else is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.training.checkpoint import FORMAT, Archive, checkpoint_file, checkpoint_of, open_archive
from ponderv2.training.published_checkpoints import (
    JOINT_CONDITIONS,
    JOINT_EMBEDDINGS,
    PointChoice,
    encoder_settings,
    official_state,
    weights_in,
)

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
class PublishedModel:
    """A published file as one of our models, by the names and shapes of its weights."""

    kind: str
    """Of our models; or what is in it that none of them is."""
    settings: Mapping[str, Any]
    """Of the whole model; empty where there is none."""
    unusable: CheckpointError | None
    """Why there is no whole model in the file."""
    points: Mapping[str, Any] | None
    """How its points are prepared, as in the settings of a run; None where that does not follow."""
    note: str | None
    """One sentence where more than one configuration of the points is possible."""
    classes: Mapping[str, Any]
    """Names and colours, where they are known."""
    facts: Mapping[str, Any]
    """What `ponder inspect` reports: task, generation, head, classes."""


@dataclass(frozen=True)
class Published:
    """What is known of published weights; `tasks` knows the models."""

    recognise: Callable[[Mapping[str, Tensor]], PublishedModel]
    """From weights without wrappers. Raises CheckpointError for what was not published."""
    our_names: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]]
    """Published weights of a kind by the names of our models."""


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
    published: PublishedModel | None = None
    """Of published files."""
    notes: tuple[str, ...] = ()
    recorded: bool = False
    """Of a published container: whether it says how its data is prepared."""


class OpenCheckpoint:
    """A file of ours or a published one, `.pth` or `.safetensors`; of a run's folder its best checkpoint.

    The file is read and hashed once, when this object is made. Sent to another process it takes its path
    along, and the file is read there, once, when something is asked of it.
    """

    def __init__(self, path: Path, published: Published) -> None:
        """Raises CheckpointError: missing, damaged, unsafe, of another program, without an encoder."""
        self.path, self._published = checkpoint_file(Path(path)), published
        _ = self._contents

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_published": self._published}

    @cached_property
    def _contents(self) -> _Contents:
        return _classified(open_archive(self.path), self._published)

    @property
    def origin(self) -> Origin:
        """Who wrote it."""
        return self._contents.origin

    @property
    def kind(self) -> str:
        """Of the model, as in its settings; or `refined_scene`; of published files also classifier."""
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
        """Names, colours and label field, where the task has classes."""
        return self._contents.classes

    @property
    def step(self) -> int:
        """Steps done; of published files the epoch."""
        return self._contents.step

    @property
    def published(self) -> PublishedModel | None:
        """What the names and shapes of a published file say; None for ours."""
        return self._contents.published

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file does not say and what is therefore assumed, one sentence each."""
        return self._contents.notes

    @property
    def says_its_data(self) -> bool:
        """Whether the file itself says how its points are prepared."""
        return not self.notes and (self.published is None or self._contents.recorded)

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
        return encoder_settings(self.weights) if self.published is not None else None

    @property
    def conditions(self) -> tuple[str, ...]:
        """Datasets in the order of the rows of `embedding_table`; empty where that order is the encoder's."""
        if self.published is not None and not self._contents.recorded:
            table = self.weights.get("embedding_table.weight")
            return JOINT_EMBEDDINGS if table is not None and len(table) == len(JOINT_EMBEDDINGS) else ()
        model = self.config.get("model")
        return tuple(str(name) for name in model.get("conditions", ())) if isinstance(model, Mapping) else ()

    @property
    def encoder_conditions(self) -> tuple[str, ...]:
        """Datasets in the order of the encoder's normalisations; empty where they have no names."""
        settings = self.encoder_settings
        names = tuple(str(name) for name in (settings or {}).get("conditions", ()))
        named_by_file = self.published is None or self._contents.recorded or names == JOINT_CONDITIONS
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

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the model. Raises CheckpointError where the file holds no whole model."""
        published = self.published
        if published is not None and published.unusable is not None:
            raise published.unusable
        return {**self.config.get("model", {}), "kind": self.kind}

    def our_weights(self) -> dict[str, Tensor]:
        """All entries by the names of our models."""
        weights = dict(self._contents.weights)
        return weights if self.published is None else self._published.our_names(weights, self.kind)


def _classified(archive: Archive, published: Published) -> _Contents:
    if archive.contents.get("format") != FORMAT and weights_in(archive.contents) is not None:
        return _published(archive, published)
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


def _published(archive: Archive, published: Published) -> _Contents:
    path, contents = archive.path, archive.contents
    try:
        state = official_state(contents)
        model = published.recognise(state)
        record = contents.get(RECORD)
        if isinstance(record, Mapping):
            return _exported(archive, state, replace(model, unusable=None), record)
        epoch = int(contents.get("epoch", 0) or 0)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", fix=error.fix) from error
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not one of the published files: {error}") from error
    if model.unusable is not None:
        unusable = CheckpointError(f"{path}: {model.unusable.message}", fix=model.unusable.fix)
        model = replace(model, unusable=unusable)
    return _Contents(
        origin=Origin.PUBLISHED,
        kind=model.kind,
        digest=archive.digest,
        weights=state,
        config={
            **({"model": model.settings} if model.settings else {}),
            **({} if model.points is None else {"data": dict(model.points)}),
        },
        classes=model.classes,
        step=epoch,
        published=model,
        notes=() if model.note is None else (model.note,),
    )


def _exported(
    archive: Archive, state: dict[str, Tensor], published: PublishedModel, record: Mapping[str, Any]
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
        published=published,
        notes=tuple(map(str, record.get("notes") or ())),
        recorded=True,
    )
