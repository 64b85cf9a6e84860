"""The heads with a class per point: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from ponderv2.heads.config import (
    DecoupledHeadConfig,
    FinalHeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
)

if TYPE_CHECKING:
    from ponderv2.heads.language import DecoupledHead, LanguageHead
    from ponderv2.heads.semantic import FinalHead, LinearHead

HeadConfig = Annotated[
    LinearHeadConfig | FinalHeadConfig | LanguageHeadConfig | DecoupledHeadConfig,
    Field(discriminator="kind"),
]
"""The kinds of heads, chosen by `kind`."""


def build_head(config: HeadConfig, in_channels: int) -> LinearHead | FinalHead | LanguageHead | DecoupledHead:
    """A module from point features `[point, in_channels]` and the name of their dataset to class scores.

    Raises ValueError where the number of classes is not known, and what `embedding_rows` raises.
    """
    from ponderv2.heads.language import DecoupledHead, LanguageHead
    from ponderv2.heads.semantic import FinalHead, LinearHead

    match config:
        case LinearHeadConfig():
            return LinearHead(config, in_channels)
        case FinalHeadConfig():
            return FinalHead(config, in_channels)
        case LanguageHeadConfig():
            return LanguageHead(config, in_channels)
        case DecoupledHeadConfig():
            return DecoupledHead(config, in_channels)
        case _:
            assert_never(config)
