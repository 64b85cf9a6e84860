"""The contract of a task: everything that the commands ask of it, and nothing else.

A task is a folder of `tasks/` with settings (`config.py`), a model and a subclass of `Task`; its lines in
`tasks/kinds.py` make it known. Nothing here needs points or labels: which part of a
scene is read, what a batch holds and what is predicted is the task's own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from pydantic import ValidationError
from torch import Tensor, nn

from ponderv2.config import StrictConfig
from ponderv2.data.config import Part, PointDataConfig
from ponderv2.data.fragments import TestSet
from ponderv2.errors import CheckpointError
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.reader import Reader
from ponderv2.tasks.detector import Detector
from ponderv2.tasks.loaded_model import LoadedModel
from ponderv2.tasks.published import settings_in_published_order
from ponderv2.training.config import TrainingConfig
from ponderv2.training.data_loader import Collate
from ponderv2.training.report import Reporter
from ponderv2.training.validation import Validation

Settings = TypeVar("Settings", bound=StrictConfig)
Config = TypeVar("Config", bound=StrictConfig)
Data = TypeVar("Data", bound=PointDataConfig)


@runtime_checkable
class TaskDataset(Protocol):
    """The scenes of one split as the task reads them."""

    @property
    def store(self) -> Reader:
        """Where the scenes are read from."""
        ...

    @property
    def split(self) -> str:
        """Which of them."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The scenes."""
        ...

    @property
    def condition(self) -> str:
        """Name of the data set, which prompted encoders distinguish."""
        ...

    @property
    def collate(self) -> Collate:
        """From samples to a batch."""
        ...

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def sample(self, index: int, draw: int) -> Batch:
        """Scene `index` as a batch of one, with its targets; `draw` chooses the augmentation."""
        ...


@runtime_checkable
class FitHead(Protocol):
    """Fits a head to the features that its encoder gives for the training scenes, with their labels.

    All processes call it together; the model is on its device. Raises SceneError without any label.
    """

    def __call__(self, model: Any, trainings: Sequence[Any], seed: int, report: Reporter) -> None: ...


@dataclass(frozen=True)
class OpenPart(Generic[Data]):
    """One data set of a run, which has scenes to train on."""

    store: SceneFolders
    part: Part[Data]
    seed: int
    """Of its order, augmentations and rays."""
    folder: Path | None = None
    """Of the run, once it holds what `Task.before_training` made; None before that."""

    @property
    def names(self) -> tuple[str, ...]:
        """The training scenes."""
        return self.store.names(self.part.train_split)

    @property
    def val_split(self) -> str | None:
        """The split to validate on; None where it has no scenes."""
        return self.part.val_split if self.store.names(self.part.val_split) else None


@dataclass(frozen=True)
class ValidationRequest:
    """What a validation during training may need beside model and data."""

    folder: Path
    """Of the run."""
    prefix: str
    """Of the names of files and curves, where there are several data sets."""
    training: TrainingConfig


@dataclass(frozen=True)
class BestMetric:
    """The metric of a validation that decides which checkpoint is the best."""

    name: str
    higher_is_better: bool = True


class Task(ABC, Generic[Settings]):
    """One task with the settings of its model.

    Checkpoints, settings and results name it by the `kind` of its settings.
    """

    best: ClassVar[BestMetric]
    renders: ClassVar[bool] = False
    """Whether its models have a field, which `ponder render` and `ponder reconstruct` need."""
    model_in_words: ClassVar[str] = "a model of another task"
    """For messages: `a segmentation model`."""
    protocols: ClassVar[tuple[str, ...]] = ()
    """How its encoder is compared with others by the class of every point, see `tasks/protocols.py`; empty
    for tasks that such classes do not apply to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    # Model and training

    @abstractmethod
    def build(self) -> nn.Module:
        """A model with `backbone` and, where its encoder is prompted, `embedding_table`.

        `model(batch, generator)` gives a step: `.losses` holds the weighted terms as named scalars, and
        `.losses.total()` is what is minimised.
        """

    def with_data(self, data: PointDataConfig) -> Settings:
        """The settings with what they leave to those of the data. Raises PresetError where both disagree."""
        return self.settings

    def with_scenes(self, store: SceneFolders, data: PointDataConfig) -> Settings:
        """The settings with what they leave to the scenes, such as the number of classes.

        Raises PresetError where settings and scenes disagree.
        """
        return self.settings

    def before_training(
        self, parts: Sequence[OpenPart[Any]], folder: Path, resumed: bool, report: Reporter
    ) -> None:
        """Computes what follows from all training scenes together, into the folder of the run.

        Only the first process of a run calls it. Raises SceneError and OutputError.

        Args:
            parts: The data sets of the run.
            folder: Of the run.
            resumed: The run continues with what it found when it was started.
            report: For progress.
        """

    @abstractmethod
    def datasets(self, part: OpenPart[Any]) -> tuple[TaskDataset, TaskDataset | None]:
        """Scenes to train on and, where there are any, to validate.

        Raises PresetError and SceneError for scenes without the targets of the task, or that the model does
        not know: by the first scene, before the work.
        """

    def warnings(self, store: SceneFolders, split: str) -> tuple[str, ...]:
        """What to know of the scenes of a split, one sentence each."""
        return store.warnings(split, labels=True)

    def training_warnings(self, part: OpenPart[Any]) -> tuple[str, ...]:
        """The same of scenes to train on."""
        return self.warnings(part.store, part.part.train_split)

    def mix_probability(self, data: PointDataConfig) -> float:
        """Probability that two neighbouring scenes of a batch are merged (Mix3D) when they are collated."""
        return 0.0

    def targets(self, data: TaskDataset) -> str:
        """What is learned from the scenes of a data set, in two words: `20 classes`."""
        return ""

    def classes(self, trainings: Sequence[Any]) -> dict[str, Any]:
        """What checkpoints record of the classes: names and colours, by data set where there are several."""
        return {}

    @abstractmethod
    def validation(self, model: Any, data: Any, request: ValidationRequest) -> Validation:
        """How the model is validated during training on the scenes of a data set."""

    def best_of(self, validations: Sequence[Validation]) -> BestMetric:
        """The metric by which the best checkpoint is chosen."""
        return self.best

    def initial_weights(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Entries of a pre-trained model, beside its encoder, that the new model starts from, by their names
        in the new model."""
        return {}

    def brings_head(self, stored: Mapping[str, Tensor]) -> bool:
        """Whether a pre-trained model holds the trained weights of the head of the new model."""
        return False

    @property
    def fit_head(self) -> FitHead | None:
        """How the head starts as a probe: `model.head_init: probe`, `--protocol linear`. None: it cannot."""
        return None

    # Evaluation

    def check_results(self, path: Path) -> None:
        """Raises CheckpointError where a model of this task has nothing to measure."""

    @abstractmethod
    def evaluate(self, request: EvaluationRequest, model: Any, report: Reporter) -> EvaluationResult:
        """`ponder eval`: metrics of a split; tables, images and files into the folders of the request.

        Raises SceneError for scenes that the model does not know or where there is nothing to do,
        OutputError where something cannot be written.
        """

    def detector(self, loaded: LoadedModel) -> Detector | None:
        """Its trained model as one that finds boxes, for `ponder detect`. None: it does not."""
        return None

    # Published weights

    def published_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the model by the names and in the order of the published code.

        Raises CheckpointError where nothing was published for this model.
        """
        raise CheckpointError(f"a model of kind '{_kind(self.settings)}' has no published form")

    def published_settings(self) -> dict[str, Any]:
        """The settings under which the published form of the weights is read back, as plain values."""
        return settings_in_published_order(self.settings.model_dump(mode="json"))

    def differences_from_published(self) -> list[str]:
        """Settings that the published code does not have, so that it would compute something else."""
        return []


def _kind(settings: StrictConfig) -> str:
    return str(getattr(settings, "kind", "unknown"))


def part_of(config: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """The settings of a run on several data sets for the folder of that name; else nothing."""
    for part in config.get("datasets") or ():
        if Path(str(part.get("scenes", ""))).name == root.name:
            return part
    return {}


@dataclass(frozen=True)
class EvaluationRequest:
    """A model, scenes, and what is wanted of their comparison."""

    stored: LoadedModel
    store: SceneFolders
    split: str
    folder: Path
    """For tables, images and the cache of an evaluation that is interrupted."""
    tta: TestSet = "none"
    """Test-time augmentation."""
    width: int = 96
    """Of rendered views, pixels."""
    submission: Path | None = None
    """Archive for the server of a benchmark."""
    export: Path | None = None
    """Folder for the predictions as coloured point clouds."""
    reuse: bool = True
    """Use cached predictions of an earlier evaluation under the very same conditions."""

    def settings(self, kind: type[Config], **changes: Any) -> Config:
        """How the data was prepared in training; of several data sets, that whose folder has the same name.

        Raises CheckpointError: another version wrote the file.
        """
        part = part_of(self.stored.config, self.store.root)
        own = dict(part.get("data") or {})
        if part.get("label_field"):
            own["label_field"] = part["label_field"]
        try:
            return kind.model_validate({**self.stored.config["data"], **own, **changes})
        except (ValidationError, TypeError) as error:
            raise CheckpointError(
                f"{self.stored.path} has settings of data that this program does not know",
                fix="use the version of the program that wrote it",
            ) from error


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a model on one split. Tasks fill the tables that apply to them."""

    kind: str
    """Of the checkpoint."""
    checkpoint: Path
    split: str
    n_scenes: int
    metrics: dict[str, float]
    """Empty where the scenes have nothing to compare with."""
    tta: str = "none"
    classes: list[dict[str, Any]] = field(default_factory=list)
    """One row per class: its name, metrics and counts."""
    views: list[dict[str, Any]] = field(default_factory=list)
    """One row per rendered view: scene, frame and metrics."""
    images: list[Path] = field(default_factory=list)
    submission: Path | None = None
    n_reused: int = 0
    """Scenes whose predictions came from the cache."""
    milliseconds: float | None = None
    """From the points of a scene to what is predicted: the median of those that were computed now."""
    notes: list[str] = field(default_factory=list)
    """What the checkpoint does not say and was assumed."""
