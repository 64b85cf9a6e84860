"""Settings as they were written: YAML read within limits, layer on layer, with the origin of every value."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from ponderv2.errors import PresetError
from ponderv2.io.yaml import NotPlain, plain_values

MAX_BYTES = 256 * 1024

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class YamlFile:
    """The content of one file."""

    values: dict[str, Any]
    lines: dict[KeyPath, int]
    """Line (from 1) of every value that is not itself a mapping."""


def read_yaml(path: Path) -> YamlFile:
    """A mapping read from a file.

    Raises:
        PresetError: not readable, not YAML, not a mapping, too large or deep, with aliases or repeated keys.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PresetError(f"{path} is larger than {MAX_BYTES // 1024} kB, which no preset needs")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise PresetError(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from problem
    values, node = _parse(text, str(path))
    if values is None:
        values, node = {}, None
    if not isinstance(values, dict):
        raise PresetError(f"{path} is not a mapping of settings, as in 'training: {{steps: 100}}'")
    lines = dict(_lines(node, ())) if node is not None else {}
    return YamlFile(values, lines)


def parse_value(text: str) -> Any:
    """One value as YAML understands it: 3, 1.0e-3, true, [1, 2], text.

    Raises:
        PresetError: the text is not YAML.
    """
    return _parse(text, f"'{text}'")[0]


def _parse(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    try:
        return plain_values(text)
    except NotPlain as problem:
        line = f":{problem.line}" if problem.line is not None else ""
        raise PresetError(f"{where}{line} {problem.reason}", fix=problem.fix) from problem


def _lines(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*path, str(key.value)))
        return
    if not _holds_mappings(node):
        yield path, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, str(index)))


def _holds_mappings(node: yaml.Node) -> bool:
    """Then its parts have lines of their own, and what they leave out comes from the defaults."""
    return isinstance(node, yaml.SequenceNode) and any(
        isinstance(item, yaml.MappingNode) for item in node.value
    )


def classes_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a type mentions, once each."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Literal:
        return []
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list):
        found = [inner for part in get_args(annotation) for inner in classes_in(part)]
        return list(dict.fromkeys(found))
    return []


def kind_of(config_class: type[BaseModel]) -> str | None:
    """The name by which a preset chooses this class; None where there is no choice."""
    info = config_class.model_fields.get("kind")
    names = get_args(info.annotation) if info is not None else ()
    return names[0] if names else None


def with_default_kinds(values: dict[str, Any], config_class: type[BaseModel]) -> dict[str, Any]:
    """The settings, with the default's `kind` named where a mapping changes a choice without naming one."""
    filled = dict(values)
    for name, info in config_class.model_fields.items():
        item = filled.get(name)
        if not isinstance(item, dict):
            continue
        default_kind = getattr(info.default, "kind", None)
        if default_kind is not None:
            item = {"kind": default_kind, **item}
        candidates = classes_in(info.annotation)
        chosen = [inner for inner in candidates if len(candidates) == 1 or kind_of(inner) == item.get("kind")]
        filled[name] = with_default_kinds(item, chosen[0]) if chosen else item
    return filled


@dataclass(frozen=True)
class Layer:
    """Settings as written, not yet checked, and where each came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    """File and line, or the option, of every value that is not itself a mapping."""

    def origin(self, path: KeyPath) -> str | None:
        """Where a value came from; that of the nearest value around it, None where nobody set it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None


@dataclass(frozen=True)
class Override:
    """One value that replaces what a preset says."""

    path: KeyPath
    value: Any
    origin: str
    """What the user typed."""


def parse_override(text: str) -> Override:
    """`a.b=value`, the value in YAML; an item of a list is named by its number, from 0.

    Raises:
        PresetError: not of the form key=value.
    """
    name, equals, value_text = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise PresetError(f"--set takes KEY=VALUE, not '{text}'", fix="--set training.steps=100")
    return Override(path, parse_value(value_text), f"--set {text}")


def option(flag: str, key: str, value: object) -> tuple[Override, ...]:
    """The override that an option of a command stands for; none when the option was not given."""
    if value is None or value is False:
        return ()
    plain = value if isinstance(value, int | float | dict) else str(value)
    return (Override(tuple(key.split(".")), plain, flag),)


def layered(below: Layer, above: Layer) -> Layer:
    """Mappings are merged key by key; anything else in `above` replaces what is below.

    A mapping that names another `kind` replaces the whole mapping, because the settings of one kind do
    not apply to another.
    """
    values = _merged(below.values, above.values)
    kept = {key: origin for key, origin in below.origins.items() if _same(values, below.values, key)}
    return Layer(values, {**kept, **above.origins})


def with_override(layer: Layer, override: Override, written_out: Callable[[Layer], dict[str, Any]]) -> Layer:
    """The settings after one override.

    Args:
        layer: The settings so far.
        override: What to change.
        written_out: Gives the settings with all defaults, so that an item of a default list can be reached.

    Raises:
        PresetError: no such item in a list.
    """
    path, origins = override.path, {override.path: override.origin}
    if any(map(_is_number, path)):
        values = copy.deepcopy(written_out(layer))
        _replace(values, override)
        # Only the list is written out: what was not set must keep looking unset.
        path = path[: next(index for index, part in enumerate(path) if _is_number(part))]
        nested: Any = functools.reduce(_item, path, values)
    else:
        nested = override.value
    for part in reversed(path):
        nested = {part: nested}
    return layered(layer, Layer(nested, origins))


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if "kind" in above and below.get("kind", above["kind"]) != above["kind"]:
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _same(values: Any, below: dict[str, Any], path: KeyPath) -> bool:
    """Whether merging left the value at this path as it was below."""
    old: Any = below
    for part in path:
        if values is old:
            return True
        values, old = _item(values, part), _item(old, part)
    return values is old and old is not None


def _item(place: Any, part: str) -> Any:
    if isinstance(place, dict):
        return place.get(part)
    if isinstance(place, list) and _is_number(part) and int(part) < len(place):
        return place[int(part)]
    return None


def _is_number(part: str) -> bool:
    """The place of an item in a list; a longer row of digits is none."""
    return part.isascii() and part.isdigit() and len(part) < 10


def _replace(values: Any, override: Override) -> None:
    place = values
    for part in override.path[:-1]:
        place = _item(place, part)
        if not isinstance(place, dict | list):
            raise PresetError(f"{override.origin}: there is nothing at '{part}'")
    last = override.path[-1]
    if isinstance(place, dict):
        place[last] = override.value
    elif _is_number(last) and int(last) < len(place):
        place[int(last)] = override.value
    else:
        raise PresetError(f"{override.origin}: the list has {len(place)} items, counted from 0")
