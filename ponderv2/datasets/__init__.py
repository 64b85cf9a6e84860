"""One reader per kind of raw data, in one visible table. Readers are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ponderv2.datasets.rgbd.config import RgbdConfig
    from ponderv2.datasets.s3dis.config import S3disConfig
    from ponderv2.datasets.scannet.config import ScannetConfig
    from ponderv2.datasets.scannetpp.config import ScannetppConfig
    from ponderv2.datasets.structured3d.config import Structured3dConfig
    from ponderv2.scenes.source import SourcePlan
    from ponderv2.synthetic.config import SyntheticConfig


def _rgbd(config: RgbdConfig) -> SourcePlan:
    from ponderv2.datasets.rgbd.reader import find

    return find(config)


def _s3dis(config: S3disConfig) -> SourcePlan:
    from ponderv2.datasets.s3dis.reader import find

    return find(config)


def _structured3d(config: Structured3dConfig) -> SourcePlan:
    from ponderv2.datasets.structured3d.reader import find

    return find(config)


def _scannet(config: ScannetConfig) -> SourcePlan:
    from ponderv2.datasets.scannet.reader import find

    return find(config)


def _scannetpp(config: ScannetppConfig) -> SourcePlan:
    from ponderv2.datasets.scannetpp.reader import find

    return find(config)


def _synthetic(config: SyntheticConfig) -> SourcePlan:
    from ponderv2.datasets.generated.reader import find

    return find(config)


SOURCES: dict[str, Callable[[Any], SourcePlan]] = {
    "rgbd": _rgbd,
    "s3dis": _s3dis,
    "scannet": _scannet,
    "scannetpp": _scannetpp,
    "structured3d": _structured3d,
    "synthetic": _synthetic,
}
"""`kind` of the source's settings -> what finds its scenes."""
