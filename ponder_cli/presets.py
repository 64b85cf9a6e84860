"""Find a preset, follow `extends`, apply `--set`, check every key, explain mistakes and origins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ponder_cli.layers import (
    KeyPath,
    Layer,
    Override,
    classes_in,
    kind_of,
    layered,
    parse_override,
    read_yaml,
    with_default_kinds,
    with_override,
)
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
        PresetError: no such preset, or a key or value that is not accepted; the closest one is suggested.
    """
    return checked(resolve(command, name, set_, config_class, options), config_class)


def settings_of(set_: Sequence[str] | None, config_class: type[Config]) -> Config:
    """The checked settings of a command without presets: the defaults and what `--set` changes.

    Raises:
        PresetError: a `--set` that is not of the form key=value, or a key or value that is not accepted.
    """
    return checked(_overridden(Layer(), map(parse_override, set_ or ()), config_class), config_class)


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
    layer = read_layer(find_preset(command, name), command)
    return _overridden(layer, (*map(parse_override, set_ or ()), *options), config_class)


def _overridden(layer: Layer, overrides: Iterable[Override], config_class: type[StrictConfig]) -> Layer:
    def written_out(layer: Layer) -> dict[str, Any]:
        return checked(layer, config_class).model_dump(mode="json")

    for override in overrides:
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


MAX_DEPTH = 12


def explain_validation_error(
    problem: ValidationError, config_class: type[BaseModel], layer: Layer
) -> PresetError:
    """The first mistake of a preset in words, where it was made, and what was probably meant."""
    first = problem.errors(include_url=False)[0]
    path = key_path(first["loc"], config_class)
    key = ".".join(path)
    where = _where(path, layer)
    count = problem.error_count() - 1
    more = f" (and {count} more)" if count else ""
    if first["type"] == "extra_forbidden":
        if _numberless(path) in known_keys(config_class):
            return PresetError(f"'{key}' is a setting of another kind than the chosen one{where}{more}")
        message = f"unknown key '{key}'{where}{more}"
        return PresetError(message, fix=_nearest_key(path, config_class))
    if first["type"] == "missing":
        return PresetError(f"'{key}' is not set{more}", fix=f"--set {key}=...")
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool | list) else ""
    subject = f"'{key}': " if key else ""
    return PresetError(f"{subject}{_sentence(first)}{shown}{where}{more}", fix=_nearest_value(first, key))


def known_keys(config_class: type[BaseModel], depth: int = MAX_DEPTH) -> Iterator[KeyPath]:
    """Every key that a preset of this class may set, through all kinds of every choice."""
    if depth == 0:
        return
    for name, info in config_class.model_fields.items():
        yield (name,)
        for inner in classes_in(info.annotation):
            for rest in known_keys(inner, depth - 1):
                yield (name, *rest)


def key_path(loc: tuple[int | str, ...], config_class: type[BaseModel]) -> KeyPath:
    """The keys as a user wrote them, without the chosen kinds that pydantic puts between them."""
    kept: list[str] = []
    candidates: list[type[BaseModel]] = [config_class]
    for part in map(str, loc):
        chosen = [item for item in candidates if kind_of(item) == part]
        if chosen and len(candidates) > 1:
            candidates = chosen
            continue
        if part in {item.__name__ for item in candidates} or "[" in part:
            continue
        kept.append(part)
        if part.isdigit():
            continue
        fields = [item.model_fields[part].annotation for item in candidates if part in item.model_fields]
        candidates = [inner for annotation in fields for inner in classes_in(annotation)]
    return tuple(kept)


def _nearest_key(path: KeyPath, config_class: type[BaseModel]) -> str | None:
    """A sibling that looks alike, else the same name elsewhere, else anything that looks alike."""
    if not path:
        return None
    numberless = _numberless(path)
    keys = list(dict.fromkeys(known_keys(config_class)))
    siblings = [key[-1] for key in keys if key[:-1] == numberless[:-1]]
    for name in get_close_matches(path[-1], siblings, n=1, cutoff=0.6):
        return ".".join((*path[:-1], name))
    same_name = sorted((key for key in keys if key[-1] == path[-1]), key=len)
    if same_name:
        return ".".join(same_name[0])
    dotted = [".".join(key) for key in keys]
    near = get_close_matches(".".join(path), dotted, n=1, cutoff=0.8)
    return near[0] if near else None


def _numberless(path: KeyPath) -> KeyPath:
    return tuple(part for part in path if not part.isdigit())


def _nearest_value(first: Any, key: str) -> str | None:
    context = first.get("ctx") or {}
    expected = str(context.get("expected") or context.get("expected_tags") or "")
    choices = re.findall(r"'([^']*)'", expected)
    given = context.get("tag", first.get("input"))
    near = get_close_matches(str(given), choices, n=1, cutoff=0.4)
    return f"--set {key}{'.kind' if 'tag' in context else ''}={near[0]}" if near else None


def _sentence(first: Any) -> str:
    context = first.get("ctx") or {}
    if first["type"] == "union_tag_invalid":
        return f"no kind called '{context['tag']}' (there are {context['expected_tags']})"
    if first["type"] == "union_tag_not_found":
        return "needs a 'kind'"
    text = str(first["msg"]).removeprefix("Value error, ")
    return (text[:1].lower() + text[1:]).replace("input should", "should")


def _where(path: KeyPath, layer: Layer) -> str:
    origin = layer.origin(path)
    if origin is None:  # a mapping: where its first value was set
        inner = (item for key, item in layer.origins.items() if key[: len(path)] == path)
        origin = next(inner, None)
    return f" in {origin}" if origin else ""
