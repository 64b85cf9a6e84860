"""Settings of the reader of own vehicles. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat

from ponderv2.datasets.settings import DatasetSettings

FILE = "drive.json"


class VehicleConfig(DatasetSettings):
    """Own vehicles: a scene per scan, in the frame of its LiDAR; drives are given by drive.json or as in DGP.

    All commands also read its folder in place, without preparing it: `--data PATH`.
    """

    kind: Literal["vehicle"] = "vehicle"
    path: Path = Path("data/raw/vehicle")
    """Folder of a drive.json, of drives in train/, val/ and test/, or of DGP's scene_dataset_*.json."""
    lidar: str = ""
    """Name of the LiDAR whose scans are scenes; by default the first one."""
    cameras: tuple[str, ...] = ()
    """Cameras whose images are frames of the scenes; empty = all."""
    sweeps: NonNegativeInt = 5
    """Scans of a scene, itself included; prepared scenes hold a copy of each."""
    gap: PositiveFloat = 0.5
    """Most seconds between a scan and the image of a camera that is nearest in time."""

    @classmethod
    def is_in_place(cls, root: Path) -> bool:
        """Whether a folder holds drives."""
        return bool(drive_files(root) or dgp_files(root))


def drive_files(root: Path) -> list[Path]:
    """Every drive.json at most two levels down."""
    return [path for depth in ("", "*/", "*/*/") for path in sorted(root.glob(f"{depth}{FILE}"))]


def dgp_files(root: Path) -> list[Path]:
    """Lists of scenes of DGP; where there is none, the file of a single scene."""
    lists = sorted(root.glob("scene_dataset*.json"))
    return lists or [path for path in sorted(root.glob("scene_*.json")) if (root / "calibration").is_dir()]
