"""YAML that somebody else wrote, as plain data: within limits, without aliases, tags or repeated keys."""

from __future__ import annotations

from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Plain data only; the compiled ones, where there are any, take a tenth of the time."""
MAX_DEPTH = 24
MAX_EVENTS = 20_000


class NotPlain(ValueError):
    """Text that is not YAML, or more than plain data."""

    def __init__(self, reason: str, line: int | None = None, fix: str | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason, self.line, self.fix = reason, line, fix


def plain_values(text: str, most_events: int = MAX_EVENTS) -> tuple[Any, yaml.Node | None]:
    """The values, and the nodes that know their lines. Raises NotPlain."""
    try:
        _refuse_bombs(text, most_events)
        node = yaml.compose(text, Loader=LOADER)
        _refuse_repeated_keys(node)
        return yaml.load(text, Loader=LOADER), node
    except NotPlain:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as problem:
        # ValueError: a date such as 2024-99-99; the others: a scalar that claims to be of another type.
        mark = getattr(problem, "problem_mark", None)
        reason = (
            getattr(problem, "problem", None) or (str(problem).splitlines() or [type(problem).__name__])[0]
        )
        raise NotPlain(
            f"is not YAML that a preset may hold: {reason}", None if mark is None else mark.line + 1
        ) from problem


def _refuse_bombs(text: str, most_events: int) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise NotPlain("uses a YAML alias (*name)", line, fix="extends: NAME_OF_ANOTHER_PRESET")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > most_events:
            raise NotPlain(f"is nested deeper than {MAX_DEPTH} levels or has too many values")


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            raise NotPlain(f"sets '{name}' twice", key.start_mark.line + 1)
        seen.add(name)
        _refuse_repeated_keys(value)
