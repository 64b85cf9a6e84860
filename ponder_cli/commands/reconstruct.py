"""`ponder reconstruct`: a mesh of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.options import (
    DataOption,
    DeviceOption,
    JsonOption,
    PresetOption,
    RefineOption,
    SceneOption,
    SetOption,
    SplitOption,
)


def reconstruct(  # noqa: PLR0913 - one argument per option
    scene: SceneOption,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="[CKPT]", help="A checkpoint or run folder; not for --method tsdf."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The mesh: .ply, .obj or .glb; points: .ply.")
    ] = Path("mesh.ply"),
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="field|tsdf|points",
            help="A mesh of the model, fusion of depth frames, or coloured points.",
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Grid cells along the longest side.")
    ] = None,
    refine: RefineOption = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="FILE", help="A reference mesh to evaluate against.")
    ] = None,
    data: DataOption = None,
    split: SplitOption = None,
    preset: PresetOption = "demo",
    set_: SetOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Reconstruct a mesh or points of a scene from a pre-trained model, or a mesh from its depth frames."""
    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import ReconstructConfig

    options = (
        *option("--method", "method", method),
        *option("--resolution", "resolution", resolution),
        *option("--refine", "refine.steps", refine),
        *option("--device", "device", device),
    )
    config = load_preset("reconstruct", preset, set_, ReconstructConfig, options)
    if config.method != "tsdf" and checkpoint is None:
        raise typer.BadParameter("give a checkpoint, or --method tsdf", param_hint="CKPT")
    if resolution is not None and config.method != "field":
        other = {"tsdf": "tsdf.voxel_size=METRES", "points": "points.stride=PIXELS"}[config.method]
        raise typer.BadParameter(
            f"no effect with --method {config.method}: --set {other}", param_hint="--resolution"
        )

    from ponderv2.workflows import reconstruct as workflow

    result = workflow.run(
        config,
        scene=scene,
        out=out,
        checkpoint=checkpoint,
        scenes=data,
        split=split,
        reference=reference,
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
