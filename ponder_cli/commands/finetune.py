"""`ponder finetune`: encoder -> model of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ponder_cli.options import (
    DataOption,
    DeterministicOption,
    DevicesOption,
    JsonOption,
    NameOption,
    NodesOption,
    PresetOption,
    ResumeOption,
    RunsOption,
    SetOption,
    checkpoint_path,
)


def finetune(  # noqa: PLR0913 - one argument per option
    preset: PresetOption = "demo",
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="CKPT",
            parser=checkpoint_path,
            help="The pre-trained encoder, its run folder, or one that ships: rooms.",
        ),
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights.")] = False,
    linear_probe: Annotated[
        bool,
        typer.Option(
            "--linear-probe", help="Semantic segmentation: freeze the encoder, train only the last layer."
        ),
    ] = False,
    data: DataOption = None,
    out: RunsOption = Path("runs"),
    name: NameOption = None,
    set_: SetOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    resume: ResumeOption = False,
    deterministic: DeterministicOption = False,
    json: JsonOption = None,
) -> None:
    """Train a model of a task on a pre-trained encoder, or from scratch to compare.

    The preset selects semantic or instance segmentation, of one dataset or of several.
    """
    if (from_ is None) != scratch:
        raise typer.BadParameter("give either --from CKPT or --scratch", param_hint="--from")

    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import FinetuneConfig

    options = (
        *option("--linear-probe", "model.freeze_encoder", linear_probe),
        *option("--linear-probe", "model.head.normalise", linear_probe),
        *option("--deterministic", "training.deterministic", deterministic),
    )
    config = load_preset("finetune", preset, set_, FinetuneConfig, options)

    from ponderv2.workflows import finetune as workflow

    result = workflow.run(
        config,
        checkpoint=from_,
        scenes=data,
        out=out,
        name=name or _usual_name(preset, scratch, linear_probe),
        resume=resume,
        devices=devices or 1,
        nodes=nodes or 1,
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
    console.next_command("eval", result.folder)


def _usual_name(preset: str, scratch: bool, linear_probe: bool) -> str:
    """finetune-demo, finetune-demo-scratch, finetune-demo-probe: three runs that do not meet."""
    parts = [
        "finetune",
        Path(preset).stem,
        *(["scratch"] if scratch else []),
        *(["probe"] if linear_probe else []),
    ]
    return "-".join(parts)
