"""The data sets that `prepare` reads: the list of their settings, and the reader of each.

To add one: a folder with settings and reader, its lines here, a preset in `presets/prepare/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never, get_args

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
from ponderv2.datasets.streets.config import StreetsConfig
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
from ponderv2.datasets.vehicle.config import VehicleConfig

if TYPE_CHECKING:
    from pathlib import Path

    from ponderv2.datasets.drives import DriveSource
    from ponderv2.datasets.nuscenes.build import Track
    from ponderv2.datasets.reader import DatasetGenerator, DatasetReader
    from ponderv2.scenes.folders import SceneLayout
    from ponderv2.scenes.reader import DatasetInfo

DrivesConfig = NuscenesConfig | SemanticKittiConfig | KittiConfig | VehicleConfig | SunRgbdConfig
"""Settings of the data sets of single scans, of drives or RGB-D cameras, in the order in which a folder is
looked at."""
DatasetConfig = Annotated[
    SyntheticConfig
    | RgbdConfig
    | S3disConfig
    | ScannetConfig
    | ScannetppConfig
    | Structured3dConfig
    | DrivesConfig
    | StreetsConfig,
    Field(discriminator="kind"),
]
"""Settings of any data set; `kind` says of which."""

DATASETS: dict[str, type[DatasetSettings]] = {
    settings.model_fields["kind"].default: settings for settings in get_args(get_args(DatasetConfig)[0])
}
"""The settings class of each kind."""


def reader_of(settings: DatasetSettings, track: Track | None = None) -> DatasetReader:
    """Finds the scenes of a data set; nothing is read yet. Raises SceneError where there are none.

    `track` shows the progress of an index that has to be built first.
    """
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
        case _ if isinstance(settings, DrivesConfig):
            return drives_of(settings, track).reader()
        case _:
            raise ValueError(f"no reader of {type(settings).__name__}")


def drives_of(settings: DrivesConfig, track: Track | None = None) -> DriveSource:
    """A data set of drives, opened. Raises SceneError where there is none, or it is damaged."""
    match settings:
        case NuscenesConfig():
            from ponderv2.datasets.nuscenes import reader as nuscenes

            return nuscenes.source(settings) if track is None else nuscenes.source(settings, track)
        case SemanticKittiConfig():
            from ponderv2.datasets.semantickitti import reader as semantickitti

            return semantickitti.source(settings)
        case KittiConfig():
            from ponderv2.datasets.kitti import reader as kitti

            return kitti.source(settings)
        case VehicleConfig():
            from ponderv2.datasets.vehicle import reader as vehicle

            return vehicle.source(settings)
        case SunRgbdConfig():
            from ponderv2.datasets.sunrgbd import reader as sunrgbd

            return sunrgbd.source(settings)
        case _:
            assert_never(settings)


def drives_in(settings: DatasetSettings) -> tuple[Path, DatasetInfo, SceneLayout] | None:
    """Folder of the drives that settings name, what is known of it and how it is read in place.

    None for settings of another data set, and where the folder holds no drives. Raises SceneError for
    drives that are damaged.
    """
    if not isinstance(settings, DrivesConfig) or not settings.path.exists():
        return None
    return settings.path, *drives_of(settings).in_place()


def in_place(root: Path) -> tuple[DatasetInfo, SceneLayout] | None:
    """What is known of drives that are read where they are, and how; None for any other folder.

    Raises SceneError for drives that are damaged.
    """
    for settings in get_args(DrivesConfig):
        if settings.is_in_place(root):
            return drives_of(settings(path=root)).in_place()
    return None


def generator_of(settings: DatasetSettings) -> DatasetGenerator | None:
    """Plans the scenes of a data set that is generated in the layout of a published one; None for others."""
    match settings:
        case StreetsConfig():
            from ponderv2.datasets.streets import generator as streets

            return streets.find(settings)
        case _:
            return None
