"""Turn what pydantic says about a preset into one sentence and the near miss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from ponder_cli.kinds import classes_in, kind_of
from ponder_cli.layers import Layer
from ponder_cli.yaml_files import KeyPath
from ponderv2.errors import PresetError

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
