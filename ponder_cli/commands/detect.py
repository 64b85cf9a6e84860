"""`ponder detect`: a trained detector -> boxes of a cloud or scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.commands.features import UP_AXES
from ponder_cli.options import CheckpointArgument, DataOption, DeviceOption, JsonOption, SplitOption


def detect(  # noqa: PLR0913 - one argument per option
    checkpoint: CheckpointArgument,
    file: Annotated[
        Path | None,
        typer.Option("--ply", "--cloud", metavar="FILE", help="A cloud: PLY, PCD, NPY, or text."),
    ] = None,
    scene: Annotated[str | None, typer.Option("--scene", help="A scene, instead of a file.")] = None,
    data: DataOption = None,
    split: SplitOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="JSON file of the boxes.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option("--boxes", metavar="FILE", help="PLY file of their edges, as coloured points."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", metavar="DIR", help="Folder for pictures from above and in the images."),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0.0,
            max=1.0,
            help="Less sure boxes are left out. By default 0.3; of FCAF3D, whose scores are lower, 0.15.",
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", metavar="METRES", help="Metres per unit of the file: 0.001 for mm.")
    ] = 1.0,
    up_axis: Annotated[
        str, typer.Option("--up-axis", metavar="z|y|x|-z|-y|-x", help="Axis of the file that points up.")
    ] = "z",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Find the objects of a file or of a prepared scene: class, score, centre, size and heading of each."""
    if (file is None) == (scene is None):
        raise typer.BadParameter("give either --ply FILE or --scene NAME", param_hint="--ply")
    if up_axis not in UP_AXES:
        raise typer.BadParameter(f"one of {', '.join(UP_AXES)}", param_hint="--up-axis")

    from ponder_cli import console
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows import detect as workflow

    result = workflow.run(
        checkpoint,
        file=file,
        scene=scene,
        scenes=data,
        split=split,
        out=out,
        ply=boxes,
        pictures=pictures,
        min_score=min_score,
        scale=scale,
        up_axis=up_axis,
        device=device or "auto",
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
