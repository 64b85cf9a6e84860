"""`ponder export`: a checkpoint -> a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from ponder_cli.options import CheckpointArgument, JsonOption

FORMATS = ("official", "safetensors", "timm")


def export(
    checkpoint: CheckpointArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="File to write: .pth or .safetensors.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="official|safetensors|timm",
            help="Container and names of the published files, safetensors, or the 2D network of an encoder "
            "of images with the names of timm. Default: by file extension.",
        ),
    ] = None,
    encoder_only: Annotated[bool, typer.Option("--encoder-only", help="Export the encoder only.")] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Safetensors: parameters as 16-bit floats, half the size.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Write a model in the published container and names, or as safetensors."""
    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"one of {', '.join(FORMATS)}", param_hint="--format")

    from ponder_cli import console
    from ponderv2.workflows import export as workflow

    chosen = cast(Literal["official", "safetensors", "timm"] | None, form)
    result = workflow.run(checkpoint, out, chosen, encoder_only, half)
    console.show_result(result)
    console.write_json(result, json)
