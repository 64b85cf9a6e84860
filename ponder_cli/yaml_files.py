"""Reading YAML that somebody else wrote: plain data only, within limits, with the line of every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ponderv2.errors import PresetError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_EVENTS = 20_000

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
        _refuse_bombs(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(node, where)
        return yaml.safe_load(text), node
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: a date such as 2024-99-99
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise PresetError(f"{where}{line} is not YAML that a preset may hold: {reason}") from problem


def _refuse_bombs(text: str, where: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise PresetError(
                f"{where}:{line} uses a YAML alias (*name)", fix="extends: NAME_OF_ANOTHER_PRESET"
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            raise PresetError(f"{where} is nested deeper than {MAX_DEPTH} levels or has too many values")


def _refuse_repeated_keys(node: yaml.Node | None, where: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, where)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            raise PresetError(f"{where}:{key.start_mark.line + 1} sets '{name}' twice")
        seen.add(name)
        _refuse_repeated_keys(value, where)


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
