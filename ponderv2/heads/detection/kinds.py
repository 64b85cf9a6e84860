"""The heads of detectors: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ponderv2.heads.detection.center.config import CenterHeadConfig

if TYPE_CHECKING:
    from ponderv2.heads.detection.head import AnyHead

DetectionHeadConfig = CenterHeadConfig
"""The kinds of heads, chosen by `kind`."""


def build_detection_head(config: DetectionHeadConfig, in_channels: int, classes: tuple[str, ...]) -> AnyHead:
    """The module from features to boxes of the classes of a data set.

    `in_channels`: of a point, or of a column of the volume: channels times cells above each other.
    Raises ValueError for classes that do not fit.
    """
    from ponderv2.heads.detection.center.head import CenterHead

    return CenterHead(config, in_channels, classes)
