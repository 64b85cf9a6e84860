"""`ponder eval`: task model or encoder -> numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.options import CheckpointArgument, DataOption, JsonOption, SplitOption


def evaluate(
    checkpoint: CheckpointArgument,
    data: DataOption = None,
    split: SplitOption = "val",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and pictures.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure a model: classes of points, or views rendered by a pre-trained encoder."""
    from ponder_cli import console
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows import evaluate as workflow

    result = workflow.run(checkpoint, scenes=data, split=split or "val", out=out, report=ConsoleReporter())
    console.show_result(result)
    console.write_json(result, json)
