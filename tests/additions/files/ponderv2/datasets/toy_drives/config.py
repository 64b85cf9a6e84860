"""Settings of the toy drives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ponderv2.datasets.settings import DatasetSettings


class ToyDrivesConfig(DatasetSettings):
    """Toy drives: sweeps of a LiDAR with intensities, and boxes around cars; no camera."""

    kind: Literal["toy_drives"] = "toy_drives"
    path: Path = Path("data/raw/toy_drives")
    """Folder with train/ and val/."""
    sweeps: int = 10
    """Most sweeps of a drive."""
