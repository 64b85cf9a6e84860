"""From the settings of a head to the module."""

from __future__ import annotations

from ponderv2.heads.config import HeadConfig
from ponderv2.heads.semantic import LinearHead


def build_head(config: HeadConfig, in_channels: int) -> LinearHead:
    """A module from point features `[point, in_channels]` to what the task asks of each point."""
    return LinearHead(config, in_channels)
