"""Settings as they were written, one layer on another, with the place that each value came from."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ponder_cli.yaml_files import KeyPath, parse_value
from ponderv2.errors import PresetError


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
