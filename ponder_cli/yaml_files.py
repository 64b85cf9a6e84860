"""Reading YAML that somebody else wrote: plain data only, within limits, with the line of every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
