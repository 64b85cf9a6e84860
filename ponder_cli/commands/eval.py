"""`ponder eval`: task model or encoder -> numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ponder_cli.options import CheckpointArgument, DataOption, JsonOption, SplitOption

TEST_TIMES = ("one", "fragments", "4", "10", "13")


def evaluate(
    checkpoint: CheckpointArgument,
    data: DataOption = None,
    split: SplitOption = "val",
    test_time: Annotated[
        str,
        typer.Option(
            "--test-time",
            metavar="one|fragments|4|10|13",
            help="Segmentation: one pass, every point once, or from so many sides.",
        ),
    ] = "one",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and pictures.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure a model: classes of points, or views rendered by a pre-trained encoder."""
    if test_time not in TEST_TIMES:
        raise typer.BadParameter(f"one of {', '.join(TEST_TIMES)}", param_hint="--test-time")

    from ponder_cli import console
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows import evaluate as workflow

    result = workflow.run(
        checkpoint,
        scenes=data,
        split=split or "val",
        test_time=cast(Any, test_time),
        out=out,
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
