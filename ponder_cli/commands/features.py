"""`ponder features`: a trained encoder -> one feature for every point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ponder_cli.options import (
    DataOption,
    DeviceOption,
    InputsOption,
    JsonOption,
    OptionalCheckpointArgument,
    SplitOption,
    VoxelSizeOption,
    checkpoint_path,
)

UP_AXES = ("z", "y", "x", "-z", "-y", "-x")


def features(  # noqa: PLR0913 - one argument per option
    checkpoint: OptionalCheckpointArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE|DIR", help="The .npy file; a folder for several clouds."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--ply",
            "--cloud",
            metavar="FILE",
            help="A cloud: PLY, PCD, NPY, or text (XYZ, PTS, ASC, TXT, CSV, ...). Repeatable.",
        ),
    ] = None,
    scene: Annotated[str | None, typer.Option("--scene", help="A prepared scene, instead of a file.")] = None,
    data: DataOption = None,
    split: SplitOption = None,
    pca: Annotated[
        Path | None,
        typer.Option(
            "--pca",
            metavar="FILE|DIR",
            help="Features as colours (principal components): .ply, .png, .jpg or a folder.",
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside",
            metavar="CKPT",
            parser=checkpoint_path,
            help="Another encoder, in the same image of --pca. Repeatable.",
        ),
    ] = None,
    random: Annotated[
        bool,
        typer.Option(
            "--random", help="The same encoder with random weights, as before its training, in that image."
        ),
    ] = False,
    level: Annotated[
        str,
        typer.Option(
            "--level", metavar="point|voxel", help="A row per point, or an .npz of occupied voxels."
        ),
    ] = "point",
    half: Annotated[bool, typer.Option("--half", help="Write 16-bit floats.")] = False,
    condition: Annotated[
        str | None,
        typer.Option("--condition", metavar="NAME", help="Dataset (prompt) of a prompted encoder."),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", metavar="METRES", help="Metres per unit of the file: 0.001 for mm.")
    ] = 1.0,
    up_axis: Annotated[
        str, typer.Option("--up-axis", metavar="z|y|x|-z|-y|-x", help="Axis of the file that points up.")
    ] = "z",
    hide: Annotated[
        str | None,
        typer.Option(
            "--hide",
            metavar="NAMES",
            help="Inputs to hide from the encoder, of color, normal, intensity. Missing colours and "
            "intensities are hidden anyway, missing normals estimated.",
        ),
    ] = None,
    block_voxels: Annotated[
        int | None, typer.Option("--block-voxels", min=1000, help="Maximum number of voxels encoded at once.")
    ] = None,
    overlap: Annotated[
        float,
        typer.Option("--overlap", min=0.0, metavar="METRES", help="Overlap (context) around each block."),
    ] = 2.0,
    voxel_size: VoxelSizeOption = None,
    inputs: InputsOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Write the features of all points: of a file, of a prepared scene, or of every scene of a split."""
    if out is None and pca is None:
        raise typer.BadParameter("give --out FILE, or --pca FILE to look at features", param_hint="--out")
    if (beside or random) and pca is None:
        raise typer.BadParameter("goes with --pca FILE", param_hint="--beside" if beside else "--random")
    if files and scene is not None:
        raise typer.BadParameter("give either --ply FILE or --scene NAME", param_hint="--scene")
    if level not in ("point", "voxel"):
        raise typer.BadParameter("one of point, voxel", param_hint="--level")
    if up_axis not in UP_AXES:
        raise typer.BadParameter(f"one of {', '.join(UP_AXES)}", param_hint="--up-axis")

    hidden = tuple(dict.fromkeys(hide.split(","))) if hide else ()
    if not set(hidden) <= {"color", "normal", "intensity"}:
        raise typer.BadParameter("some of color, normal, intensity, with commas", param_hint="--hide")

    from ponder_cli import console
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.models.voxel_features import BlockSettings
    from ponderv2.training.published_checkpoints import point_choice
    from ponderv2.weights import DEFAULT, named_checkpoint
    from ponderv2.workflows import features as workflow

    if checkpoint is None:
        console.note(f"no checkpoint named: '{DEFAULT}', the encoder that ships with ponder")

    settings = workflow.FeatureSettings(
        level="voxel" if level == "voxel" else "point",
        half=half,
        condition=condition,
        scale=scale,
        up_axis=up_axis,
        blocks=BlockSettings(block_voxels, overlap),
        hide=cast(Any, hidden),
        points=point_choice(voxel_size, inputs),
    )
    result = workflow.run(
        named_checkpoint(checkpoint),
        out=out,
        file=files,
        scene=scene,
        scenes=data,
        split=split,
        settings=settings,
        pca=pca,
        beside=beside or (),
        random=random,
        device=device or "auto",
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
