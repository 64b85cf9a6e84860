"""Which folder of prepared scenes a command works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.scenes.folders import SceneFolders
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.report import Reporter
from ponderv2.workflows.config import FinetuneConfig, ReconstructConfig, RenderConfig

DEFAULT = Path("data/rooms")
"""Where `ponder prepare synthetic` writes."""


@dataclass(frozen=True)
class SceneChoice:
    """The folder given by the user, in order of precedence; None where none was given."""

    given: Path | None = None
    """`--data`."""
    preset: Path | None = None
    """`scenes` of the preset or of `--set`."""

    @staticmethod
    def of(given: Path | None, config: FinetuneConfig | RenderConfig | ReconstructConfig) -> SceneChoice:
        """`scenes` counts where a preset or `--set` names it, not where it is the default of the settings."""
        named = config.scenes if "scenes" in config.model_fields_set else None
        return SceneChoice(None if given is None else Path(given), named)


def open_scenes(
    choice: SceneChoice, checkpoint: OpenCheckpoint | None, report: Reporter | None = None
) -> SceneFolders:
    """The folder that `--data` names, else the preset's, else that of the checkpoint, else `data/rooms`.

    Raises SceneError: the folder is not there or has no prepared scenes.
    """
    if choice.given is not None:
        return open_folder(choice.given)
    recorded = None if checkpoint is None else checkpoint.scenes
    if choice.preset is not None:
        return _of_preset(choice.preset, recorded, report)
    if recorded is not None and checkpoint is not None and not recorded.is_dir():
        raise SceneError(
            f"{recorded}, the folder of scenes that {checkpoint.path} was trained on, is not there",
            fix="--data DIR with a folder of prepared scenes",
        )
    return open_folder(recorded or DEFAULT)


def _of_preset(scenes: Path, recorded: Path | None, report: Reporter | None) -> SceneFolders:
    if not scenes.is_dir():
        there = recorded is not None and recorded.is_dir()
        trained = f"; the checkpoint was trained on {recorded}" if there else ""
        raise SceneError(
            f"{scenes}, the folder of scenes that the settings name, is not there{trained}",
            fix=f"--data {recorded}" if there else "--data DIR with a folder of prepared scenes",
        )
    if report is not None and recorded is not None and recorded.resolve() != scenes.resolve():
        report.note(f"scenes of {scenes}, as the settings say; the checkpoint was trained on {recorded}")
    return open_folder(scenes)
