"""What the tasks on labels of points share: their scenes, the checks of classes, and the names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TypeVar, cast

from jaxtyping import Int
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig, PointDataConfig
from ponderv2.data.datasets import LabelledDataset, classes_above
from ponderv2.datasets.benchmarks import Benchmark, benchmark_of
from ponderv2.errors import PresetError, SceneError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.labelled_config import ClassesConfig
from ponderv2.tasks.loaded_model import LoadedModel
from ponderv2.tasks.protocols import PROBES, TRAINED
from ponderv2.tasks.task import EvaluationRequest, OpenPart, Task, TaskDataset

Settings = TypeVar("Settings", bound=ClassesConfig)


class LabelledPointsTask(Task[Settings]):
    """A task whose targets are the labels of points."""

    protocols = (*PROBES, *TRAINED)

    def with_scenes(self, store: SceneFolders, data: PointDataConfig) -> Settings:
        """The settings with the number of classes of the scenes. Raises PresetError where they disagree."""
        field = data.label_field or store.info.label_field
        names = store.info.label_set(field).class_names
        n_classes = self._n_classes(store, field, len(names))
        return cast(Settings, self.settings.with_classes(store.info.name, n_classes, names))

    def _n_classes(self, store: SceneFolders, field: str, known: int) -> int:
        condition = store.info.name
        wanted = self.settings.classes_of(condition)
        if wanted is None and not known:
            raise PresetError(
                f"{store.root} does not say how many classes '{field}' has",
                fix=self.settings.classes_option(condition, "N"),
            )
        if wanted is not None and known and wanted != known:
            raise PresetError(
                f"the model has {wanted} classes and {store.root} has {known}",
                fix=self.settings.classes_option(condition, known),
            )
        return wanted or known

    def datasets(self, part: OpenPart[LabelledDataConfig]) -> tuple[LabelledDataset, LabelledDataset | None]:
        """Scenes to train on and, where the other split has any, to validate; the labels of the first scene
        and the name of the dataset are checked."""
        training = LabelledDataset(part.store, part.part.train_split, part.part.data, part.seed)
        if part.part.data.class_balance:
            training.balance()
        self._check_classes(training)
        if part.val_split is None:
            return training, None
        # A budget of labels is for training; all scenes and labels of the other split are evaluated.
        everything = part.part.data.model_copy(update={"budget": type(part.part.data.budget)()})
        validation = LabelledDataset(part.store, part.val_split, everything, part.seed)
        n_classes = self.settings.classes_of(validation.condition)
        if n_classes is not None:
            validation.expect_classes(n_classes)
        return training, validation

    def mix_probability(self, data: PointDataConfig) -> float:
        """That of the settings."""
        assert isinstance(data, LabelledDataConfig)
        return data.mix_probability

    def targets(self, data: TaskDataset) -> str:
        """The number of classes."""
        return f"{self.settings.classes_of(data.condition)} classes"

    def classes(self, trainings: Sequence[LabelledDataset]) -> dict[str, Any]:
        """Names and colours of the first dataset; of several, under `datasets` those of each by its name."""
        each: dict[str, dict[str, Any]] = {}
        for training in trainings:
            labels = training.store.info.label_set(training.label_field)
            each[training.condition] = {
                "names": list(labels.class_names),
                "colors": [list(color) for color in labels.class_colors],
                "label_field": training.label_field,
                "condition": training.condition,
            }
        first = each[trainings[0].condition]
        return first if len(each) == 1 else {**first, "datasets": each}

    def _check_classes(self, training: LabelledDataset) -> None:
        """Reports labels and datasets that the model does not know before the work, by the first scene.

        Later scenes are refused when they are read.
        """
        self._check_condition(training.condition)
        n_classes = self.settings.classes_of(training.condition)
        if n_classes is None:
            return
        segment = training.labelled_scene(0).cloud.labels[training.label_field]
        wrong = classes_above(n_classes - 1, segment, f"scene '{training.names[0]}'", training.label_field)
        if wrong is not None:
            option = self.settings.classes_option(training.condition, int(segment.max()) + 1)
            raise PresetError(
                wrong,
                fix=f"{option} if these are classes, -1 in the array where not, "
                "or --set data.label_field=NAME",
            )
        training.expect_classes(n_classes)

    def _check_condition(self, condition: str) -> None:
        """Raises PresetError where a prompted encoder, or a head with parts per dataset, does not know it."""
        prompts = self.settings.prompts
        if not prompts.knows(condition):
            raise PresetError(
                f"the encoder knows the datasets {', '.join(prompts.known)}, not '{condition}'",
                fix=f"--set model.condition={prompts.known[0]}",
            )
        if not self.settings.knows(condition):
            raise PresetError(
                f"the model has no classes or prompt for the dataset '{condition}'",
                fix="--set model.condition=NAME with a dataset that it knows",
            )


def benchmark_for(
    request: EvaluationRequest, class_names: Sequence[str], scans: bool = False
) -> Benchmark | None:
    """The benchmark with these classes; `scans`: whether files per LiDAR scan can be written.

    Raises SceneError where a submission is wanted and no benchmark has them.
    """
    found = benchmark_of(class_names)
    if request.submission is not None and (found is None or (found.files != "text" and not scans)):
        others = ", for nuScenes and for SemanticKITTI" if scans else ""
        raise SceneError(
            f"there is a submission format for the 20 and 200 classes of ScanNet{others}, not for those of "
            "this model",
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


def class_names(stored: LoadedModel, n_classes: int, data: LabelledDataset) -> list[str]:
    """The names that the checkpoint knows for these scenes, or that they give their classes, or numbers."""
    of_scenes = data.store.info.label_set(data.label_field).class_names
    for names in (names_of_model(stored, data.condition), of_scenes):
        if len(names) == n_classes:
            return list(names)
    return [f"class {number}" for number in range(n_classes)]


def _named(name: str | None) -> str:
    return "none" if name is None else f"'{name}'"
