"""`ponder render`: colour, depth, normal and semantic images of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.options import (
    CheckpointArgument,
    DataOption,
    DeviceOption,
    JsonOption,
    PresetOption,
    RefineOption,
    SceneOption,
    SetOption,
    SplitOption,
)


def render(  # noqa: PLR0913 - one argument per option
    checkpoint: CheckpointArgument,
    scene: SceneOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the images.")] = Path(
        "frames"
    ),
    data: DataOption = None,
    split: SplitOption = None,
    cameras: Annotated[
        str | None,
        typer.Option("--cameras", metavar="own|interpolated|orbit|FILE", help="Camera path."),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write each image next to the recorded frame.")
    ] = False,
    video: Annotated[
        str | None, typer.Option("--video", metavar="mp4|gif", help="Also write a video.")
    ] = None,
    refine: RefineOption = None,
    preset: PresetOption = "demo",
    set_: SetOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Render views of a scene with a pre-trained model, and compare them with the real frames."""
    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import RenderConfig

    options = (
        *option("--cameras", "cameras", _cameras(cameras)),
        *option("--side-by-side", "side_by_side", side_by_side),
        *option("--video", "video", video),
        *option("--refine", "refine.steps", refine),
        *option("--device", "device", device),
    )
    config = load_preset("render", preset, set_, RenderConfig, options)

    from ponderv2.workflows import render as workflow

    result = workflow.run(
        config, checkpoint, scene=scene, out=out, scenes=data, split=split, report=ConsoleReporter()
    )
    console.show_result(result)
    console.write_json(result, json)
    console.next_command("reconstruct", checkpoint, "--scene", scene)


def _cameras(cameras: str | None) -> dict[str, str] | None:
    """A file of cameras, that of a recording's folder, else the name of a kind."""
    if cameras is None:
        return None
    inside = Path(cameras) / "transforms.json"
    if inside.is_file():
        return {"kind": "file", "path": str(inside)}
    if cameras.lower().endswith(".json") or Path(cameras).is_file():
        return {"kind": "file", "path": cameras}
    return {"kind": cameras}
