"""Settings and scenes of runs that are small enough to be killed often."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ponder_cli.app import app
from tests.scenes.closed_form_room import write_store
from tests.workflows.tiny import finetune_config, pretrain_config

COMMANDS = ("pretrain", "finetune")


def store(folder: Path, n_scenes: int = 3) -> Path:
    """Rooms to train on and as many to validate."""
    write_store(folder, n_scenes=n_scenes, n_points=1000, splits=("train", "val"))
    return folder


def warm() -> None:
    """Runs everything once in this process, so that those forked from it need not import it again."""
    folder = Path(tempfile.mkdtemp(prefix="ponder-warm-"))
    scenes = store(folder / "scenes", 2)
    for command in COMMANDS:
        file = preset(folder / f"{command}.yaml", command, steps=1, evaluate_every=1)
        result = CliRunner().invoke(app, [str(w) for w in words(command, file, scenes, folder, command)])
        assert result.exit_code == 0, result.output
    shutil.rmtree(folder)


def preset(path: Path, command: str, **training: Any) -> Path:
    """A preset file for `ponder pretrain` or `ponder finetune`."""
    make = pretrain_config if command == "pretrain" else finetune_config
    path.write_text(json.dumps(make(**training).model_dump(mode="json")))
    return path


def words(command: str, file: Path, scenes: Path, out: Path, name: str, *more: object) -> list[object]:
    """The command line of a run; the same line starts and continues it."""
    scratch = ["--scratch"] if command == "finetune" else []
    run = ["--preset", file, "--data", scenes, "--out", out, "--name", name, "--resume"]
    return [command, *scratch, *run, *more]
