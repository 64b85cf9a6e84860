"""Data sets, one folder each: settings, reader, class names. `DATASETS` lists those that `prepare` reads.

To add one: a folder with settings and reader, a line in `DatasetConfig`, a preset in `presets/prepare/`.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.datasets.settings import DatasetSettings
from ponderv2.datasets.structured3d.config import Structured3dConfig

DatasetConfig = Annotated[
    SyntheticConfig | RgbdConfig | S3disConfig | ScannetConfig | ScannetppConfig | Structured3dConfig,
    Field(discriminator="kind"),
]
"""Settings of any data set; `kind` says of which."""

DATASETS: dict[str, type[DatasetSettings]] = {
    settings.model_fields["kind"].default: settings for settings in get_args(get_args(DatasetConfig)[0])
}
"""The settings class of each kind; its `reader()` imports the reader when it is needed."""
