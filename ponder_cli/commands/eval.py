"""`ponder eval`: task model or encoder -> numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ponder_cli.options import (
    DataOption,
    DeviceOption,
    InputsOption,
    JsonOption,
    SetOption,
    VoxelSizeOption,
    checkpoint_path,
)

TEST_SETS = ("none", "fragments", "scannet", "scannet200", "s3dis", "nuscenes", "semantickitti")


def evaluate(  # noqa: PLR0913 - one argument per option
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CKPT...",
            parser=checkpoint_path,
            help="A checkpoint or the folder of a run; several are compared, or added up with --pool.",
        ),
    ],
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split to evaluate. By default the one that training validated on."),
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            "--tta",
            metavar="|".join(TEST_SETS),
            help="Segmentation: a single pass, every point once, or voting over a dataset's published views.",
        ),
    ] = "none",
    pool: Annotated[
        bool,
        typer.Option("--pool", help="Pool the counts of several models, each on its own split (6-fold)."),
    ] = False,
    protocols: Annotated[
        str | None,
        typer.Option(
            "--protocols",
            metavar="NAMES",
            help="Compare encoders on labelled scenes: purity, knn, linear; decoder and full of given runs.",
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="Compare with a random encoder and with colour, height and normal too."
        ),
    ] = False,
    set_: SetOption = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            "--submission",
            metavar="FILE.zip",
            help="Write a submission for the ScanNet, nuScenes or SemanticKITTI benchmark.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="DIR", help="Write predictions as coloured point clouds (PLY) for viewing."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Do not reuse predictions of an earlier evaluation.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and images.")
    ] = None,
    voxel_size: VoxelSizeOption = None,
    inputs: InputsOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Evaluate a model: semantic segmentation, instances, or rendered views of a pre-trained one.

    With --protocols, or several models, encoders are compared in one table.
    """
    if tta not in TEST_SETS:
        raise typer.BadParameter(f"one of {', '.join(TEST_SETS)}", param_hint="--tta")
    if pool and submission is not None:
        raise typer.BadParameter("a submission is of one model", param_hint="--submission")
    if protocols is not None or baselines or (len(checkpoints) > 1 and not pool):
        not_compared = {
            "--pool": pool,
            "--tta": tta != "none",
            "--submission": submission,
            "--export": export,
        }
        given = [name for name, value in not_compared.items() if value]
        if given:
            raise typer.BadParameter(
                "does not go with a comparison of several protocols", param_hint=given[0]
            )
        request = _Compared(tuple(checkpoints), protocols, baselines, set_, data, split, not again)
        request.show(point_options=(voxel_size, inputs), device=device, json=json)
        return
    if set_:
        raise typer.BadParameter("changes settings of --protocols", param_hint="--set")

    from ponder_cli import console
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.evaluation import pooling
    from ponderv2.training.published_checkpoints import point_choice
    from ponderv2.workflows import evaluate as workflow

    def measure(checkpoint: Path, number: int | None = None):
        """One of several has folders of its own: scenes of other splits may have the same names."""
        fold = "" if number is None else f"fold{number}"
        return workflow.run(
            checkpoint,
            scenes=data,
            split=split,
            tta=cast(Any, tta),
            submission=submission,
            export=export / fold if export else None,
            reuse=not again,
            out=out / fold if out else None,
            points=point_choice(voxel_size, inputs),
            device=device or "auto",
            report=ConsoleReporter(),
        )

    if pool:
        result = pooling.pooled(
            [
                pooling.read_fold(path) if path.suffix == ".json" else pooling.fold_of(measure(path, number))
                for number, path in enumerate(checkpoints)
            ]
        )
    else:
        result = measure(checkpoints[0])
    console.show_result(result)
    console.write_json(result, json)


@dataclass(frozen=True)
class _Compared:
    """Options of a comparison."""

    checkpoints: tuple[Path, ...]
    protocols: str | None
    baselines: bool
    set_: list[str] | None
    data: Path | None
    split: str | None
    reuse: bool

    def show(
        self, point_options: tuple[float | None, str | None], device: str | None, json: Path | None
    ) -> None:
        """Measures, and prints the table."""
        from ponder_cli import console
        from ponder_cli.presets import settings_of
        from ponder_cli.progress import ConsoleReporter
        from ponderv2.workflows.config import ProtocolsConfig

        settings = settings_of(self.set_, ProtocolsConfig)

        from ponderv2.training.published_checkpoints import point_choice
        from ponderv2.workflows import protocols as workflow

        names = (name.strip() for name in (self.protocols or "").split(","))
        result = workflow.run(
            self.checkpoints,
            workflow.ComparisonRequest(
                protocols=tuple(dict.fromkeys(name for name in names if name)),
                baselines=self.baselines,
                settings=settings,
                points=point_choice(*point_options),
                reuse=self.reuse,
                device=device or "auto",
            ),
            scenes=self.data,
            split=self.split,
            report=ConsoleReporter(),
        )
        console.show_result(replace(result, classes=[]))
        console.write_json(result, json)
