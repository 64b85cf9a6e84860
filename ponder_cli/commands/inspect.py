"""`ponder inspect`: what a checkpoint holds, and how it fits a model."""

from __future__ import annotations

from typing import Annotated

import typer

from ponder_cli.options import CheckpointArgument, JsonOption


def inspect(
    checkpoint: CheckpointArgument,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="COMMAND/PRESET",
            help="Compare with the model of a preset: pretrain/scannet.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show what a checkpoint holds, ours or published, and which of its entries fit a model."""
    from ponder_cli import console

    model = _model_of(against) if against is not None else None

    from ponderv2.workflows import inspect as workflow

    result = workflow.run(checkpoint, model, against)
    console.show_checkpoint(result)
    console.write_json(result, json)


def _model_of(name: str) -> object:
    from ponder_cli.presets import load_preset
    from ponderv2.errors import PresetError
    from ponderv2.workflows.config import CONFIG_OF_COMMAND

    command, _, preset = name.partition("/")
    if command not in ("pretrain", "finetune") or not preset:
        raise PresetError(f"'{name}' is not a preset with a model", fix="--against pretrain/scannet")
    return load_preset(command, preset, None, CONFIG_OF_COMMAND[command]).model  # type: ignore[attr-defined]
