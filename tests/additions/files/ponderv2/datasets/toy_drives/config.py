"""Settings of the toy drives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ponderv2.datasets.settings import DatasetSettings

if TYPE_CHECKING:
    from ponderv2.datasets.reader import DatasetReader


class ToyDrivesConfig(DatasetSettings):
    """Toy drives: sweeps of a LiDAR with intensities, and boxes around cars; no camera."""

    kind: Literal["toy_drives"] = "toy_drives"
    path: Path = Path("data/raw/toy_drives")
    """Folder with train/ and val/."""
    sweeps: int = 10
    """Most sweeps of a drive."""

    def reader(self) -> DatasetReader:
        """All drives."""
        from ponderv2.datasets.toy_drives.reader import find

        return find(self)
