"""`ponder pretrain`: prepared scenes -> encoder."""

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


def pretrain(  # noqa: PLR0913 - one argument per option
    preset: PresetOption = "demo",
    data: DataOption = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="CKPT",
            parser=checkpoint_path,
            help="A run or checkpoint whose encoder to start from; once for each branch of a fusion.",
        ),
    ] = None,
    out: RunsOption = Path("runs"),
    name: NameOption = None,
    set_: SetOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    resume: ResumeOption = False,
    deterministic: DeterministicOption = False,
    json: JsonOption = None,
) -> None:
    """Pre-train an encoder by rendering views of prepared scenes."""
    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import PretrainConfig

    options = option("--deterministic", "training.deterministic", deterministic)
    config = load_preset("pretrain", preset, set_, PretrainConfig, options)

    from ponderv2.workflows import pretrain as workflow  # torch loads here, not for --help

    result = workflow.run(
        config,
        scenes=data,
        start=from_ or (),
        out=out,
        name=name or f"pretrain-{Path(preset).stem}",
        resume=resume,
        devices=devices or 1,
        nodes=nodes or 1,
        report=ConsoleReporter(),
    )
    console.show_result(result)
    console.write_json(result, json)
    console.next_command("eval", result.folder)
