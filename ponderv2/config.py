"""The parent of every settings class. Never imports torch."""

from __future__ import annotations

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


def _joined(value: Any) -> Any:
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


SplitName = Annotated[str, BeforeValidator(_joined), Field(min_length=1)]
"""One split of a scene store, or several joined by `+`: `Area_1+Area_2`, in YAML also `[Area_1, Area_2]`."""
