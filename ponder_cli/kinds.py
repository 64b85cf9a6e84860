"""The classes behind settings: which kinds a choice has, and which one is meant where none is named."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


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
