"""Which folder of prepared scenes a command works on when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ponderv2.errors import SceneError
from ponderv2.scenes.storage import SceneStore
from ponderv2.training.checkpoint import checkpoint_file, read_archive


def open_scenes(given: Path | None, checkpoint: Path | None, default: Path) -> SceneStore:
    """The folder that was given, else the one that the checkpoint was trained on, else `default`.

    Raises:
        SceneError: there are no prepared scenes.
        CheckpointError: the folder has to be looked up in a checkpoint that cannot be read.
    """
    if given is not None:
        return SceneStore.open(Path(given))
    recorded = (
        None if checkpoint is None else recorded_scenes(read_archive(checkpoint_file(Path(checkpoint))))
    )
    if recorded is not None and not recorded.is_dir():
        raise SceneError(
            f"{recorded}, the folder of scenes that {checkpoint} was trained on, is not there",
            fix="--data DIR with a folder of prepared scenes",
        )
    return SceneStore.open(recorded or default)


def recorded_scenes(contents: dict[str, Any]) -> Path | None:
    """The folder of scenes that a checkpoint names; None for published files."""
    config = contents.get("config")
    scenes = config.get("scenes") if isinstance(config, dict) else None
    return Path(scenes) if isinstance(scenes, str) and scenes else None
