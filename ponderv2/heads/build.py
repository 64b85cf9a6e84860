"""From the settings of a head to the module."""

from __future__ import annotations

from typing import assert_never

from ponderv2.heads.config import (
    DecoupledHeadConfig,
    FinalHeadConfig,
    HeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
)
from ponderv2.heads.language import DecoupledHead, LanguageHead
from ponderv2.heads.semantic import FinalHead, LinearHead

Head = LinearHead | FinalHead | LanguageHead | DecoupledHead


def build_head(config: HeadConfig, in_channels: int) -> Head:
    """A module from point features `[point, in_channels]` and the name of their dataset to class scores.

    Raises ValueError where the number of classes is not known, and what `embedding_rows` raises.
    """
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
