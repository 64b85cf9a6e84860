"""The data sets of a training run, opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.randomness import derive_dataset_seed
from ponderv2.tasks.task import OpenPart
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig


def open_parts(
    config: PretrainConfig | FinetuneConfig, folder: Path | None = None
) -> tuple[OpenPart[Any], ...]:
    """All data sets of a run. `folder`: of the run, as `OpenPart.folder`.

    Raises:
        SceneError: a folder is missing, or has no scenes to train on.
    """
    opened = []
    for number, part in enumerate(config.parts):
        store = open_folder(part.scenes)
        if not store.names(part.train_split):
            key = f"datasets.{number}.train_split" if len(config.parts) > 1 else "train_split"
            raise SceneError(
                f"{part.scenes} has no scenes in '{part.train_split}'",
                fix=f"--set {key}={store.info.splits[0]}",
            )
        opened.append(OpenPart[Any](store, part, derive_dataset_seed(config.seed, number), folder))
    return tuple(opened)
