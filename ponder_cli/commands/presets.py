"""`ponder presets`: list them, show one fully resolved, explain where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ponder_cli.options import JsonOption, SetOption

presets_app = typer.Typer(name="presets", help="List presets, show one fully resolved, explain its values.")

PresetName = Annotated[
    str, typer.Argument(metavar="COMMAND/NAME", help="As in the list: pretrain/demo. Or COMMAND and a file.")
]
FileArgument = Annotated[str | None, typer.Argument(metavar="[FILE]", help="A YAML file for that command.")]


@presets_app.callback(invoke_without_command=True)
def list_presets(ctx: typer.Context, json: JsonOption = None) -> None:
    """List the presets that are shipped, with what they need and cost."""
    if ctx.invoked_subcommand is None:
        _list(json)


@presets_app.command("list")
def list_again(json: JsonOption = None) -> None:
    """List the presets that are shipped; `ponder presets` alone does the same."""
    _list(json)


def _list(json: Path | None) -> None:
    from ponder_cli import console
    from ponder_cli.presets import checked, read_layer, shipped_presets
    from ponderv2.workflows.config import CONFIG_OF_COMMAND

    rows = []
    for preset in shipped_presets():
        config = checked(read_layer(preset.path, preset.command), CONFIG_OF_COMMAND[preset.command])
        words: dict[str, Any] = config.model_dump(include={"description", "needs", "cost"})
        rows.append({"preset": f"{preset.command}/{preset.name}", **words})
    console.table(("preset", "what it does", "needs", "cost"), [list(row.values()) for row in rows])
    console.write_json(rows, json)
    console.next_command("presets", "explain", "pretrain/demo")


@presets_app.command()
def show(
    preset: PresetName, file: FileArgument = None, set_: SetOption = None, json: JsonOption = None
) -> None:
    """Print every setting of a preset as one YAML file that can be edited and used."""
    import yaml

    from ponder_cli import console

    _, config = _resolved(preset, file, set_)
    values = config.model_dump(mode="json")
    console.say(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100).rstrip())
    console.write_json(values, json)


@presets_app.command()
def explain(
    preset: PresetName, file: FileArgument = None, set_: SetOption = None, json: JsonOption = None
) -> None:
    """Print every setting with its meaning, and the file and line or default that it came from."""
    from ponder_cli import console
    from ponder_cli.presets import explained

    layer, config = _resolved(preset, file, set_)
    values = explained(layer, config)
    for item in values:
        console.setting(item.key, item.value, item.origin, item.meaning)
    console.write_json(values, json)


def _resolved(preset: str, file: str | None, set_: list[str] | None) -> tuple[Any, Any]:
    from ponder_cli.presets import checked, resolve
    from ponderv2.workflows.config import CONFIG_OF_COMMAND

    command, _, name = preset.partition("/")
    if command not in CONFIG_OF_COMMAND or not (name or file):
        commands = ", ".join(CONFIG_OF_COMMAND)
        raise typer.BadParameter(f"give COMMAND/NAME, COMMAND being one of {commands}", param_hint="preset")
    config_class = CONFIG_OF_COMMAND[command]
    layer = resolve(command, file or name, set_, config_class)
    return layer, checked(layer, config_class)
