"""Values of several scenes put together and taken apart, by the axes that their fields declare.

A field of a frozen dataclass says in its metadata what its rows are:

    coord: Float[Tensor, "point 3"] = field(metadata=along("point"))

so that one rule per axis, written here, collates, cuts and moves every field. After collation a field without
metadata, and one that is None everywhere, has its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
Chosen = slice | Tensor
"""Elements of an axis: consecutive ones, or a mask."""


@dataclass(frozen=True)
class Along:
    """What the rows of a field are. Tensors and tuples have rows, and mappings and dataclasses of tensors."""

    axis: str
    index_of: str | None = None
    """The axis that the numbers count; they are shifted with it."""
    ends_of: str | None = None
    """The axis of which the numbers are the exclusive ends, one per scene."""
    distinct: bool = False
    """Numbers from 0 that scenes must not share; -1 stays -1."""
    or_none: bool = False
    """What some values lack is None in all; otherwise all must have it or none."""


def along(axis: str, **rule: Any) -> dict[str, Along]:
    """Metadata of a field whose rows are along an axis; `rule` as in `Along`."""
    return {"along": Along(axis, **rule)}


PART: dict[str, bool] = {"part": True}
"""Metadata of a field that is such a value itself; its axis `scene` is that of the whole."""
SHARED: dict[str, bool] = {"shared": True}
"""Metadata of a field that must be the same everywhere."""


def collate(values: Sequence[Value], n_scenes: Sequence[int] | None = None) -> Value:
    """The values one after the other. `n_scenes`: of each value, where it does not say so itself.

    Raises:
        ValueError: there is none, only some have an optional field, or a shared one differs.
    """
    if not values:
        raise ValueError("expected at least one scene")
    sizes = [_sizes(value) for value in values]
    if n_scenes is not None:
        sizes = [{**own, "scene": n} for own, n in zip(sizes, n_scenes, strict=True)]
    made: dict[str, Any] = {}
    for entry in fields(values[0]):  # pyright: ignore[reportArgumentType]
        rows = [getattr(value, entry.name) for value in values]
        there = [one for one in rows if one is not None]
        rule: Along | None = entry.metadata.get("along")
        if "shared" in entry.metadata:
            made[entry.name] = _the_same(entry.name, rows)
        elif (
            not entry.metadata or not there or (rule is not None and rule.or_none and len(there) < len(rows))
        ):
            continue
        elif len(there) < len(rows):
            raise ValueError(f"either all scenes of a batch have {entry.name} or none has")
        elif rule is not None:
            made[entry.name] = _concatenated(_numbered(there, rule, sizes))
        else:
            made[entry.name] = collate(there, [one["scene"] for one in sizes])
    return type(values[0])(**made)


def cut(value: Value, first: int, end: int) -> Value:
    """The scenes from `first` to before `end`, with all that belongs to them, counted from 0 again."""
    return _chosen(value, {"scene": slice(first, end)})


def take(value: Value, axis: str, index: Tensor) -> Value:
    """Chosen rows (indices or a mask) of all fields along an axis; the other fields stay as they are."""
    made = {name: _rows(rows, index) for name, rows, rule in _declared(value) if rule.axis == axis}
    return replace(value, **made)  # pyright: ignore[reportArgumentType]


def to_device(value: Value, device: torch.device | str) -> Value:
    """Every tensor of a value, of its parts and mappings on another device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)  # pyright: ignore[reportReturnType]
    if isinstance(value, Mapping):
        return {key: to_device(one, device) for key, one in value.items()}  # pyright: ignore[reportReturnType]
    if is_dataclass(value) and not isinstance(value, type):
        moved = {entry.name: to_device(getattr(value, entry.name), device) for entry in fields(value)}
        return replace(value, **moved)
    return value


def _declared(value: Any) -> list[tuple[str, Any, Along]]:
    """Name, rows and rule of every field along an axis that is there, in order."""
    rules = [(entry.name, entry.metadata.get("along")) for entry in fields(value)]
    there = [(name, getattr(value, name), rule) for name, rule in rules if rule is not None]
    return [(name, rows, rule) for name, rows, rule in there if rows is not None]


def _sizes(value: Any) -> dict[str, int]:
    """Length of each axis. A mapping may be empty, and so says nothing."""
    return {rule.axis: len(rows) for _, rows, rule in _declared(value) if not isinstance(rows, Mapping)}


def _the_same(name: str, rows: Sequence[Any]) -> Any:
    if any(one != rows[0] for one in rows):
        raise ValueError(f"the scenes of a batch have one {name}, got {sorted(set(rows))}")
    return rows[0]


def _numbered(rows: Sequence[Any], rule: Along, sizes: Sequence[Mapping[str, int]]) -> list[Any]:
    """The rows with their numbers shifted to where what they count will be."""
    counted = rule.index_of or rule.ends_of
    if counted is not None:
        starts = _exclusive_sum([one[counted] for one in sizes])
        return [one + start for one, start in zip(rows, starts, strict=True)]
    if rule.distinct:
        starts = _exclusive_sum([int(one.max()) + 1 if len(one) else 0 for one in rows])
        return [torch.where(one < 0, -1, one + start) for one, start in zip(rows, starts, strict=True)]
    return list(rows)


def _exclusive_sum(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _concatenated(rows: Sequence[Any]) -> Any:
    """Of mappings the keys that all have."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(list(rows))
    if isinstance(first, tuple):
        return tuple(one for each in rows for one in each)
    if isinstance(first, Mapping):
        common = [key for key in first if all(key in one for one in rows)]
        return {key: _concatenated([one[key] for one in rows]) for key in common}
    names = [entry.name for entry in fields(first)]
    return type(first)(**{name: _concatenated([getattr(one, name) for one in rows]) for name in names})


def _rows(rows: Any, chosen: Chosen) -> Any:
    if isinstance(rows, Tensor):
        return rows[chosen]
    if isinstance(rows, Mapping):
        return {key: _rows(one, chosen) for key, one in rows.items()}
    if isinstance(rows, tuple):
        if isinstance(chosen, slice):
            return rows[chosen]
        index = torch.nonzero(chosen)[:, 0] if chosen.dtype == torch.bool else chosen
        return tuple(rows[i] for i in index.tolist())
    return replace(rows, **{entry.name: _rows(getattr(rows, entry.name), chosen) for entry in fields(rows)})


def _chosen(value: Any, chosen: dict[str, Chosen]) -> Any:
    """The value with the chosen elements of the axes, and of those axes whose elements belong to them.

    The field that says to what the elements of an axis belong is the first along it with `index_of`.
    """
    scenes = chosen["scene"]
    for _, rows, rule in _declared(value):
        if rule.ends_of is not None and isinstance(scenes, slice):
            ends = [0, *rows.tolist()]
            chosen = {**chosen, rule.ends_of: slice(ends[scenes.start], ends[scenes.stop])}
        elif rule.index_of is not None and rule.axis not in chosen:
            owner = chosen[rule.index_of]
            inside = (rows >= owner.start) & (rows < owner.stop) if isinstance(owner, slice) else owner[rows]
            chosen = {**chosen, rule.axis: inside}
    made: dict[str, Any] = {}
    for name, rows, rule in _declared(value):
        made[name] = _rows(rows, chosen[rule.axis])
        counted = rule.index_of or rule.ends_of
        if counted is not None:
            owner = chosen[counted]
            if isinstance(owner, slice):
                made[name] = made[name] - owner.start
            else:
                made[name] = (torch.cumsum(owner, 0) - 1)[made[name]]
    for entry in fields(value):
        part = getattr(value, entry.name)
        if "part" in entry.metadata and part is not None:
            made[entry.name] = _chosen(part, {"scene": scenes})
    return replace(value, **made)
