"""What commands ask of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Int
from pydantic import ValidationError
from torch import Tensor

from ponderv2.config import StrictConfig
from ponderv2.data.datasets import LabelledDataset, classes_above
from ponderv2.data.fragments import TestSet
from ponderv2.datasets.scannet.benchmarks import Benchmark, benchmark_of
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.loaded_model import LoadedModel
from ponderv2.training.validation import Validation
from ponderv2.workflows.config import FinetuneConfig


@dataclass(frozen=True)
class Task:
    """How the models of one `kind` are built, fed and judged."""

    kind: str
    """That of the model settings, and of the checkpoints."""
    build: Callable[[Any], Any]
    """From settings to a model with `backbone` and, where its encoder is prompted, `embedding_table`.

    `model(batch, generator)` gives a step with `.losses`."""
    datasets: Callable[[FinetuneConfig], tuple[LabelledDataset, LabelledDataset | None]]
    """Scenes to train on and, where the other split has any, to validate.

    Raises PresetError and SceneError for labels and datasets that the model does not know."""
    validation: Callable[[Any, LabelledDataset], Validation]
    """How a model is judged by the scenes of a dataset; metrics are 0..1."""
    best_metric: str
    """The metric by which the best checkpoint is kept."""


Config = TypeVar("Config", bound=StrictConfig)


def part_of(config: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """What the settings of a run on several datasets say of the folder of that name; else nothing."""
    for part in config.get("datasets") or ():
        if Path(str(part.get("scenes", ""))).name == root.name:
            return part
    return {}


@dataclass(frozen=True)
class EvaluationRequest:
    """A model, scenes, and how they are to be compared."""

    stored: LoadedModel
    store: SceneFolders
    split: str
    folder: Path
    """For tables, pictures and what is kept of an evaluation that is interrupted."""
    tta: TestSet = "none"
    width: int = 96
    """Of rendered views, pixels."""
    submission: Path | None = None
    """Archive for the benchmark's server."""
    export: Path | None = None
    """Folder for the predictions as coloured point clouds."""
    reuse: bool = True
    """Take over predictions of an earlier evaluation under the very same conditions."""

    def settings(self, kind: type[Config], **changes: Any) -> Config:
        """How the data was prepared in training; of several datasets, that whose folder has the same name.

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

    def benchmark(self, class_names: Sequence[str]) -> Benchmark | None:
        """The benchmark with these classes.

        Raises SceneError where a submission is wanted and no benchmark has them.
        """
        found = benchmark_of(class_names)
        if self.submission is not None and found is None:
            raise SceneError(
                "there is a submission format for the 20 and 200 classes of ScanNet, "
                "not for those of this model",
                fix="leave --submission out",
            )
        return found


def refuse_other_classes(
    stored: LoadedModel, data: LabelledDataset, labels: Int[Tensor, " point"], n_classes: int
) -> None:
    """Raises SceneError where the scenes have other classes than the model, or give them other names.

    `labels`: of the first scene. Later scenes are refused when they are read.
    """
    fix = "--data DIR with scenes of the classes that the model was trained on"
    where = f"scene '{data.names[0]}' of {data.store.root}"
    wrong = classes_above(n_classes - 1, labels, where, data.label_field)
    if wrong is not None:
        raise SceneError(wrong, fix=f"{fix}; -1 in the array where a point has no class")
    data.expect_classes(n_classes)
    of_scenes = data.store.info.label_set(data.label_field).class_names
    of_model = names_of_model(stored, data.condition)
    if not of_scenes or not of_model:
        return
    for number, (here, there) in enumerate(zip_longest(of_scenes, of_model)):
        if here != there:
            raise SceneError(
                f"class {number} is {_named(here)} in the scenes of {data.store.root} and {_named(there)} in "
                f"those that {stored.path} was trained on",
                fix=fix,
            )


def names_of_model(stored: LoadedModel, condition: str) -> tuple[str, ...]:
    """Class names that a checkpoint knows, of several datasets those of one; empty where it knows none."""
    every = stored.classes.get("datasets")
    classes = stored.classes if every is None else every.get(condition, {})
    return tuple(str(name) for name in classes.get("names", ()))


def _named(name: str | None) -> str:
    return "none" if name is None else f"'{name}'"


@dataclass(frozen=True)
class EvaluationResult:
    """Numbers of a model on one split."""

    kind: str
    """pretext | segmentation | instances."""
    checkpoint: Path
    split: str
    n_scenes: int
    metrics: dict[str, float]
    """segmentation: see `named_metrics`; empty where the scenes have no labels. pretext: psnr (decibel),
    ssim, depth_l1, depth_median (m). instances: ap, ap50, ap25, and miou of the classes."""
    tta: str = "none"
    classes: list[dict[str, Any]] = field(default_factory=list)
    """Per class. segmentation: class, iou, accuracy, points (true ones), intersection, union. instances:
    class, ap, ap50, ap25 and number of true objects."""
    views: list[dict[str, Any]] = field(default_factory=list)
    """Per rendered view: scene, frame and metrics."""
    pictures: list[Path] = field(default_factory=list)
    submission: Path | None = None
    n_reused: int = 0
    """Scenes whose predictions an earlier evaluation had left."""
    notes: list[str] = field(default_factory=list)
    """What the checkpoint does not say and was assumed."""
