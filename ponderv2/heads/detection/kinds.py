"""The heads of detectors: the list of their settings, and the module of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from ponderv2.heads.detection.center.config import CenterHeadConfig
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig

if TYPE_CHECKING:
    from ponderv2.heads.detection.head import AnyHead

AnyHeadConfig = CenterHeadConfig | FCAF3DHeadConfig | VoteNetHeadConfig
DetectionHeadConfig = Annotated[AnyHeadConfig, Field(discriminator="kind")]
"""The kinds of heads, chosen by `kind`."""


def check_classes(config: AnyHeadConfig, classes: tuple[str, ...]) -> None:
    """Raises ValueError where the settings of a head name classes that there are not, or lack one."""
    match config:
        case CenterHeadConfig():
            config.numbers(classes)
        case FCAF3DHeadConfig():
            config.levels(classes)
        case VoteNetHeadConfig():
            config.sizes(classes)
        case _:
            assert_never(config)


def build_detection_head(config: AnyHeadConfig, in_channels: int, classes: tuple[str, ...]) -> AnyHead:
    """The module from features to boxes of the classes of a data set.

    `in_channels`: of a point, or of a column of the volume: channels times cells above each other.
    Raises ValueError for classes that do not fit.
    """
    match config:
        case CenterHeadConfig():
            from ponderv2.heads.detection.center.head import CenterHead

            return CenterHead(config, in_channels, classes)
        case FCAF3DHeadConfig():
            from ponderv2.heads.detection.fcaf3d.head import FCAF3DHead

            return FCAF3DHead(config, in_channels, classes)
        case VoteNetHeadConfig():
            from ponderv2.heads.detection.votenet.head import VoteNetHead

            return VoteNetHead(config, in_channels, classes)
        case _:
            assert_never(config)
