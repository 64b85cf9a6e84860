"""`ponder text-embeddings`: class names through CLIP, once, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.options import JsonOption


def text_embeddings(
    model: Annotated[
        str,
        typer.Argument(metavar="FOLDER|NAME", help="A CLIP text model: a folder, or its name on the hub."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The .safetensors file.")],
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="A,B,...", help="Class names; the 36 shared ones when left out."),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option("--template", metavar="TEXT", help="A sentence with {} for the name; may be repeated."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write the text embeddings of class names, for `model.semantic.embeddings=FILE`."""
    from pydantic import ValidationError

    from ponder_cli import console
    from ponderv2.datasets.vocabulary import CLASS_NAMES, TEMPLATES
    from ponderv2.heads.config import ClipEmbeddingsConfig

    try:
        config = ClipEmbeddingsConfig(model=model, templates=tuple(template or TEMPLATES))
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint="--template") from error
    wanted = (
        CLASS_NAMES if names is None else tuple(name.strip() for name in names.split(",") if name.strip())
    )

    from ponderv2.workflows import text_embeddings as workflow  # torch loads here, not for --help

    result = workflow.run(config, wanted, out)
    console.show_result(result)
    console.write_json(result, json)
