"""The datasets of a run: their folders, scenes and validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ponderv2.data.config import Part, PointDataConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import PresetError, SceneError
from ponderv2.randomness import derive_dataset_seed
from ponderv2.scenes.folders import SceneFolders
from ponderv2.training.run_logger import RunLogger
from ponderv2.training.validation import Validation
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig

Data = TypeVar("Data", bound=PointDataConfig)
Config = TypeVar("Config", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True)
class OpenPart(Generic[Data]):
    """A dataset of a run that has scenes to train on."""

    store: SceneFolders
    part: Part[Data]
    seed: int
    """Of its order, augmentations and rays."""

    @property
    def names(self) -> tuple[str, ...]:
        """The training scenes."""
        return self.store.names(self.part.train_split)

    @property
    def val_split(self) -> str | None:
        """The split to validate on; None where it has no scenes."""
        return self.part.val_split if self.store.names(self.part.val_split) else None


def with_scenes(config: Config, scenes: Path | None) -> Config:
    """The settings with the folders that `--data` means.

    One dataset: that folder. Several: the folders in it that are called like those of the preset. `scenes`
    then becomes the first of them, which is where other commands look when they are given the checkpoint.
    """
    if not config.datasets:
        return config.model_copy(update={"scenes": Path(scenes or config.scenes)})
    datasets = config.datasets
    if scenes is not None:
        moved = {part.scenes: Path(scenes) / part.scenes.name for part in datasets}
        datasets = tuple(part.model_copy(update={"scenes": moved[part.scenes]}) for part in datasets)
    return config.model_copy(update={"datasets": datasets, "scenes": datasets[0].scenes})


def singles(config: FinetuneConfig) -> tuple[FinetuneConfig, ...]:
    """The settings as of runs on one dataset each; a run with one dataset is its own."""
    if not config.datasets:
        return (config,)
    return tuple(
        config.model_copy(
            update={
                "datasets": (),
                "scenes": part.scenes,
                "train_split": part.train_split,
                "val_split": part.val_split,
                "data": part.data,
                "seed": derive_dataset_seed(config.seed, number),
            }
        )
        for number, part in enumerate(config.parts)
    )


def open_parts(parts: tuple[Part[Data], ...], seed: int) -> tuple[OpenPart[Data], ...]:
    """All datasets of a run.

    Raises:
        SceneError: a folder is missing, or has no scenes to train on.
    """
    opened = []
    for number, part in enumerate(parts):
        store = open_folder(part.scenes)
        if not store.names(part.train_split):
            key = f"datasets.{number}.train_split" if len(parts) > 1 else "train_split"
            raise SceneError(
                f"{part.scenes} has no scenes in '{part.train_split}'",
                fix=f"--set {key}={store.info.splits[0]}",
            )
        opened.append(OpenPart(store, part, derive_dataset_seed(seed, number)))
    return tuple(opened)


def check_known(condition: str, root: Path, conditions: tuple[str, ...]) -> None:
    """Raises PresetError where a model with dataset prompts does not know a dataset."""
    if conditions and condition not in conditions:
        raise PresetError(
            f"{root} holds scenes of '{condition}', the model knows the datasets: {', '.join(conditions)}",
            fix=f"--set model.conditions=[{condition}]",
        )


def fingerprints(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Equal for two runs on the same scenes; from the fingerprint of each dataset."""
    return each[0] if len(each) == 1 else {"name": "+".join(one["name"] for one in each), "datasets": each}


def distinct_names(names: Sequence[str]) -> list[str]:
    """The same names, with a number where one occurs again."""
    return [
        name if names.index(name) == place else f"{name}-{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


@dataclass(frozen=True)
class JointValidation:
    """The scenes of several datasets, one after the other; metrics as `joint_metrics`."""

    each: dict[str, Validation]

    def __len__(self) -> int:
        return sum(map(len, self.each.values()))

    def measure(self, number: int, step: int, logger: RunLogger | None) -> Any:
        """What the dataset of the scene measures."""
        for one in self.each.values():
            if number < len(one):
                return one.measure(number, step, logger)
            number -= len(one)
        raise IndexError(f"only {len(self)} scenes")

    def metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Those of one dataset as they are; of several the means, then each as `metric/dataset`."""
        left, found = list(results), {}
        for name, one in self.each.items():
            found[name], left = one.metrics(left[: len(one)]), left[len(one) :]
        return joint_metrics(found)


def joint_metrics(per_dataset: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics of one dataset as they are; of several the means, then each as `metric/dataset`.

    A mean is over the datasets that have a number: of psnr not over those without colour.
    """
    every = list(per_dataset.values())
    if len(every) == 1:
        return every[0]
    shared = [name for name in every[0] if all(name in one for one in every)]
    known = {name: [one[name] for one in every if not math.isnan(one[name])] for name in shared}
    means = {name: sum(values) / len(values) if values else math.nan for name, values in known.items()}
    return means | {f"{name}/{key}": one[name] for key, one in per_dataset.items() for name in one}
