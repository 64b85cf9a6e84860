"""The data sets that `prepare` reads: the list of their settings, and the reader of each.

To add one: a folder with settings and reader, its lines here, a preset in `presets/prepare/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.kitti.config import KittiConfig
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.datasets.semantickitti.config import SemanticKittiConfig
from ponderv2.datasets.settings import DatasetSettings
from ponderv2.datasets.structured3d.config import Structured3dConfig

if TYPE_CHECKING:
    from pathlib import Path

    from ponderv2.datasets.reader import DatasetReader
    from ponderv2.scenes.folders import SceneLayout
    from ponderv2.scenes.reader import DatasetInfo

DatasetConfig = Annotated[
    SyntheticConfig
    | RgbdConfig
    | S3disConfig
    | ScannetConfig
    | ScannetppConfig
    | Structured3dConfig
    | NuscenesConfig
    | SemanticKittiConfig
    | KittiConfig,
    Field(discriminator="kind"),
]
"""Settings of any data set; `kind` says of which."""

DATASETS: dict[str, type[DatasetSettings]] = {
    settings.model_fields["kind"].default: settings for settings in get_args(get_args(DatasetConfig)[0])
}
"""The settings class of each kind."""


def reader_of(settings: DatasetSettings) -> DatasetReader:
    """Finds the scenes of a data set; nothing is read yet. Raises SceneError where there are none."""
    match settings:
        case SyntheticConfig():
            from ponderv2.datasets.generated import reader as generated

            return generated.find(settings)
        case RgbdConfig():
            from ponderv2.datasets.rgbd import reader as rgbd

            return rgbd.find(settings)
        case S3disConfig():
            from ponderv2.datasets.s3dis import reader as s3dis

            return s3dis.find(settings)
        case ScannetConfig():
            from ponderv2.datasets.scannet import reader as scannet

            return scannet.find(settings)
        case ScannetppConfig():
            from ponderv2.datasets.scannetpp import reader as scannetpp

            return scannetpp.find(settings)
        case Structured3dConfig():
            from ponderv2.datasets.structured3d import reader as structured3d

            return structured3d.find(settings)
        case NuscenesConfig():
            from ponderv2.datasets.nuscenes import reader as nuscenes

            return nuscenes.find(settings)
        case SemanticKittiConfig():
            from ponderv2.datasets.semantickitti import reader as semantickitti

            return semantickitti.find(settings)
        case KittiConfig():
            from ponderv2.datasets.kitti import reader as kitti

            return kitti.find(settings)
        case _:
            raise ValueError(f"no reader of {type(settings).__name__}")


def in_place(root: Path) -> tuple[DatasetInfo, SceneLayout] | None:
    """What is known of a data set that is read where it is, and how; None for any other folder.

    Raises SceneError for a data set that is damaged.
    """
    for settings in DATASETS.values():
        if settings.is_in_place(root):
            return _in_place(settings.model_validate({"path": root}))
    return None


def _in_place(settings: DatasetSettings) -> tuple[DatasetInfo, SceneLayout]:
    match settings:
        case NuscenesConfig():
            from ponderv2.datasets.nuscenes import reader as nuscenes

            return nuscenes.in_place(settings)
        case SemanticKittiConfig():
            from ponderv2.datasets.semantickitti import reader as semantickitti

            return semantickitti.in_place(settings)
        case KittiConfig():
            from ponderv2.datasets.kitti import reader as kitti

            return kitti.in_place(settings)
        case _:
            raise ValueError(f"{type(settings).__name__} is not read in place")
