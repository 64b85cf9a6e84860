"""Options of the command line made from the fields of a settings class: `max_frames` -> `--max-frames`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ponder_cli.layers import Override
from ponderv2.config import CommandOption
from ponderv2.errors import PresetError

NOT_OPTIONS = ("kind", "path")
"""Fields at the top that are positional arguments, not options."""


@dataclass(frozen=True)
class FieldOption:
    """A setting that an option of the command line sets."""

    keys: tuple[str, ...]
    """Where the setting is: ("generic", "poses")."""
    flag: str
    field: FieldInfo
    panel: str
    """Heading in the help."""

    @property
    def parameter(self) -> str:
        """Name of the argument of the command's function."""
        return "_".join(self.keys)

    def overrides(self, values: dict[str, Any]) -> Iterator[Override]:
        """What the option changes in the preset's `source`; nothing when it was not given."""
        value = values[self.parameter]
        if value is not None and value != [] and value != ():
            yield Override(("source", *self.keys), _plain(value), self.flag)


def options_of(settings: type[BaseModel]) -> Iterator[FieldOption]:
    """An option for each plain field, and for each nested one that asks for it by `CommandOption`."""
    panel = f"Settings of {settings.model_fields['kind'].default}"
    for name, field in settings.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            about = f"{panel}: {name}"
            for inner, one in nested.model_fields.items():
                for asked in one.metadata:
                    if isinstance(asked, CommandOption):
                        yield FieldOption((name, inner), asked.flag, one, about)
        elif name not in NOT_OPTIONS:
            yield FieldOption((name,), f"--{name.replace('_', '-')}", field, panel)


def flags_of(settings: type[BaseModel]) -> set[str]:
    """The options of a data set."""
    return {one.flag for one in options_of(settings)}


def parameters_of(settings: type[BaseModel]) -> list[inspect.Parameter]:
    """PATH, where the settings have one, and the options, as parameters of a function for Typer."""
    found = []
    if "path" in settings.model_fields:
        about = _about(settings.model_fields["path"])
        path = Annotated[Path | None, typer.Argument(metavar="PATH", help=about)]
        found.append(_parameter("path", path))
    else:  # accepted only to give a clear error
        hidden = Annotated[Path | None, typer.Argument(metavar="PATH", hidden=True)]
        found.append(_parameter("path", hidden))
    for one in options_of(settings):
        kind, metavar = _typer_type(one.field.annotation)
        flag = f"{one.flag}/--no-{one.flag[2:]}" if kind is bool else one.flag
        about = typer.Option(
            flag,
            metavar=metavar,
            help=_about(one.field),
            rich_help_panel=one.panel,
            show_default=False,
        )
        found.append(_parameter(one.parameter, Annotated[kind | None, about]))
    return found


def overrides_of(settings: type[BaseModel], values: dict[str, Any]) -> tuple[Override, ...]:
    """What the given options change in a preset. Raises PresetError for a PATH that there is no use for."""
    path = values["path"]
    if path is not None and "path" not in settings.model_fields:
        kind = settings.model_fields["kind"].default
        raise PresetError(f"PATH does not apply to '{kind}'", fix=f"leave {path} out")
    first = () if path is None else (Override(("source", "path"), str(path), "PATH"),)
    return (*first, *(item for one in options_of(settings) for item in one.overrides(values)))


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _about(field: FieldInfo) -> str:
    """The first paragraph of the field's docstring, and the default where it says something."""
    about = " ".join((field.description or "").split("\n\n")[0].split())
    default = field.get_default(call_default_factory=True)
    if default in (None, (), "", Path()):
        return about
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{about} Default: {shown}.".lstrip()


def _typer_type(annotation: Any) -> tuple[Any, str | None]:
    """What Typer parses, and what the help calls it. Values are checked by the settings class."""
    options = [one for one in _members(annotation) if one is not type(None)]
    words = [word for one in options if get_origin(one) is Literal for word in get_args(one)]
    if words:
        return str, "|".join(map(str, words))
    first = options[0]
    if get_origin(first) is tuple:
        inner = [_typer_type(one)[0] for one in get_args(first) if one is not Ellipsis]
        if Ellipsis in get_args(first):
            return list[inner[0]], None
        return tuple[*inner], None
    return (first if first in (int, float, bool, Path) else str), None


def _members(annotation: Any) -> list[Any]:
    """The types that a value may have."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for one in get_args(annotation) for inner in _members(one)]
    return [annotation]


def _plain(value: Any) -> Any:
    """As YAML would give it."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
