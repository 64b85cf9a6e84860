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
    ResumeOption,
    RunsOption,
    SetOption,
    checkpoint_path,
)

PROTOCOLS = ("full", "decoder", "linear")


def finetune(  # noqa: PLR0913 - one argument per option
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            "-p",
            metavar="NAME|FILE",
            help="A preset (see `ponder presets`) or a YAML file. Default: demo; rooms with --from rooms.",
        ),
    ] = None,
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
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="|".join(PROTOCOLS),
            help="Train all; decoder and head on a frozen encoder; or fit only the head (linear probe).",
        ),
    ] = None,
    linear_probe: Annotated[
        bool, typer.Option("--linear-probe", help="The same as --protocol linear.")
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
    if protocol is not None and protocol not in PROTOCOLS:
        raise typer.BadParameter(f"one of {', '.join(PROTOCOLS)}", param_hint="--protocol")
    if linear_probe and protocol not in (None, "linear"):
        raise typer.BadParameter("--linear-probe is --protocol linear: give one", param_hint="--protocol")
    protocol = "linear" if linear_probe else protocol

    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import FinetuneConfig

    options = (
        *option("--protocol", "protocol", protocol),
        *option("--deterministic", "training.deterministic", deterministic),
    )
    preset = preset or _usual_preset(from_)
    config = load_preset("finetune", preset, set_, FinetuneConfig, options)

    from ponderv2.workflows import finetune as workflow

    result = workflow.run(
        config,
        checkpoint=from_,
        scenes=data,
        out=out,
        name=name or _usual_name(preset, scratch, config.protocol),
        resume=resume,
        devices=devices or 1,
        nodes=nodes or 1,
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
    console.next_command("eval", result.folder)


def _usual_preset(start: Path | None) -> str:
    """That of the encoder which ships, where it is the start: its layers differ from those of the demo."""
    from ponderv2.weights import NAMES, PRESET, weights_file

    return PRESET if start in [weights_file(name) for name in NAMES] else "demo"


def _usual_name(preset: str, scratch: bool, protocol: str) -> str:
    """finetune-demo, finetune-demo-scratch, finetune-demo-probe: runs that do not meet."""
    parts = [
        "finetune",
        Path(preset).stem,
        *(["scratch"] if scratch else []),
        *{"linear": ["probe"], "decoder": ["decoder"]}.get(protocol, []),
    ]
    return "-".join(parts)
