"""The base class of every settings class. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class StrictConfig(BaseModel):
    """Settings that cannot be changed after they are made and refuse keys they do not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


@dataclass(frozen=True)
class CommandOption:
    """In the annotation of a nested setting: the option of the command line that sets it, `--voxel`.

    Settings at the top have options by their own names.
    """

    flag: str


def _joined(value: Any) -> Any:
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


SplitName = Annotated[str, BeforeValidator(_joined), Field(min_length=1)]
"""One split of a scene store, or several joined by `+`: `Area_1+Area_2`, in YAML also `[Area_1, Area_2]`."""


@dataclass(frozen=True)
class NoEffect:
    """Marks a setting that has no effect on what is learned: `Annotated[int, NO_EFFECT]`."""


NO_EFFECT = NoEffect()


def differences(stored: Mapping[str, Any], config: BaseModel, prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ from stored ones, without those marked `NO_EFFECT`.

    `stored`: plain values, as `model_dump(mode="json")` gives them; a setting that they lack has its default.
    Names are sorted.
    """
    found: list[str] = []
    now = config.model_dump(mode="json")
    for key in sorted({*stored, *now}):
        info = type(config).model_fields.get(key)
        if info is not None and NO_EFFECT in info.metadata:
            continue
        before, value = stored.get(key), getattr(config, key, None)
        if key not in stored and info is not None and value == info.get_default(call_default_factory=True):
            continue  # written before there was this setting
        if isinstance(before, Mapping) and isinstance(value, BaseModel):
            found += differences(before, value, f"{prefix}{key}.")
        elif before != now.get(key):
            found.append(f"{prefix}{key}")
    return found
