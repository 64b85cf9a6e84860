"""Find a preset, follow `extends`, apply `--set`, check every key, explain where each value came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ponder_cli.kinds import with_default_kinds
from ponder_cli.layers import Layer, Override, layered, parse_override, with_override
from ponder_cli.preset_errors import explain_validation_error
from ponder_cli.yaml_files import KeyPath, read_yaml
from ponderv2.config import StrictConfig
from ponderv2.errors import PresetError

Config = TypeVar("Config", bound=StrictConfig)

MAX_EXTENDS = 8


@dataclass(frozen=True)
class Preset:
    """A preset that is shipped with the program."""

    command: str
    name: str
    path: Path


@dataclass(frozen=True)
class ExplainedValue:
    """One setting of a resolved preset."""

    key: str
    value: Any
    origin: str
    meaning: str


def preset_folder() -> Path:
    """The folder of the shipped presets: in a checkout at the top, in an installed package inside it."""
    here = Path(__file__).resolve().parent
    installed = here / "preset_files"
    return installed if installed.is_dir() else here.parent / "presets"


def shipped_presets(command: str | None = None) -> tuple[Preset, ...]:
    """All shipped presets, of one command or of all, by name."""
    files = sorted(preset_folder().glob(f"{command or '*'}/*.yaml"))
    return tuple(Preset(path.parent.name, path.stem, path) for path in files)


def load_preset(
    command: str,
    name: str,
    set_: Sequence[str] | None,
    config_class: type[Config],
    options: Sequence[Override] = (),
) -> Config:
    """The checked settings of a run.

    Args:
        command: The command that the preset is for; `pretrain` looks into `presets/pretrain`.
        name: A shipped preset, or a YAML file by its path.
        set_: `--set` arguments, each `a.b=value` with the value in YAML. The last one wins.
        config_class: What the settings are checked against.
        options: What other options of the command change; they come after `set_`.

    Raises:
        PresetError: no such preset, or a key or value that is not accepted; a near miss is suggested.
    """
    return checked(resolve(command, name, set_, config_class, options), config_class)


def resolve(
    command: str,
    name: str,
    set_: Sequence[str] | None,
    config_class: type[StrictConfig],
    options: Sequence[Override] = (),
) -> Layer:
    """The settings as written, before they are checked.

    Raises:
        PresetError: no such preset, not readable, or a `--set` that is not of the form key=value.
    """

    def written_out(layer: Layer) -> dict[str, Any]:
        return checked(layer, config_class).model_dump(mode="json")

    layer = read_layer(find_preset(command, name), command)
    for override in (*map(parse_override, set_ or ()), *options):
        layer = with_override(layer, override, written_out)
    return layer


def checked(layer: Layer, config_class: type[Config]) -> Config:
    """The settings as values of `config_class`.

    Raises:
        PresetError: a key or value that is not accepted.
    """
    try:
        return config_class.model_validate(with_default_kinds(layer.values, config_class))
    except ValidationError as problem:
        raise explain_validation_error(problem, config_class, layer) from problem


def find_preset(command: str, name: str) -> Path:
    """The file of a preset.

    Raises:
        PresetError: neither a shipped preset of this command nor a file.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        raise PresetError(f"no preset file {name}", fix="ponder presets")
    presets = shipped_presets(command)
    for preset in presets:
        if preset.name == name:
            return preset.path
    near = get_close_matches(name, [preset.name for preset in presets], n=1, cutoff=0.5)
    if near:
        fix = f"ponder prepare {near[0]}" if command == "prepare" else f"--preset {near[0]}"
        raise PresetError(f"no {command} preset called '{name}'", fix=fix)
    names = ", ".join(preset.name for preset in presets) or "none"
    raise PresetError(f"no {command} preset called '{name}' (there are: {names})", fix="ponder presets")


def read_layer(path: Path, command: str, seen: tuple[Path, ...] = ()) -> Layer:
    """A preset file on top of those that it extends.

    Raises:
        PresetError: not readable, or `extends` goes in a circle.
    """
    path = path.resolve()
    if path in seen or len(seen) >= MAX_EXTENDS:
        chain = " -> ".join(item.name for item in (*seen, path))
        raise PresetError(f"presets extend each other in a circle or too deep: {chain}")
    file = read_yaml(path)
    values = dict(file.values)
    shown = _shown(path)
    layer = Layer()
    for parent in _parent_names(values.pop("extends", []), shown):
        layer = layered(layer, read_layer(_parent_path(parent, path, command), command, (*seen, path)))
    origins = {key: f"{shown}:{line}" for key, line in file.lines.items() if key[0] != "extends"}
    return layered(layer, Layer(values, origins))


def explained(layer: Layer, config: StrictConfig) -> tuple[ExplainedValue, ...]:
    """Every value of a checked preset with its origin, in the order of the settings classes."""
    return tuple(
        ExplainedValue(".".join(path), value, layer.origin(path) or f"default of {owner}", meaning)
        for path, value, owner, meaning in _leaves(config, ())
    )


def _leaves(value: BaseModel, path: KeyPath) -> Iterator[tuple[KeyPath, Any, str, str]]:
    for name, info in type(value).model_fields.items():
        item, here = getattr(value, name), (*path, name)
        if isinstance(item, BaseModel):
            yield from _leaves(item, here)
        elif isinstance(item, tuple) and item and all(isinstance(part, BaseModel) for part in item):
            for index, part in enumerate(item):
                yield from _leaves(part, (*here, str(index)))
        else:
            plain = value.model_dump(mode="json", include={name})[name]
            yield here, plain, type(value).__name__, " ".join((info.description or "").split())


def _parent_names(parents: Any, where: str) -> list[str]:
    names = [parents] if isinstance(parents, str) else parents
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PresetError(f"{where}: 'extends' takes the name of a preset or a list of names")
    return names


def _parent_path(name: str, child: Path, command: str) -> Path:
    """Names with a suffix are files beside the child, others are shipped presets."""
    if name.endswith((".yaml", ".yml")):
        return find_preset(command, str(child.parent / Path(name).expanduser()))
    return find_preset(command, name)


def _shown(path: Path) -> str:
    """Shipped presets by their short name, other files as they are."""
    try:
        return f"presets/{path.relative_to(preset_folder().resolve()).as_posix()}"
    except ValueError:
        return str(path)
